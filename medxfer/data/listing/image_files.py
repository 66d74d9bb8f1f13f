"""Which files of a folder are images, by their names; links to folders are followed once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ...errors import DataError
from ..formats.kinds import is_candidate
from ..image import limit, shown


def files_in(folder: Path) -> list[Path]:
    """Image files below a folder, sorted."""
    return files_and_notes(folder)[0]


def files_and_notes(root: Path) -> tuple[list[Path], list[str]]:
    """Image files below a folder, sorted, and a sentence on what was left aside.

    Links to folders are followed once each, hidden files left out.

    Raises:
        DataError: Too many files.
    """
    images: list[Path] = []
    aside: Counter[str] = Counter()
    seen_folders: set[tuple[int, int]] = set()
    entries = 0
    for place, folders, names in os.walk(root, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen_folders:
            folders.clear()
            continue
        seen_folders.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        entries += len(names)
        if entries > limit("ENTRIES"):
            raise DataError(
                shown(root), f"over {limit('ENTRIES')} files", "fewer", "raise MEDXFER_MAX_ENTRIES"
            )
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                continue
            if is_candidate(path):
                images.append(path)
            else:
                aside[path.suffix.lower() or "without suffix"] += 1
    images.sort(key=lambda path: path.as_posix())
    tables = {".csv", ".tsv", ".txt", ".md", ".json", ".yaml", ".yml"}
    others = {suffix: count for suffix, count in aside.items() if suffix not in tables}
    if not others:
        return images, []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return images, [f"{sum(others.values())} files that are no images were left aside ({kinds})"]
