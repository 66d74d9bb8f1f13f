"""Train, val and test: patients and duplicates apart, given splits kept, leaks refused."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..bundle.schema import SplitSpec
from ..errors import DataError
from .cases import Case
from .image import shown

Name = Literal["train", "val", "test"]
NAMES: tuple[Name, ...] = ("train", "val", "test")
_ORDER: tuple[str, ...] = NAMES


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
                "file": shown(self.cases[row].images[0]),
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
        raise DataError(
            "data", seen, "two classes or more", "add cases of the other class, or correct the labels"
        )
    notes = _leaks(cases, duplicates, spec, accept_leak)
    groups = _groups(cases, duplicates, spec)
    names: list[Name | None] = [case.split for case in cases]
    _follow_given(names, groups)
    if "test" not in names:
        _hold_out(names, groups, classes, cases, "test", spec.test, seed)
    else:
        names = [name or "train" for name in names]
    if "val" not in names:
        _hold_out(names, groups, classes, cases, "val", spec.val, seed)
    final = [name or "train" for name in names]
    _require_classes(final, classes, cases)
    rows_of: dict[str, tuple[int, ...]] = {
        name: tuple(row for row, given in enumerate(final) if given == name) for name in NAMES
    }
    return Splits(rows_of=rows_of, cases=tuple(cases), classes=classes, notes=tuple(notes))


def _follow_given(names: list[Name | None], groups: Sequence[Sequence[int]]) -> None:
    """A case without a split goes where the data put another case of its patient, or its duplicate."""
    for group in groups:
        given: list[Name] = [name for row in group if (name := names[row]) is not None]
        if given:
            for row in group:
                names[row] = names[row] or max(given, key=_ORDER.index)


def _leaks(
    cases: Sequence[Case], duplicates: DuplicateGroups, spec: SplitSpec, accept_leak: str | None
) -> list[str]:
    """Refuse patients and pictures on two sides of a given split; returns notes on what was accepted or seen.

    Patients are shown by one of their cases on each side: their ids may be PatientIDs, which no message repeats.
    """
    found: list[str] = []
    together = (("patients", _patient), ("studies", _study)) if spec.by == "patient" else ()
    for what, key_of in together:
        sides: dict[str, dict[str, str]] = defaultdict(dict)
        for case in cases:
            if case.split is not None and (key := key_of(case)):
                sides[key].setdefault(case.split, case.id)
        shared = [given for given in sides.values() if len(given) > 1]
        if shared and not (what == "studies" and found):  # a patient's studies are told with the patient
            names = sorted({name for given in shared for name in given}, key=_ORDER.index)
            which = _first([" and ".join(given.values()) for given in shared])
            found.append(f"{len(shared)} {what} in {' and '.join(names)}: {which}")
    kinds = (("equal", duplicates.exact), ("nearly equal", duplicates.near))
    for kind, groups in kinds:
        crossing = [group for group in groups if len({cases[row].split for row in group} - {None}) > 1]
        if crossing:
            which = _first([" = ".join(cases[row].id for row in group) for group in crossing])
            found.append(f"{len(crossing)} groups of {kind} pictures in two splits: {which}")
    notes = [
        f"{len(groups)} groups of {kind} pictures ({sum(map(len, groups))} files), kept on one side of every split made"
        for kind, groups in kinds
        if groups
    ]
    for kind, groups in kinds:
        both = [group for group in groups if len({str(cases[row].label) for row in group}) > 1]
        if both:
            which = _first([" = ".join(cases[row].id for row in group) for group in both])
            found_or_noted = found if kind == "equal" else notes
            found_or_noted.append(f"{len(both)} groups of {kind} pictures have two labels: {which}")
    if found and accept_leak is None:
        accepted = "a patient or picture in one split only and under one label"
        todo = "correct the data, list files in data.exclude, or state a reason: --set data.accept_leak='...'"
        raise DataError("data: the same patient or picture twice", "; ".join(found), accepted, todo)
    return [*(f"leak accepted ({accept_leak}): {one}" for one in found), *notes]


def _patient(case: Case) -> str | None:
    return case.patient


def _study(case: Case) -> str | None:
    return case.study


def _first(names: Sequence[str], count: int = 5) -> str:
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def _groups(cases: Sequence[Case], duplicates: DuplicateGroups, spec: SplitSpec) -> list[list[int]]:
    """Rows that must stay together."""
    joined: list[Sequence[int]] = [*duplicates.exact, *duplicates.near]
    if spec.by == "patient":
        for key_of in (_patient, _study):
            by_key: dict[str, list[int]] = defaultdict(list)
            for row, case in enumerate(cases):
                if key := key_of(case):
                    by_key[key].append(row)
            joined += list(by_key.values())
    return [list(group) for group in joined_groups(len(cases), joined)]


def joined_groups(count: int, groups: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    """Groups that share a member become one; rows in no group stay alone."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    graph = coo_matrix((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    _, number_of = connected_components(graph, directed=False)
    found: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(number_of):
        found[int(number)].append(row)
    return [tuple(members) for members in found.values()]


