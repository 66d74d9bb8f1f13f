"""Files of an answer: their names, and that nothing is written over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..data.inputs import Input
from ..data.names import file_stem, file_stems
from ..errors import ConfigError
from .base import MaskAnswer, RowAnswer


def require_elsewhere(folder: Path, inputs: Sequence[Input]) -> None:
    """Refuse to write beside the images: a mask has the name of its image, and would replace it."""
    paths = [file.path.resolve() for one in inputs for file in one.files]
    if folder.resolve() in {path if path.is_dir() else path.parent for path in paths}:
        raise ConfigError(str(folder), "the folder of the images", "another folder", "name an empty one")


def require_free(
    folder: Path, names: Sequence[str], answer: RowAnswer | MaskAnswer, *, probabilities: bool
) -> None:
    """Refuse a folder with a file of the name of one that would be written, whatever its ending."""
    if not folder.is_dir():
        return
    parts = ["", *("_" + re.sub(r"[^\w-]+", "_", one) for one in answer.classes)]  # as write_mask names them
    wanted = {f"{name}{part}".lower() for name in names for part in parts}
    there = [path.name for path in sorted(folder.iterdir()) if file_stem(path.name).lower() in wanted]
    beside = folder / "probabilities"
    if probabilities and beside.is_dir():
        own = {name.lower() for name in names}
        there += [
            f"{beside.name}/{path.name}"
            for path in sorted(beside.iterdir())
            if file_stem(path.name).lower() in own
        ]
    if there:
        seen = f"{len(there)} files that would be overwritten, {there[0]} among them"
        raise ConfigError(
            str(folder), seen, "a folder without them", "name another folder, or move them away"
        )


def file_names(shown_names: Sequence[str]) -> list[str]:
    """Names for files of the answer: the inputs' own where they differ, else with their folders; no two alike."""
    own = [PurePosixPath(name).name for name in shown_names]
    count = Counter(own)
    return file_stems(
        [
            short if count[short] == 1 else name.strip("/")
            for short, name in zip(own, shown_names, strict=True)
        ]
    )
