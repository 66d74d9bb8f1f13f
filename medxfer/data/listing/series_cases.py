"""A tree of DICOM files as things to be classified: a series folder that is a volume, or a picture by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from ..formats.kinds import DICOM_SUFFIXES, image_suffix, suffix_kind
from ..image import shown
from ..policy import ReadPolicy
from ..series_units import copies_apart, home_of, may_be_volume

if TYPE_CHECKING:
    from ..series import Series, Survey

# Columns of a label table that name a scan or a person instead of a file, the narrowest first.
KEYS: Mapping[str, tuple[str, ...]] = {
    "series": ("SeriesInstanceUID", "series_uid", "series"),
    "study": ("StudyInstanceUID", "study_uid", "study", "study_id"),
    "patient": ("PatientID", "patient_id", "patient"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One thing to read: a file, or the folder of a series."""

    path: Path
    series: str = ""
    study: str = ""
    patient: str = ""

    def key(self, kind: str) -> str:
        """Its series, study or patient."""
        return {"series": self.series, "study": self.study, "patient": self.patient}[kind]


def may_hold_series(files: Sequence[Path]) -> bool:
    """Whether there are files that may be DICOM, by their names; others need no look at headers."""
    return any(image_suffix(path) in DICOM_SUFFIXES or suffix_kind(path) is None for path in files)


def units_of(root: Path, files: Sequence[Path], policy: ReadPolicy, notes: list[str]) -> list[Unit]:
    """Every file or series folder that is one case, sorted by path.

    Args:
        root: The data folder.
        files: Image files below it; what is no DICOM is a unit by itself.
        policy: Its rules choose among several series of a folder.
        notes: Sentences are added here.

    Raises:
        DataError: Several volumes lie in one folder, and no rule chooses one; all are listed.
    """
    from ..series import find_series

    survey = find_series(root)
    apart = tuple(part for one in survey.series for part in copies_apart(one, notes))
    survey = dataclasses.replace(survey, series=apart)
    homes = sorted({home_of(one) for one in survey.series if may_be_volume(one)})
    taken: set[Path] = set()
    units: list[Unit] = []
    for home in homes:
        own = [one for one in survey.series if any(home in file.parents for file in one.files)]
        chosen = _chosen(survey, home, own, policy)
        if chosen is not None and not may_be_volume(chosen):
            continue
        taken.update(file for one in own for file in one.files)
        others = sum(len(one.files) for one in own) - (0 if chosen is None else len(chosen.files))
        if others:
            place = shown(home.relative_to(root))
            notes.append(f"{place}: {others} files of other series left aside by the rules")
        if chosen is None:
            continue
        units.append(Unit(path=home, series=chosen.uid, study=chosen.study, patient=chosen.patient))
    # A localizer beside a volume is no case of its own; the reader says that it was set aside.
    taken.update(file for file, why in survey.aside if why == "localizer" and _is_below(file, homes))
    series_of = {file: one for one in survey.series for file in one.files}
    for file in files:
        if file in taken:
            continue
        one = series_of.get(file)
        units.append(
            Unit(path=file)
            if one is None
            else Unit(path=file, series=one.uid, study=one.study, patient=one.patient)
        )
    return sorted(units, key=lambda unit: unit.path.as_posix())


def _chosen(survey: Survey, home: Path, own: Sequence[Series], policy: ReadPolicy) -> Series | None:
    """The series of a folder that is read there; None where rules are given and none fits.

    Raises:
        DataError: Several, and no rule that chooses one.
    """
    from ..series import choose_series

    def choose(series: Sequence[Series]) -> Series:
        inside = dataclasses.replace(survey, folder=home, series=tuple(series), aside=(), damaged=())
        return choose_series(inside, policy)

    def fits(one: Series) -> bool:
        try:
            return bool(choose([one]))
        except DataError:
            return False

    return None if policy.series and not any(map(fits, own)) else choose(own)


def _is_below(file: Path, homes: Sequence[Path]) -> bool:
    return any(home in file.parents for home in homes)


def units_by_key(units: Sequence[Unit], kind: str) -> dict[str, list[Unit]]:
    """Units of each series, study or patient."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        if key := unit.key(kind):
            found.setdefault(key, []).append(unit)
    return found


def require_found(found: Mapping[str, list[Unit]], root: Path, column: str) -> None:
    """Refuse a tree in which nothing has the key that the table uses.

    Raises:
        DataError: So.
    """
    if not found:
        seen = f"a table by `{column}`, and no DICOM file below that says its {column}"
        raise DataError(shown(root), seen, "DICOM files", "add a column with file names")
