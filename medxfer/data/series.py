"""DICOM files of a folder as series: found by their headers, chosen by rules, read as volumes."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from pydicom.config import IGNORE
from pydicom.uid import UID

from ..errors import DataError
from .formats.broken import listed_faults, refuse_broken
from .formats.content import load_bytes
from .formats.dicom_frames import read_dicom_file, stack_of_file
from .formats.dicom_header import SEGMENTATIONS, Header, read_header
from .formats.dicom_volume import damage_named, read_stack, workers
from .formats.series_gate import Stack, stack_of
from .formats.series_volumes import orientation_of
from .formats.stored_pixels import same_pixels
from .image import Image, heard, limit, shown
from .policy import STRICT, ReadPolicy

_BATCH = 64  # files that a thread takes at once
_KEPT = 4096  # files up to which headers are kept, so that reading need not parse them again
_LISTED = 8  # series or files that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Images that one scan made, as their headers say; whether they form a volume is seen when they are read."""

    uid: str
    files: tuple[Path, ...]  # sorted by name
    modality: str
    description: str
    orientation: str  # axial, coronal, sagittal; empty: unknown or mixed
    slices: int  # images: files, or frames of them
    patient: str
    study: str
    notes: tuple[str, ...] = ()  # what was set aside beside it
    overviews: tuple[Path, ...] = ()  # its localizers
    headers: tuple[Header, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What lies in a folder."""

    folder: Path
    series: tuple[Series, ...]  # sorted by their first files
    aside: tuple[tuple[Path, str], ...]  # files that are no images of a series, and why
    damaged: tuple[tuple[Path, DataError], ...]  # DICOM files that cannot be read


def find_series(folder: Path, *, recursive: bool = True) -> Survey:
    """Find DICOM series by the headers of all files.

    Localizers, segmentations and objects without pixels (reports, plans, DICOMDIR) are set aside, as is all that is no
    DICOM. Hidden files are not looked at.

    Args:
        folder: Where to look.
        recursive: In the folders below as well; links are followed, each real folder once.

    Raises:
        DataError: No such folder, or more files than MEDXFER_MAX_ENTRIES.
    """
    paths = _files_below(folder, recursive=recursive)
    headers: list[Header] = []
    aside: list[tuple[Path, str]] = []
    damaged: list[tuple[Path, DataError]] = []
    with ThreadPoolExecutor(workers()) as pool:
        for path, found in chain.from_iterable(pool.map(_read_headers, _batches(paths))):
            if isinstance(found, DataError):
                damaged.append((path, found))
            elif isinstance(found, str):
                aside.append((path, found))
            elif why := _why_aside(found):
                aside.append((path, why))
            elif not found.has_pixels:
                seen = "no pixels: the file ends before them"
                damaged.append((path, DataError(shown(path), seen, "a whole DICOM file", "copy it again")))
            else:
                headers.append(found)
    return Survey(
        folder=folder,
        series=tuple(_grouped(headers, aside, keep=len(headers) <= _KEPT)),
        aside=tuple(aside),
        damaged=tuple(damaged),
    )


def choose_series(survey: Survey, policy: ReadPolicy = STRICT) -> Series:
    """The one series of a folder, or the one that the policy's rules choose.

    Raises:
        DataError: Damaged files; none or several series; all are listed.
    """
    where = shown(survey.folder)
    if survey.damaged:
        seen = f"{len(survey.damaged)} DICOM files cannot be read; {listed_faults(survey.damaged)}"
        raise DataError(where, seen, "whole files", "copy or export the files again")
    fitting = [series for series in survey.series if fits_rules(series, policy)]
    if len(fitting) == 1:
        return dataclasses.replace(fitting[0], notes=(*fitting[0].notes, *_asides(survey)))
    rules = ", ".join(f"{name} {value}" for name, value in policy.series.items() if name != "description")
    rules += ", a description" if "description" in policy.series else ""
    if not survey.series:
        raise DataError(
            where,
            "no DICOM series" + "".join(f"; {text}" for text in _asides(survey)),
            "one series",
            "name a folder of DICOM images, or a file",
        )
    told = "; ".join(_told(series) for series in survey.series[:_LISTED])
    more = f"; and {len(survey.series) - _LISTED} more" if len(survey.series) > _LISTED else ""
    seen = f"{len(survey.series)} series" + (f", {len(fitting)} fit the rules ({rules})" if rules else "")
    todo = "name one folder, or choose by data.series: {modality, description, orientation, slices}"
    raise DataError(where, f"{seen}: {told}{more}", "exactly one series", todo)


def read_series(series: Series | Sequence[Path], policy: ReadPolicy = STRICT) -> Image:
    """Read the images of one series as a volume.

    Args:
        series: As found, or its files.
        policy: What to do with gaps and tilt, which of several volumes.

    Returns:
        float32 (C, X, Y, Z) in the closest RAS axes, sorted by position, each slice by its own slope and intercept;
        a single slice as a picture (C, rows, columns). Spacing comes from positions.

    Raises:
        DataError: As `stack_of`; damaged files; files of several series.
    """
    if not isinstance(series, Series):
        series = _series_of(series)
    with damage_named(series.files[0] if len(series.files) == 1 else series.files[0].parent):
        headers = series.headers or _headers_again(series)
        image = _volume_of(headers, policy)
    return dataclasses.replace(image, warnings=(*series.notes, *image.warnings))


def stack_of_series(series: Series, policy: ReadPolicy = STRICT) -> Stack | Header:
    """Where the slices of a series lie, without their pixels: in the order in which `read_series` stacks them.

    Returns:
        The slices; of a single picture its header.

    Raises:
        DataError: As `read_series`.
    """
    with damage_named(series.files[0].parent):
        headers = series.headers or _headers_again(series)
        if len(headers) == 1:
            return stack_of_file(headers[0].path, load_bytes(headers[0].path), policy=policy)
        _refuse_several(headers)
        return stack_of(headers, policy, same_pixels(None))


def _volume_of(headers: Sequence[Header], policy: ReadPolicy) -> Image:
    if len(headers) == 1:
        path = headers[0].path
        return read_dicom_file(path, load_bytes(path), policy=policy)
    _refuse_several(headers)
    return read_stack(stack_of(headers, policy, same_pixels(None)))


def _refuse_several(headers: Sequence[Header]) -> None:
    """Several files of which one holds many frames."""
    several = next((header for header in headers if header.frames > 1), None)
    if several is not None:
        seen = f"{len(headers)} files, {shown(several.path.name)} holds {several.frames} frames"
        todo = "read each file by itself"
        raise DataError(shown(several.path.parent), seen, "one image a file, or one file", todo)


def _series_of(files: Sequence[Path]) -> Series:
    headers: list[Header] = []
    aside: list[tuple[Path, str]] = []
    for path, found in _read_headers(sorted(files)):
        if isinstance(found, DataError):
            raise found
        why = found if isinstance(found, str) else _why_aside(found)
        if isinstance(found, str) or why:
            aside.append((path, why))
        else:
            headers.append(found)
    groups = list(_grouped(headers, aside, keep=True))
    place = shown(files[0].parent) if files else "no files"
    if len(groups) != 1:
        told = "; ".join(_told(series) for series in groups[:_LISTED]) or "; ".join(
            why for _, why in aside[:_LISTED]
        )
        raise DataError(place, f"{len(groups)} series: {told}", "the files of one series", "name one series")
    survey = Survey(folder=files[0].parent, series=tuple(groups), aside=tuple(aside), damaged=())
    return dataclasses.replace(groups[0], notes=(*groups[0].notes, *_asides(survey)))


def _headers_again(series: Series) -> tuple[Header, ...]:
    found = [header for _, header in _read_headers(series.files)]
    pairs = list(zip(series.files, found, strict=True))
    refuse_broken(series.files[0].parent, [(path, one) for path, one in pairs if isinstance(one, DataError)])
    for path, header in pairs:
        if isinstance(header, str):
            raise DataError(shown(path), header, "the DICOM file that was found before", "run again")
    return tuple(header for header in found if isinstance(header, Header))


def _files_below(folder: Path, *, recursive: bool) -> list[Path]:
    """Regular files, sorted; links to folders are followed once each, hidden files left out."""
    if not folder.is_dir():
        raise DataError(shown(folder), "no such folder", "a folder of DICOM files", "correct the path")
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if recursive and not name.startswith((".", "__MACOSX")))
        files += [Path(place, name) for name in names if not name.startswith(".")]
        if len(files) > limit("ENTRIES"):
            seen_text = f"over {limit('ENTRIES')} files"
            raise DataError(shown(folder), seen_text, "fewer", "raise MEDXFER_MAX_ENTRIES")
    return sorted(files)


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    rest = iter(paths)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _read_headers(paths: Sequence[Path]) -> list[tuple[Path, Header | DataError | str]]:
    with heard():
        return [(path, _header_or_why(path)) for path in paths]


def _header_or_why(path: Path) -> Header | DataError | str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "a pipe, socket or device"
        if path.stat().st_size == 0 and path.suffix.lower() not in (".dcm", ".dicom", ".dic", ".ima"):
            return "0 bytes"
        return read_header(path)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(
            shown(path), f"cannot be read: {error.strerror}", "a readable file", "check its permissions"
        )


def _why_aside(header: Header) -> str:
    """Why a DICOM file is no image of a series; empty where it is one."""
    if header.sop_class in SEGMENTATIONS:
        return "segmentation (SEG)"
    if header.has_pixels:
        return ""
    name = UID(header.sop_class, validation_mode=IGNORE).name
    if header.path.name.upper() == "DICOMDIR" or "Directory" in name:
        return "DICOMDIR"
    is_known = name != header.sop_class
    is_cut = "Image Storage" in name if is_known else not header.series or name.startswith("1.2.840.10008.")
    return "" if is_cut else f"no pixels ({shown(name)[:64]})"


def _grouped(headers: Sequence[Header], aside: list[tuple[Path, str]], *, keep: bool) -> Iterator[Series]:
    """One series for each UID; files without one belong together by their folder."""
    groups: dict[str, list[Header]] = {}
    for header in headers:
        groups.setdefault(header.series or f"folder {header.path.parent}", []).append(header)
    for members in groups.values():
        images = [header for header in members if not header.is_localizer]
        overviews = [header for header in members if header.is_localizer]
        aside += [(header.path, "localizer") for header in overviews]
        if not images:
            continue
        first = images[0]
        orientations = {orientation_of(header) for header in images}
        aside_paths = tuple(header.path for header in overviews)
        yield Series(
            uid=first.series,
            files=tuple(header.path for header in images),
            modality=first.modality,
            description=first.description,
            orientation=orientations.pop() if len(orientations) == 1 else "",
            slices=sum(header.frames for header in images),
            patient=first.patient,
            study=first.study,
            notes=overview_notes(aside_paths),
            overviews=aside_paths,
            headers=tuple(images) if keep else (),
        )


def overview_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """What a series says of localizers that lie with it."""
    return (f"{len(paths)} localizer images set aside ({shown(paths[0].name)})",) if paths else ()


def _asides(survey: Survey) -> list[str]:
    """What was set aside in a folder, counted; localizers of a series are its own notes."""
    counts = Counter(why for _, why in survey.aside if why != "localizer")
    return [f"{count} files set aside: {why}" for why, count in sorted(counts.items())]


def fits_rules(series: Series, policy: ReadPolicy) -> bool:
    """Whether a series is what the policy's rules ask for; without rules each is."""
    rules = policy.series
    return (
        str(rules.get("modality", series.modality)).upper() == series.modality
        and re.search(str(rules.get("description", "")), series.description, re.IGNORECASE) is not None
        and rules.get("orientation", series.orientation) == series.orientation
        and int(rules.get("slices", 0)) <= series.slices
    )


def _told(series: Series) -> str:
    """A series in a message: no free text, which may name a person."""
    words = [series.modality or "no modality", series.orientation or "no one orientation"]
    return f"{' '.join(words)}, {series.slices} images ({shown(series.files[0].name)})"