def _hold_out(
    names: list[Name | None],
    groups: Sequence[Sequence[int]],
    classes: Sequence[str],
    cases: Sequence[Case],
    name: Name,
    share: float,
    seed: int,
) -> None:
    """Move whole groups to `name`, class by class, until each class has its share there.

    A group counts for its rarest class; one with a case in another given split stays where it is. Groups come in
    the order of a hash of their patient, so that the order of files changes nothing and a new patient moves next
    to none of the others.
    """
    counts = Counter(classes)
    by_class: dict[str, list[Sequence[int]]] = defaultdict(list)
    for group in groups:
        if all(names[row] in (None, "train") for row in group):
            by_class[min({classes[row] for row in group}, key=lambda label: (counts[label], label))].append(
                group
            )
    for label in sorted(counts):
        own = sorted(by_class.get(label, []), key=lambda group: _place(group, cases, seed, name))
        if len(own) < 2:
            patients = len({cases[row].patient for group in own for row in group})
            seen = f"class {label}: {patients} patients left to take {name} from"
            todo = f"add patients, or give the split yourself (a column `split`, or --split FILE) with {name} cases"
            raise DataError(
                "data.split", seen, "two patients of each class or more for each split made", todo
            )
        wanted, taken = share * sum(len(group) for group in own), 0
        for group in own[:-1]:
            if taken and taken + len(group) / 2 > wanted:
                continue
            for row in group:
                names[row] = name
            taken += len(group)
            if taken >= wanted:
                break


def _place(group: Sequence[int], cases: Sequence[Case], seed: int, name: Name) -> str:
    """Where a group stands in the queue for a split."""
    key = min((cases[row].patient, cases[row].id) for row in group)
    return hashlib.sha256(json.dumps([seed, name, *key]).encode()).hexdigest()


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
        raise DataError(
            str(path), f"not readable: {error}", "a CSV file", "name a run's split.csv"
        ) from error
    if not rows or not {"case", "split"} <= rows[0].keys():
        seen = f"columns {', '.join(rows[0])}" if rows else "no rows"
        raise DataError(str(path), seen, "columns case and split", "name a run's split.csv")
    by_case: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        if row["split"] not in NAMES:
            raise DataError(
                f"{path}, row {number}", f"split {row['split']!r}", ", ".join(NAMES), "correct it"
            )
        before = by_case.setdefault(row["case"], row)
        if before["split"] != row["split"]:
            seen = f"{row['case']} in {before['split']} and in {row['split']}"
            raise DataError(
                f"{path}, row {number}", seen, "a case in one split only", "remove one of the rows"
            )
    absent = sorted(set(by_case) - {case.id for case in cases})
    extra = sorted({case.id for case in cases} - set(by_case))
    if absent or extra:
        which = (
            f"{len(absent)} not in the data: {_first(absent)}"
            if absent
            else f"{len(extra)} left out: {_first(extra)}"
        )
        raise DataError(
            str(path), which, "exactly the cases of the data", "use the data that the split was made of"
        )
    changed = [
        case.id
        for case, digest in zip(cases, sha256, strict=True)
        if by_case[case.id].get("sha256") not in (None, "", digest)
    ]
    if changed:
        seen = f"{len(changed)} image files changed since: {_first(changed)}"
        raise DataError(str(path), seen, "the files as they were", "bring them back, or begin a new run")
    return [dataclasses.replace(case, split=cast("Name", by_case[case.id]["split"])) for case in cases]
