"""Train, val and test: patients and duplicates apart, given splits kept, leaks refused."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from ..bundle.schema import SplitSpec
from ..errors import DataError
from .cases import Case

Name = Literal["train", "val", "test"]
NAMES: tuple[Name, ...] = ("train", "val", "test")


class DuplicateGroups(Protocol):
    """What `leaks` found; groups of rows."""

    @property
    def exact(self) -> tuple[tuple[int, ...], ...]:
        """Groups of equal pictures."""

    @property
    def near(self) -> tuple[tuple[int, ...], ...]:
        """Groups of nearly equal pictures."""


class HasHashes(Protocol):
    """The arrays' hashes, for the manifest."""

    @property
    def sha256(self) -> tuple[str, ...]:
        """Of each row's file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Rows of the arrays by split."""

    rows_of: Mapping[str, tuple[int, ...]]
    cases: tuple[Case, ...]
    classes: tuple[str, ...]  # of each case
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.rows_of[name]

    def rows(self, arrays: HasHashes) -> list[dict[str, str]]:
        """The manifest: `case, patient, split, class, file, sha256`."""
        return [
            {
                "case": self.cases[row].id,
                "patient": self.cases[row].patient,
                "split": name,
                "class": self.classes[row],
                "file": str(self.cases[row].images[0]),
                "sha256": arrays.sha256[row],
            }
            for name in NAMES
            for row in self.rows_of[name]
        ]


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
    train; groups (a patient's cases and their duplicates) stay together, classes keep their proportion.

    Args:
        cases: In the order of the arrays.
        duplicates: Groups of rows with equal or nearly equal pictures.
        spec: Shares, and whether patients or images are held apart.
        seed: Decides which groups are held out.
        accept_leak: The reason why leaks between given splits are accepted; None: they are refused.
        label_of: The class that proportions are kept of.

    Raises:
        DataError: A leak between given splits, one class only, or fewer patients than splits need.
    """
    classes = tuple(label_of(case) for case in cases)
    if len(set(classes)) < 2:
        seen = f"one class only: {classes[0]} ({len(classes)} cases)" if classes else "no cases"
        raise DataError("data", seen, "two classes or more", "add cases of the other class, or correct the labels")
    notes = _leaks(cases, duplicates, accept_leak)
    groups = _groups(cases, duplicates, spec)
    names: list[Name | None] = [case.split for case in cases]
    random = np.random.default_rng(seed)
    if "test" not in names:
        _hold_out(names, groups, classes, cases, "test", spec.test, random)
    else:
        names = [name or "train" for name in names]
    if "val" not in names:
        _hold_out(names, groups, classes, cases, "val", spec.val, random)
    final = [name or "train" for name in names]
    _require_classes(final, classes, cases)
    rows_of = {name: tuple(row for row, given in enumerate(final) if given == name) for name in NAMES}
    return Splits(rows_of=rows_of, cases=tuple(cases), classes=classes, notes=tuple(notes))


def _leaks(cases: Sequence[Case], duplicates: DuplicateGroups, accept_leak: str | None) -> list[str]:
    """Refuse patients and pictures on two sides of a given split; returns notes on what was accepted or seen."""
    sides: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.split is not None:
            sides[case.patient].add(case.split)
    shared = sorted(patient for patient, splits in sides.items() if len(splits) > 1)
    found: list[str] = []
    if shared:
        splits = sorted({split for patient in shared for split in sides[patient]}, key=NAMES.index)
        found.append(f"{len(shared)} patients in {' and '.join(splits)}: {_first(shared)}")
    for kind, groups in (("equal", duplicates.exact), ("nearly equal", duplicates.near)):
        crossing = [group for group in groups if len({cases[row].split for row in group} - {None}) > 1]
        if crossing:
            shown = _first([" = ".join(cases[row].id for row in group) for group in crossing])
            found.append(f"{len(crossing)} groups of {kind} pictures in two splits: {shown}")
    notes = [
        f"{len(groups)} groups of {kind} pictures ({sum(map(len, groups))} files), kept on one side of every split made"
        for kind, groups in (("equal", duplicates.exact), ("nearly equal", duplicates.near))
        if groups
    ]
    both = [g for g in (*duplicates.exact, *duplicates.near) if len({str(cases[row].label) for row in g}) > 1]
    if both:
        shown = _first([" = ".join(cases[row].id for row in group) for group in both])
        notes.append(f"{len(both)} groups of equal or nearly equal pictures have two labels: {shown}")
    if found and accept_leak is None:
        todo = "correct the split, list files in data.exclude, or state the reason: --set data.accept_leak='...'"
        raise DataError("data: the given split leaks", "; ".join(found), "a patient or picture in one split only", todo)
    return [*(f"leak accepted ({accept_leak}): {one}" for one in found), *notes]


def _first(names: Sequence[str], count: int = 5) -> str:
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def _groups(cases: Sequence[Case], duplicates: DuplicateGroups, spec: SplitSpec) -> list[list[int]]:
    """Rows that must stay together."""
    parent = list(range(len(cases)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    joined: list[Sequence[int]] = [*duplicates.exact, *duplicates.near]
    if spec.by == "patient":
        by_patient: dict[str, list[int]] = defaultdict(list)
        for row, case in enumerate(cases):
            by_patient[case.patient].append(row)
        joined += list(by_patient.values())
    for group in joined:
        for other in group[1:]:
            parent[root(other)] = root(group[0])
    found: dict[int, list[int]] = defaultdict(list)
    for row in range(len(cases)):
        found[root(row)].append(row)
    return list(found.values())


def _hold_out(
    names: list[Name | None],
    groups: Sequence[Sequence[int]],
    classes: Sequence[str],
    cases: Sequence[Case],
    name: Name,
    share: float,
    random: np.random.Generator,
) -> None:
    """Move whole groups to `name`, class by class, until each class has its share there.

    A group counts for its most frequent class; one with a case in another given split stays where it is.
    """
    free = [group for group in groups if all(names[row] in (None, "train") for row in group)]
    by_class: dict[str, list[Sequence[int]]] = defaultdict(list)
    for group in free:
        by_class[Counter(classes[row] for row in group).most_common(1)[0][0]].append(group)
    for label in sorted(set(classes)):
        own = by_class.get(label, [])
        total = sum(len(group) for group in own)
        wanted = share * total
        if len(own) < 2:
            patients = len({cases[row].patient for group in own for row in group})
            seen = f"class {label}: {patients} patients left to take {name} from"
            todo = f"add patients, or give the split yourself (a column `split`, or --split FILE) without {name} cases"
            raise DataError("data.split", seen, "two patients of each class or more for each split made", todo)
        taken = 0
        for index in random.permutation(len(own))[: len(own) - 1]:
            group = own[int(index)]
            if taken and taken + len(group) / 2 > wanted:
                continue
            for row in group:
                names[row] = name
            taken += len(group)
            if taken >= wanted:
                break


def _require_classes(names: Sequence[str], classes: Sequence[str], cases: Sequence[Case]) -> None:
    for name in NAMES:
        inside = {label for label, given in zip(classes, names, strict=True) if given == name}
        missing = sorted(set(classes) - inside)
        if missing:
            patients = len({case.patient for case, given in zip(cases, names, strict=True) if given == name})
            seen = f"{name} has no case of {', '.join(missing)} ({patients} patients in it)"
            todo = "add patients of that class, or change data.split"
            raise DataError("data.split", seen, "cases of every class in train, val and test", todo)


def read_split_file(path: Path, cases: Sequence[Case], sha256: Sequence[str]) -> list[Case]:
    """Give cases the split of a manifest, such as a run's split.csv.

    Args:
        path: CSV with the columns `case` and `split`, and perhaps `sha256`.
        cases: In the order of the arrays.
        sha256: Of each case's file.

    Raises:
        DataError: The file is unreadable, names cases that are not there or leaves some out, or an image changed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(path), f"not readable: {error}", "a CSV file", "name a run's split.csv") from error
    if not rows or not {"case", "split"} <= rows[0].keys():
        seen = f"columns {', '.join(rows[0])}" if rows else "no rows"
        raise DataError(str(path), seen, "columns case and split", "name a run's split.csv")
    by_case: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        if row["split"] not in NAMES:
            raise DataError(f"{path}, row {number}", f"split {row['split']!r}", ", ".join(NAMES), "correct it")
        before = by_case.setdefault(row["case"], row)
        if before["split"] != row["split"]:
            seen = f"{row['case']} in {before['split']} and in {row['split']}"
            raise DataError(f"{path}, row {number}", seen, "a case in one split only", "remove one of the rows")
    absent = sorted(set(by_case) - {case.id for case in cases})
    extra = sorted({case.id for case in cases} - set(by_case))
    if absent or extra:
        which = f"{len(absent)} not in the data: {_first(absent)}" if absent else f"{len(extra)} left out: {_first(extra)}"
        raise DataError(str(path), which, "exactly the cases of the data", "use the data that the split was made of")
    changed = [
        case.id
        for case, digest in zip(cases, sha256, strict=True)
        if by_case[case.id].get("sha256") not in (None, "", digest)
    ]
    if changed:
        seen = f"{len(changed)} image files changed since: {_first(changed)}"
        raise DataError(str(path), seen, "the files as they were", "bring them back, or begin a new run")
    return [dataclasses.replace(case, split=cast("Name", by_case[case.id]["split"])) for case in cases]
