"""Who is who: a column, DICOM PatientID, a pattern on the file name, or each file for itself, which is said."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...bundle.schema import PatientSpec
from ...errors import ConfigError, DataError
from ..case import Case
from ..formats.kinds import DICOM_SUFFIXES, PICTURE_SUFFIXES, VOLUME_SUFFIXES, image_suffix
from ..image import shown
from .tables import Table, match_column

ALONE = "each image counts as its own patient"
COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id")  # found without being named
_READERS = 2  # threads
_FEW = 2  # patients that may share a frame of reference: more than these, and more than half, is a device's default


def with_patients(
    spec: PatientSpec, cases: list[Case], table: Table | None, notes: list[str]
) -> tuple[list[Case], str]:
    """Fill in the patient of every case; files without pixels in a DICOM tree are set aside on the way.

    Args:
        spec: Column or pattern.
        cases: Without patients.
        table: The label table, if there is one.
        notes: Sentences are added here.

    Returns:
        The cases, with study, series and frame of reference where DICOM says them, and how patients are told apart.

    Raises:
        DataError: A column that is not there, a pattern that fits no file.
    """
    cases, identities = _dicom_identities(cases, notes)
    column = _column(spec, table)
    stems: list[str] = []
    if column is not None:
        keys, blank = [case.extra.get(column, "") for case in cases], "an empty cell"
        words = f"column `{column}` of {table.path.name if table else ''}"
    elif any(identities):
        keys, blank = [*identities], "no PatientID"
        words = "DICOM PatientID"
        if spec.pattern is not None:
            by_name, _ = _by_pattern(spec.pattern, cases, need_one=False)
            keys = [key or name for key, name in zip(keys, by_name, strict=True)]
            if not all(identities):
                words += ", else the pattern on the file name"
    elif spec.pattern is not None:
        keys, stems = _by_pattern(spec.pattern, cases, need_one=True)
        blank = "a name that the pattern does not fit"
        words = f"pattern {spec.pattern} on the file name"
    else:
        notes.append(
            f"patients cannot be told apart: {ALONE}, so images of one patient may lie in two splits; "
            "set data.patient (column or pattern) if they can"
        )
        return [dataclasses.replace(case, patient=case.id) for case in cases], ALONE
    alone = [case for case, key in zip(cases, keys, strict=True) if not key]
    if alone:
        notes.append(
            f"{len(alone)} images have {blank} (first: {shown(alone[0].id)}); each counts as its own patient"
        )
    _tell_alike([key for key in keys if key], notes)
    looser = [stem_of(key) for key in keys]
    if stems:
        looser = [given or own for given, own in zip(stems, looser, strict=True)]
    named = [
        dataclasses.replace(case, patient=key or case.id, stem=stem or None)
        for case, key, stem in zip(cases, keys, looser, strict=True)
    ]
    return _without_default_frames(named, notes), words


def stem_of(key: str) -> str:
    """What a key begins with, up to its last digit; '' where that is the whole key.

    `person1_bacteria` and `person1_virus` may be one child; `IM-0115` and `IM-0117` are told apart by the digits.
    """
    match = re.fullmatch(r"(.*\d)\D+", key)
    return match.group(1) if match else ""


def _column(spec: PatientSpec, table: Table | None) -> str | None:
    if spec.column is not None:
        if table is None:
            todo = "remove data.patient.column, or name the table: data.labels"
            raise DataError(
                f"data.patient.column: {spec.column}", "no label table", "a table with that column", todo
            )
        return table.column(spec.column, "data.patient.column")
    # A pattern that the user wrote goes before a column that only looks like it.
    if table is None or (spec.pattern is not None and match_column(table.columns, COLUMNS[:1]) is None):
        return None
    return match_column(table.columns, COLUMNS)


@dataclasses.dataclass(frozen=True, slots=True)
class _Identity:
    """Whose a DICOM file is, from its header."""

    patient: str
    study: str
    links: tuple[str, ...]
    has_rows: bool


def _dicom_identities(cases: list[Case], notes: list[str]) -> tuple[list[Case], list[str]]:
    """PatientID of each DICOM file ('' where unknown); study, series and frame of reference are filled in too."""
    kept: list[Case] = []
    identities: list[str] = []
    without_pixels = 0
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(_identity_of, cases))
    for case, identity in zip(cases, found, strict=True):
        if identity is None:
            kept.append(case)
            identities.append("")
            continue
        if (
            not identity.has_rows and not case.extra
        ):  # a table that names it asks for it: the reader refuses it by name
            without_pixels += 1
            continue
        study = case.study or identity.study or None
        kept.append(dataclasses.replace(case, study=study, links=identity.links))
        identities.append(identity.patient)
    if without_pixels:
        notes.append(f"{without_pixels} DICOM files without pixels (reports, plans) were left aside")
    return kept, identities


def _identity_of(case: Case) -> _Identity | None:
    """From the first file of a case; None where it is no DICOM, or damaged: the reader names the fault."""
    path = first_file(case.images[0])
    suffix = image_suffix(path)
    if suffix in PICTURE_SUFFIXES | VOLUME_SUFFIXES or (suffix not in DICOM_SUFFIXES and not _is_dicom(path)):
        return None
    from ..formats.dicom_header import read_header

    try:
        header = read_header(path)
    except DataError:
        return None
    if isinstance(header, str):
        return None
    if not (header.patient or header.study or header.rows):
        return None
    links = tuple(
        f"{what} {uid}"
        for what, uid in (("series", header.series), ("frame", header.frame_of_reference))
        if uid
    )
    return _Identity(header.patient, header.study, links, header.rows > 0)


def first_file(path: Path) -> Path:
    """A file itself; of a series folder its first file."""
    if not path.is_dir():
        return path
    inside = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    return next((one for one in inside if image_suffix(one) in DICOM_SUFFIXES or _is_dicom(one)), path)


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _without_default_frames(cases: list[Case], notes: list[str]) -> list[Case]:
    """Leave out a frame of reference that most patients share: a default of the device, or of a de-identifier."""
    people: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for link in case.links:
            people[link].add(case.patient)
    most = max(_FEW, len({case.patient for case in cases}) / 2)
    defaults = {link for link, own in people.items() if link.startswith("frame ") and len(own) > most}
    if not defaults:
        return cases
    notes.append(
        f"{len(defaults)} frames of reference are shared by more than half of the patients: taken for a default, not "
        "for one patient"
    )
    return [
        dataclasses.replace(case, links=tuple(link for link in case.links if link not in defaults))
        for case in cases
    ]


def _by_pattern(pattern: str, cases: Sequence[Case], *, need_one: bool) -> tuple[list[str], list[str]]:
    r"""Keys: the first group, or the whole match; '' where the pattern does not fit. And looser keys.

    A further group inside the first is a looser key: `((person\d+)_(?:bacteria|virus))`.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            "data.patient.pattern", f"{pattern}: {error}", "a regular expression", "correct it"
        ) from None
    keys: list[str] = []
    stems: list[str] = []
    for case in cases:
        match = expression.search(case.images[0].name)
        key = "" if match is None else (match.group(1) if expression.groups else match.group(0)) or ""
        inner = match.groups()[1:] if match else ()
        keys.append(key)
        stems.append(next((part for part in inner if part and part in key and part != key), ""))
    if need_one and not any(keys):
        seen = f"{pattern} fits none of {len(cases)} file names (first: {shown(cases[0].images[0].name)})"
        todo = "other file names? --set data.patient.pattern=null if each is its own patient, else a pattern that fits"
        raise DataError("data.patient.pattern", seen, "a pattern whose first group is the patient", todo)
    return keys, stems


def _tell_alike(keys: Sequence[str], notes: list[str]) -> None:
    """Keys equal but for capitals and spaces are probably one patient."""
    by_key: dict[str, set[str]] = defaultdict(set)
    for key in set(keys):
        by_key["".join(key.split()).casefold()].add(key)
    alike = sum(len(names) > 1 for names in by_key.values())
    if alike:
        notes.append(
            f"{alike} patient ids differ from another one only by capitals or spaces; they count as different"
        )
