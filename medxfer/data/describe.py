"""What the reader made of each input, as plain data: one record a case, the same keys for all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .cases import files_in
from .formats.content import ACCEPTED
from .formats.kinds import DICOM_SUFFIXES, kind_of, suffix_kind
from .image import Image, checked, shown, with_lost_bytes
from .policy import STRICT, ReadPolicy
from .readers import read_image
from .series_units import copies_apart, home_of, may_be_volume

if TYPE_CHECKING:  # pydicom is imported only where there is DICOM
    from .series import Series

KEYS = (
    "path", "status", "kind", "shape", "spacing", "affine", "channels", "min", "max", "mean", "sum", "profile",
    "sha256", "applied", "warnings", "reason",
)  # fmt: skip
Record = dict[str, Any]
_NO_DICOM = frozenset(
    {"no DICOM file", "a pipe, socket or device", "0 bytes"}
)  # set aside by the survey, cases here


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing to read: a file, or the files of a series."""

    path: Path
    series: Series | None = None
    note: str = ""  # which of several series of a folder it is


def records(
    paths: Sequence[Path], *, policy: ReadPolicy = STRICT, notes: list[str] | None = None
) -> Iterator[Record]:
    """Read each case of each path and describe it; nothing is kept.

    Args:
        paths: Files and folders.
        policy: As for `read_image`.
        notes: Sentences on what was set aside in folders are added here.
    """
    for path in paths:
        try:
            found, aside = find_inputs(path, policy=policy)
        except DataError as error:
            yield _refused(path, None, error)
            continue
        if notes is not None:
            notes += aside
        for one in found:
            yield describe(one, policy=policy)


def describe(found: Found, *, policy: ReadPolicy = STRICT) -> Record:
    """Read one case.

    Returns:
        The keys of `KEYS`. `shape`, `spacing` and `affine` are those of the array: a volume in the closest RAS axes,
        a picture as rows and columns. `profile` is the mean of each slice along the last axis, `sha256` that of the
        array as little-endian float32 in C order. Padding of DICOM counts in all of them, as the lowest real value.
        Of a refused case all are null but path, status, kind and reason.
    """
    kind = _kind_of(found)
    try:
        image = read_found(found, policy)
    except DataError as error:
        return _refused(found.path, kind, error, found.note)
    return _of_image(found, kind, image)


def read_found(found: Found, policy: ReadPolicy = STRICT) -> Image:
    """The image of one case.

    Raises:
        DataError: As `read_image`.
    """
    if found.series is None:
        return read_image(found.path, policy=policy)
    from .series import read_series

    return checked(found.path, read_series(found.series, policy), on_nonfinite=policy.on_nonfinite)


def _of_image(found: Found, kind: str | None, image: Image) -> Record:
    array = image.array
    total = float(array.sum(dtype=np.float64))
    return {
        "path": with_lost_bytes(found.path),
        "status": "warned" if image.warnings else "ok",
        "kind": kind,
        "shape": list(array.shape[1:]),
        "spacing": None if image.spacing is None else [float(step) for step in image.spacing],
        "affine": None if image.affine is None else (image.affine + 0.0).tolist(),  # + 0.0: no -0.0
        "channels": array.shape[0],
        "min": float(array.min()),
        "max": float(array.max()),
        "mean": total / array.size,
        "sum": total,
        "profile": array.mean(axis=tuple(range(array.ndim - 1)), dtype=np.float64).tolist(),
        "sha256": hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").data).hexdigest(),
        "applied": [*([found.note] if found.note else []), *image.applied],
        "warnings": list(image.warnings),
        "reason": None,
    }


def _refused(path: Path, kind: str | None, error: DataError, note: str = "") -> Record:
    where = f"{error.where} ({note})" if note else error.where
    parts = (("", error.seen), ("accepted: ", error.accepted), ("do: ", error.todo))
    record: Record = dict.fromkeys(KEYS)
    record.update(path=with_lost_bytes(path), status="refused", kind=kind, applied=[], warnings=[])
    record["reason"] = f"{where}: " + "; ".join(label + text for label, text in parts if text)
    return record


def _kind_of(found: Found) -> str | None:
    """By content; null for what is no image, and for what cannot be opened."""
    if found.series is not None:
        return "DICOM series"
    try:
        if not found.path.is_file():
            return None
        with found.path.open("rb") as file:
            return kind_of(file.read(4096)) or ("NIfTI" if found.path.suffix.lower() == ".img" else None)
    except OSError:
        return None


def find_inputs(path: Path, *, policy: ReadPolicy = STRICT) -> tuple[list[Found], list[str]]:
    """The cases of a path: a file is one; a folder one for each DICOM series and one for each other image file.

    Args:
        path: A file or a folder, walked with what lies below it; hidden files are left out, links followed once.
        policy: Its rules choose among the series of a folder.

    Returns:
        The cases sorted by path, and sentences on DICOM files that are no images and were set aside.

    Raises:
        DataError: No image in the folder.
    """
    if not path.is_dir():
        return [Found(path=path)], []
    files = files_in(path)
    found = [Found(path=file) for file in files]
    aside: list[str] = []
    if any(_may_be_dicom(file) for file in files):
        found, aside = _with_series(path, files, policy)
    if not found:
        seen = "no image in this folder" + "".join(f"; {text}" for text in aside)
        raise DataError(shown(path), seen, ACCEPTED, "name a folder with images, or a file")
    return sorted(found, key=lambda one: (one.path.as_posix(), one.note)), aside


def _may_be_dicom(path: Path) -> bool:
    """By its suffix; files without a known one are candidates because of their first bytes."""
    return path.suffix.lower() in DICOM_SUFFIXES or suffix_kind(path) is None


def _with_series(folder: Path, files: Sequence[Path], policy: ReadPolicy) -> tuple[list[Found], list[str]]:
    """Series as one case each; other files, and each picture of a projection series, by themselves."""
    from .series import find_series, fits_rules

    survey = find_series(folder)
    copies: list[str] = []
    series = [part for one in survey.series if fits_rules(one, policy) for part in copies_apart(one, copies)]
    unwanted = {file for one in survey.series if not fits_rules(one, policy) for file in one.files}
    volumes = [one for one in series if may_be_volume(one)]
    pictures = {file for one in series if not may_be_volume(one) for file in one.files}
    reasons = {file: why for file, why in survey.aside if why not in _NO_DICOM}
    taken = {file for one in volumes for file in one.files} | reasons.keys()
    found = [Found(path=file) for file in sorted(pictures.union(files) - taken - unwanted)]
    homes = Counter(home_of(one) for one in volumes)
    numbers: Counter[Path] = Counter()
    for one in volumes:
        home = home_of(one)
        numbers[home] += 1
        words = ", ".join(word for word in (one.modality, one.orientation, f"{one.slices} images") if word)
        note = f"series {numbers[home]} of {homes[home]} in this folder: {words}" if homes[home] > 1 else ""
        found.append(Found(path=home, series=one, note=note))
    # A file that is no image shows its own refusal when nothing else is there to read.
    images = [path for path, why in reasons.items() if path.is_file() and why != "DICOMDIR"]
    if not found and images:
        return [Found(path=path) for path in sorted(images)], []
    counts = sorted(Counter(reasons.values()).items())
    counts += [("of series that the rules do not choose", len(unwanted))] if unwanted else []
    said = [f"{shown(folder)}: {count} files set aside: {why}" for why, count in counts]
    return found, [*said, *copies]
