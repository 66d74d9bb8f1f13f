"""Built-in data that nobody has to download: made from a seed, as real files, kept in `MEDXFER_HOME`.

They are synthetic and said to be wherever they are shown.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ... import files
from ...errors import ConfigError
from ...progress import Advance, Progress
from . import (
    abdomen_chest,
    brain_mri,
    chest_findings,
    chest_xray,
    hippocampus_mri,
    lung_masks,
    lung_nodule_ct,
    nuclei,
    pathology,
    sarcoma_ct,
)
from .chest_xray import write_chest_xrays
from .ct_series import CtSeries, write_ct_series
from .sheet import contact_sheet

__all__ = ["SOURCES", "CtSeries", "Source", "contact_sheet", "make", "write_chest_xrays", "write_ct_series"]

# What a set consists of, written last: hidden, so that nobody takes it for a part of the data.
_MADE = ".made.txt"


class Writer(Protocol):
    """Writes a set into a folder; `advance` is called after each image."""

    def __call__(self, folder: Path, *, count: int, seed: int, advance: Advance | None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set that can be made.

    Args:
        write: Writes it.
        version: Counted up when the same seed gives other files.
        count: Images.
        image_bytes: Of one image on disk, its mask included, to ask for space before beginning.
        seed: Of the built-in set.
    """

    write: Writer
    version: int
    count: int
    image_bytes: int
    seed: int = 0


SOURCES = {
    "synthetic.chest_xray": Source(
        write=write_chest_xrays, version=chest_xray.VERSION, count=800, image_bytes=133_000
    ),
    "synthetic.abdomen_chest": Source(
        write=abdomen_chest.write_abdomen_chest, version=abdomen_chest.VERSION, count=130, image_bytes=30_000
    ),
    "synthetic.brain_mri": Source(
        write=brain_mri.write_brain_mri, version=brain_mri.VERSION, count=253, image_bytes=20_000
    ),
    "synthetic.chest_findings": Source(
        write=chest_findings.write_chest_findings,
        version=chest_findings.VERSION,
        count=600,
        image_bytes=14_000,
    ),
    "synthetic.lung_nodule_ct": Source(
        write=lung_nodule_ct.write_nodule_slices, version=lung_nodule_ct.VERSION, count=500, image_bytes=4_100
    ),
    "synthetic.lung_nodule_ct_volumes": Source(
        write=lung_nodule_ct.write_nodule_volumes,
        version=lung_nodule_ct.VERSION,
        count=160,
        image_bytes=90_000,
    ),
    "synthetic.pathology": Source(
        write=pathology.write_pathology, version=pathology.VERSION, count=480, image_bytes=9_000
    ),
    "synthetic.hippocampus_mri": Source(
        write=hippocampus_mri.write_hippocampi, version=hippocampus_mri.VERSION, count=60, image_bytes=300_000
    ),
    "synthetic.sarcoma_ct": Source(
        write=sarcoma_ct.write_sarcomas, version=sarcoma_ct.VERSION, count=51, image_bytes=200_000
    ),
    "synthetic.lung_masks": Source(
        write=lung_masks.write_lung_masks, version=lung_masks.VERSION, count=140, image_bytes=20_000
    ),
    "synthetic.nuclei": Source(
        write=nuclei.write_nuclei, version=nuclei.VERSION, count=160, image_bytes=30_000
    ),
}


def make(name: str, say: Progress) -> Path:
    """The folder of a built-in data set; made at the first call, found again afterwards.

    Args:
        name: A key of `SOURCES`.
        say: Told when images are made.

    Returns:
        A folder below `MEDXFER_HOME`, whole.

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
                source.write(temporary, count=source.count, seed=source.seed, advance=advance)
            _note(temporary, source.count)
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


def _note(folder: Path, count: int) -> None:
    """Write down what the set consists of: how many images were asked for, then size and path of each file."""
    lines = [
        f"{path.stat().st_size}\t{path.relative_to(folder).as_posix()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    files.write_atomic(folder / _MADE, "\n".join([str(count), *lines]) + "\n")


def _is_whole(folder: Path, count: int) -> bool:
    """Whether a folder holds every file that was written, in its size."""
    try:
        asked, *lines = (folder / _MADE).read_text(encoding="utf-8").splitlines()
        wanted = [line.split("\t", 1) for line in lines]
        return asked == str(count) and all(
            (folder / name).stat().st_size == int(size) for size, name in wanted
        )
    except (OSError, ValueError):
        return False


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind; an hour is far longer than making a set takes."""
    for path in folder.glob(".*.tmp-*"):
        if time.time() - path.stat().st_mtime > 3600:
            shutil.rmtree(path, ignore_errors=True)
