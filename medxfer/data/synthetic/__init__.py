"""Built-in data that nobody has to download: made from a seed, as real files, kept in `MEDXFER_HOME`.

They are synthetic and said to be wherever they are shown.
"""

from __future__ import annotations

import csv
import difflib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ... import files
from ...errors import ConfigError
from ...progress import Advance, Progress
from . import chest_xray
from .chest_xray import write_chest_xrays
from .sheet import contact_sheet

__all__ = ["SOURCES", "Source", "contact_sheet", "make", "write_chest_xrays"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set that can be made.

    Args:
        write: `write(folder, count=..., seed=..., advance=...)`.
        version: Counted up when the same seed gives other files.
        count: Images.
        seed: Of the built-in set.
        image_bytes: Of one image on disk, to ask for space before beginning.
    """

    write: Callable[[Path, int, int, Advance], None]
    version: int
    count: int
    seed: int
    image_bytes: int


def _chest_xrays(folder: Path, count: int, seed: int, advance: Advance) -> None:
    write_chest_xrays(folder, count=count, seed=seed, advance=advance)


SOURCES = {
    "synthetic.chest_xray": Source(
        write=_chest_xrays, version=chest_xray.VERSION, count=800, seed=0, image_bytes=133_000
    ),
}


def make(name: str, say: Progress) -> Path:
    """The folder of a built-in data set; made at the first call, found again afterwards.

    Args:
        name: A key of `SOURCES`.
        say: Told when images are made.

    Returns:
        A folder below `MEDXFER_HOME` that holds `images/` and `labels.csv`, whole.

    Raises:
        ConfigError: There is no such source.
        RunError: No space, or no permission.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.4)
        todo = f"write {near[0]}" if near else "use one of these, or a path"
        raise ConfigError("data.source", name, ", ".join(SOURCES), todo)
    source = SOURCES[name]
    short = name.removeprefix("synthetic.")
    target = files.home() / "synthetic" / f"{short}-v{source.version}-{source.seed}"
    if _is_whole(target, source.count):
        return target
    files.require_space(target, source.count * source.image_bytes)
    with files.explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        # Under another name until whole: whoever finds the folder by its own name finds all of it.
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
        try:
            with say.bar(f"making {source.count} synthetic images", source.count) as advance:
                source.write(temporary, source.count, source.seed, advance)
            _put_in_place(temporary, target, source.count)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _put_in_place(temporary: Path, target: Path, count: int) -> None:
    """Rename, unless another process was faster; a damaged folder of that name is moved out of the way."""
    temporary.chmod(0o755)  # mkdtemp makes it private, a shared MEDXFER_HOME is not
    if target.exists() and not _is_whole(target, count):
        damaged = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
        target.replace(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        temporary.rename(target)
    except OSError:
        if not _is_whole(target, count):
            raise


def _is_whole(folder: Path, count: int) -> bool:
    """Whether a folder holds the label table and every file it names."""
    table = folder / chest_xray.LABELS
    if not table.is_file():
        return False
    with table.open(encoding="utf-8", newline="") as text:
        named = {row["file"] for row in csv.DictReader(text)}
    present = {path.relative_to(folder).as_posix() for path in folder.glob("images/*")}
    return len(named) == count and named <= present


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind; an hour is far longer than making a set takes."""
    for path in folder.glob(".*.tmp-*"):
        if time.time() - path.stat().st_mtime > 3600:
            shutil.rmtree(path, ignore_errors=True)
