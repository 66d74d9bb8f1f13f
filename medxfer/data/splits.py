"""Train, val and test: patients and duplicates apart, given splits kept, folds, leaks refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..bundle.schema import SplitSpec
from ..errors import DataError
from .case import NAMES, Case
from .case import SplitName as Name
from .image import shown
from .splitting.folds import deal, labels_of, place_of
from .splitting.gate import leaks_in, shared_stems
from .splitting.grouping import DuplicateGroups, groups_of, joined_groups
from .splitting.holding import held_out, too_few
from .splitting.split_file import read_split_file

__all__ = [
    "NAMES",
    "DuplicateGroups",
    "Splits",
    "folds_of",
    "joined_groups",
    "read_split_file",
    "split_by_patient",
]

_ORDER: tuple[str, ...] = NAMES


class HasHashes(Protocol):
    """The arrays' hashes, for the manifest."""

    @property
    def sha256(self) -> tuple[str, ...]:
        """Of each row's files."""

    @property
    def image_sha256(self) -> tuple[str, ...]:
        """Of each row's images, without a mask."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Rows of the arrays by split."""

    rows_of: Mapping[str, tuple[int, ...]]
    cases: tuple[Case, ...]
    classes: tuple[str, ...]  # of each case
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.rows_of[name]

    def rows(self, arrays: HasHashes, name_of: Callable[[str, str], str]) -> list[dict[str, str]]:
        """The manifest: `case, shown, patient, split, class, file, sha256, image_sha256`.

        Args:
            arrays: Hashes of the rows' content.
            name_of: What stands for a case ("c", its id) or a patient ("p", its key) where people read it.
        """
        return [
            {
                "case": self.cases[row].id,
                "shown": name_of("c", self.cases[row].id),
                "patient": name_of("p", self.cases[row].patient),
                "split": name,
                "class": self.classes[row],
                "file": shown(self.cases[row].images[0]),
                "sha256": arrays.sha256[row],
                "image_sha256": arrays.image_sha256[row],
            }
            for name in NAMES
            for row in self.rows_of[name]
        ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Cohort:
    """What a split is made of."""

    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def labels(self) -> list[frozenset[str]]:
        """Of each case: its class, or its findings."""
        return [labels_of(case, name) for case, name in zip(self.cases, self.classes, strict=True)]

    @property
    def has_findings(self) -> bool:
        """Whether a case may have several labels at once."""
        return any(isinstance(case.label, Mapping) for case in self.cases)


def split_by_patient(
    cases: Sequence[Case],
    duplicates: DuplicateGroups,
    spec: SplitSpec,
    *,
    seed: int,
    accept_leak: str | None,
    label_of: Callable[[Case], str],
) -> Splits:
    """Give every case a split.

    A split that the data bring is kept. Missing parts are made: test from everything without a split, val from
    train; groups (a patient's cases, their duplicates, augmented copies) stay together, classes and findings keep
    their proportion. With `spec.folds` the fold `spec.fold` of `folds_of`.

    Args:
        cases: In the order of the arrays.
        duplicates: Groups of rows with equal or nearly equal pictures.
        spec: Shares or folds, and whether patients or images are held apart.
        seed: Decides which groups are held out.
        accept_leak: The reason why leaks between given splits are accepted; None: they are refused.
        label_of: The class that proportions are kept of, where cases have no findings.

    Raises:
        DataError: A leak between given splits, one class only, or fewer patients than splits need.
    """
    cohort = _cohort(cases, duplicates, spec, seed, accept_leak, label_of)
    if spec.folds is not None:
        return _fold(cohort, spec, spec.folds, spec.fold, _dealt(cohort, spec.folds))
    names: list[Name | None] = [case.split for case in cohort.cases]
    _follow_given(names, cohort.groups)
    if "test" not in names:
        _hold_out(names, cohort, "test", spec.test, seed)
    else:
        names = [name or "train" for name in names]
    if "val" not in names:
        _hold_out(names, cohort, "val", spec.val, seed)
    return _splits(names, cohort)


def folds_of(
    cases: Sequence[Case],
    duplicates: DuplicateGroups,
    spec: SplitSpec,
    *,
    seed: int,
    accept_leak: str | None,
    label_of: Callable[[Case], str],
) -> list[Splits]:
    """Cross-validation by patient: every case is tested once.

    Without a given test each fold is the test of one `Splits`, and val is cut from its training part (nested), so
    that nothing is chosen on cases that are tested. A given test is kept in all; then each fold is the val of one.

    Args:
        cases: As for `split_by_patient`.
        duplicates: As there.
        spec: `folds` says how many; `val` is the share of the training part.
        seed: Decides which groups are in which fold.
        accept_leak: As there.
        label_of: As there.

    Raises:
        DataError: As `split_by_patient`; a class with fewer patients than folds.
    """
    if spec.folds is None:
        raise DataError("data.split.folds", "not given", "2 or more", "set data.split.folds")
    cohort = _cohort(cases, duplicates, spec, seed, accept_leak, label_of)
    parts = _dealt(cohort, spec.folds)
    return [_fold(cohort, spec, spec.folds, number, parts) for number in range(spec.folds)]


def _cohort(
    cases: Sequence[Case],
    duplicates: DuplicateGroups,
    spec: SplitSpec,
    seed: int,
    accept_leak: str | None,
    label_of: Callable[[Case], str],
) -> _Cohort:
    """Cases with their classes and groups, past the leak gate."""
    classes = tuple(label_of(case) for case in cases)
    are_masks = bool(cases) and all(
        isinstance(case.label, Path) for case in cases
    )  # classes are inside of each
    if len(set(classes)) < 2 and not are_masks:
        seen = f"one class only: {classes[0]} ({len(classes)} cases)" if classes else "no cases"
        raise DataError(
            "data", seen, "two classes or more", "add cases of the other class, or correct the labels"
        )
    verdict = leaks_in(cases, duplicates, spec)
    notes = verdict.require(accept_leak)
    groups = groups_of(cases, duplicates, spec, verdict.copies.groups)
    return _Cohort(cases=tuple(cases), classes=classes, groups=tuple(groups), notes=notes, seed=seed)


def _splits(names: Sequence[Name | None], cohort: _Cohort, notes: Sequence[str] = ()) -> Splits:
    """The finished split; refused where a class is missing in a part, said where a finding is."""
    final: list[Name] = [name or "train" for name in names]
    lacking = _lacking(final, cohort)
    # What the data bring first: there nobody chose the sides by the whole key.
    looser = shared_stems([case.split for case in cohort.cases], cohort.cases) or shared_stems(
        final, cohort.cases
    )
    return Splits(
        rows_of={name: tuple(row for row, given in enumerate(final) if given == name) for name in NAMES},
        cases=cohort.cases,
        classes=cohort.classes,
        notes=(*notes, *cohort.notes, *lacking, *looser),
    )


def _follow_given(names: list[Name | None], groups: Sequence[Sequence[int]]) -> None:
    """A case without a split goes where the data put another case of its patient, or its duplicate."""
    for group in groups:
        given: list[Name] = [name for row in group if (name := names[row]) is not None]
        if given:
            for row in group:
                names[row] = names[row] or max(given, key=_ORDER.index)


def _hold_out(names: list[Name | None], cohort: _Cohort, name: Name, share: float, seed: int) -> None:
    """Move whole groups to `name` until each class has its share there.

    A group with a case in another given split stays where it is. Groups come in the order of a hash of their patient,
    so that the order of files changes nothing and, where each class has patients of its own, a new patient moves next
    to none of the others.
    """
    free = [group for group in cohort.groups if all(names[row] in (None, "train") for row in group)]
    taken: Sequence[Sequence[int]]
    if cohort.has_findings:
        places = [place_of(group, cohort.cases, seed, name) for group in free]
        parts = deal(free, cohort.labels, (share, 1 - share), places)
        taken = [group for group, part in zip(free, parts, strict=True) if part == 0]
        if not taken or len(taken) == len(free):
            raise too_few(f"{len(free)} patients left to take {name} from", name)
    else:
        taken = held_out(free, cohort.classes, cohort.cases, name=name, share=share, seed=seed)
    for group in taken:
        for row in group:
            names[row] = name


def _dealt(cohort: _Cohort, folds: int) -> list[int]:
    """The fold of each row that is not in a given test; -1 of those."""
    names: list[Name | None] = [case.split for case in cohort.cases]
    _follow_given(names, cohort.groups)
    free = [group for group in cohort.groups if all(names[row] != "test" for row in group)]
    if not cohort.has_findings:
        for label in sorted(set(cohort.classes)):
            own = sum(any(cohort.classes[row] == label for row in group) for group in free)
            if own < folds:
                seen = f"class {label}: {own} patients for {folds} folds"
                todo = f"set data.split.folds to {own} or less" if own > 1 else "add patients"
                raise DataError("data.split.folds", seen, "a patient of each class for each fold", todo)
    elif len(free) < folds:
        seen = f"{len(free)} patients for {folds} folds"
        raise DataError("data.split.folds", seen, "a patient for each fold", "lower data.split.folds")
    places = [place_of(group, cohort.cases, cohort.seed, "folds") for group in free]
    parts = deal(free, cohort.labels, (1 / folds,) * folds, places)
    fold_of = [-1] * len(cohort.cases)
    for group, part in zip(free, parts, strict=True):
        for row in group:
            fold_of[row] = part
    return fold_of


def _fold(cohort: _Cohort, spec: SplitSpec, folds: int, number: int, fold_of: Sequence[int]) -> Splits:
    """One fold as test, val cut from the rest; or as val where the data bring a test."""
    has_test = min(fold_of) < 0
    own: Name = "val" if has_test else "test"
    names: list[Name | None] = [
        "test" if part < 0 else own if part == number else "train" for part in fold_of
    ]
    notes = [f"fold {number} (of 0 to {folds - 1}) is {own}"]
    if any(case.split == "val" for case in cohort.cases):
        notes.append("the given val is part of the folds")
    if not has_test:
        # Another seed a fold: else the same patients would be val in nearly all of them.
        _hold_out(names, cohort, "val", spec.val, cohort.seed + number)
    return _splits(names, cohort, notes)


def _lacking(names: Sequence[str], cohort: _Cohort) -> list[str]:
    """Sentences on findings that a part lacks.

    Raises:
        DataError: A part without cases, or without cases of a class.
    """
    labels = cohort.labels
    notes: list[str] = []
    for name in NAMES:
        inside = {label for own, given in zip(labels, names, strict=True) if given == name for label in own}
        missing = sorted(set().union(*labels) - inside - {""})
        if not missing:
            continue
        if cohort.has_findings and inside:
            notes.append(f"{name} has no case of {', '.join(missing)}: what needs one there is not defined")
            continue
        people = {case.patient for case, given in zip(cohort.cases, names, strict=True) if given == name}
        seen = f"{name} has no case of {', '.join(missing)} ({len(people)} patients in it)"
        todo = "add patients of that class, or change data.split"
        raise DataError("data.split", seen, "cases of every class in train, val and test", todo)
    return notes
