"""Who is who: a column, DICOM PatientID, a pattern on the file name, or each file for itself, which is said."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence

from ..bundle.schema import PatientSpec
from ..errors import ConfigError, DataError
from .case import Case
from .formats import DICOM_SUFFIXES, PICTURE_SUFFIXES
from .image import shown
from .tables import Table, match_column

ALONE = "each image counts as its own patient"


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
        The cases, and how patients are told apart, in words.

    Raises:
        DataError: A column that is not there, a pattern that fits no file.
    """
    cases, identities = _dicom_identities(cases, notes)
    column = _column(spec, table)
    if column is not None:
        keys, blank = [case.extra.get(column, "") for case in cases], "an empty cell"
        words = f"column `{column}` of {table.path.name if table else ''}"
    elif any(identities):
        keys, blank = [*identities], "no PatientID"
        words = "DICOM PatientID"
        if spec.pattern is not None:
            by_name = _by_pattern(spec.pattern, cases, need_one=False)
            keys = [key or name for key, name in zip(keys, by_name, strict=True)]
            if not all(identities):
                words += ", else the pattern on the file name"
    elif spec.pattern is not None:
        keys, blank = _by_pattern(spec.pattern, cases, need_one=True), "a name that the pattern does not fit"
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
    named = [dataclasses.replace(case, patient=key or case.id) for case, key in zip(cases, keys, strict=True)]
    return named, words


def _column(spec: PatientSpec, table: Table | None) -> str | None:
    if spec.column is not None:
        if table is None:
            todo = "remove data.patient.column, or name the table: data.labels"
            raise DataError(
                f"data.patient.column: {spec.column}", "no label table", "a table with that column", todo
            )
        return table.column(spec.column)
    if table is None:
        return None
    return match_column(table.columns, ("patient",))


def _dicom_identities(cases: list[Case], notes: list[str]) -> tuple[list[Case], list[str]]:
    """PatientID of each DICOM file ('' where unknown); the study is filled in too."""
    kept: list[Case] = []
    identities: list[str] = []
    without_pixels = 0
    for case in cases:
        suffix = case.images[0].suffix.lower()
        identity = None
        if suffix in DICOM_SUFFIXES or (suffix not in PICTURE_SUFFIXES and _is_dicom(case)):
            from .dicom import read_identity

            identity = read_identity(case.images[0])
        if identity is None:
            kept.append(case)
            identities.append("")
            continue
        patient, study, has_pixels = identity
        if (
            not has_pixels and not case.extra
        ):  # a table that names it asks for it: the reader refuses it by name
            without_pixels += 1
            continue
        kept.append(dataclasses.replace(case, study=case.study or study or None))
        identities.append(patient)
    if without_pixels:
        notes.append(f"{without_pixels} DICOM files without pixels (reports, plans) were left aside")
    return kept, identities


def _is_dicom(case: Case) -> bool:
    try:
        with case.images[0].open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _by_pattern(pattern: str, cases: Sequence[Case], *, need_one: bool) -> list[str]:
    """The first group, or the whole match; '' where the pattern does not fit."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            "data.patient.pattern", f"{pattern}: {error}", "a regular expression", "correct it"
        ) from None
    keys: list[str] = []
    for case in cases:
        match = expression.search(case.images[0].name)
        keys.append("" if match is None else (match.group(1) if expression.groups else match.group(0)) or "")
    if need_one and not any(keys):
        seen = f"{pattern} fits none of {len(cases)} file names (first: {shown(cases[0].images[0].name)})"
        todo = "other file names? --set data.patient.pattern=null if each is its own patient, else a pattern that fits"
        raise DataError("data.patient.pattern", seen, "a pattern whose first group is the patient", todo)
    return keys


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
