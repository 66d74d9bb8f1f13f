"""The leak gate: what of one patient or picture lies on two sides of a split or under two labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...bundle.schema import SplitSpec
from ...errors import DataError
from ..case import NAMES, Case
from .copies import RULE, Copies, find_copies
from .grouping import DuplicateGroups, KeysOf, links_of, patient_of, rows_by, study_of

_ORDER: tuple[str, ...] = NAMES
_LETTERS = 300  # of names in one sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate saw."""

    found: tuple[str, ...]  # leaks: refused unless a reason is given
    notes: tuple[str, ...]  # what the user should know
    copies: Copies

    def require(self, accept_leak: str | None) -> tuple[str, ...]:
        """Notes, accepted leaks among them with their reason.

        Raises:
            DataError: A leak, and no reason why it is accepted.
        """
        if self.found and accept_leak is None:
            accepted = "a patient or picture in one split only and under one label"
            todo = "correct the data, list files in data.exclude, or state a reason: --set data.accept_leak='...'"
            seen, *others = self.found
            if others:
                told = ", ".join(text.partition(": ")[0] for text in others)
                seen += f"; also {told} (`medxfer doctor data` names them)"
            raise DataError("data: the same patient or picture twice", seen, accepted, todo)
        return (*(f"leak accepted ({accept_leak}): {one}" for one in self.found), *self.notes)


def leaks_in(cases: Sequence[Case], duplicates: DuplicateGroups, spec: SplitSpec) -> Verdict:
    """Look for leaks between given splits, and for one picture under two labels.

    Patients are shown by one of their cases on each side: their ids may be PatientIDs, which no message repeats.

    Args:
        cases: With the splits that came with the data; without any, only labels and names are looked at.
        duplicates: Groups of rows with equal or nearly equal pictures.
        spec: With `by: image` shared patients and scans are no leak.
    """
    found: list[str] = []
    notes: list[str] = []
    if spec.by == "patient":
        found += _shared_ids(cases, notes)
    kinds = (("equal", duplicates.exact), ("nearly equal", duplicates.near))
    for kind, groups in kinds:
        crossing = [group for group in groups if _crosses(cases, group)]
        if crossing:
            found.append(
                f"{len(crossing)} groups of {kind} pictures in two splits: {_shown(cases, crossing)}"
            )
        if groups:
            files = sum(map(len, groups))
            notes.append(
                f"{len(groups)} groups of {kind} pictures ({files} files), kept on one side of every split made"
            )
        both = [group for group in groups if _have_two_labels(cases, group)]
        # Neighbouring slices of one scan may look alike and differ in their label.
        refused = [
            group for group in both if kind == "equal" or len({cases[row].patient for row in group}) > 1
        ]
        if refused:
            found.append(
                f"{len(refused)} groups of {kind} pictures have two labels: {_shown(cases, refused)}"
            )
        if len(both) > len(refused):
            count = len(both) - len(refused)
            notes.append(f"{count} groups of {kind} pictures of one patient have two labels")
    copies = find_copies(cases)
    found += _copies(cases, copies, notes)
    return Verdict(found=tuple(found), notes=tuple(notes), copies=copies)


def _shared_ids(cases: Sequence[Case], notes: list[str]) -> list[str]:
    """Patients, and the scans of "different" patients, on two sides."""
    found: list[str] = []
    kinds: tuple[tuple[str, KeysOf], ...] = (
        ("patients", patient_of),
        ("studies", study_of),
        ("series or frames of reference", links_of),
    )
    for what, keys_of in kinds:
        groups = [rows for rows in rows_by(cases, keys_of).values() if len(rows) > 1]
        crossing = [group for group in groups if _crosses(cases, group)]
        if crossing and not (what != "patients" and found):  # a patient's scans are told with the patient
            sides = sorted(
                {cases[row].split or "" for group in crossing for row in group} - {""}, key=_ORDER.index
            )
            firsts = [[_first_in(cases, group, name) for name in sides] for group in crossing]
            which = listed([" and ".join(one for one in names if one) for names in firsts])
            found.append(f"{len(crossing)} {what} in {' and '.join(sides)}: {which}")
        several = [group for group in groups if len({cases[row].patient for row in group}) > 1]
        if several:
            notes.append(
                f"{len(several)} {what} are shared by patients that are told apart; those stay on one side of every "
                f"split made: {_shown(cases, [_one_a_patient(cases, group) for group in several])}"
            )
    return found


def _copies(cases: Sequence[Case], copies: Copies, notes: list[str]) -> list[str]:
    found = []
    crossing = [group for group in copies.groups if _crosses(cases, group)]
    if crossing:
        found.append(
            f"{len(crossing)} images with copies in another split ({RULE}): {_shown(cases, crossing)}"
        )
    elif copies.groups:
        notes.append(
            f"{len(copies.groups)} images have copies by their names, kept on one side of every split made"
        )
    if copies.orphans:
        sides = Counter(cases[row].split for row in copies.orphans)
        where = ", ".join(f"{sides[name]} in {name}" for name in _ORDER if sides[name])  # type: ignore[index]  # their names are splits
        first = listed([cases[row].id for row in copies.orphans], 3)
        found.append(
            f"{len(copies.orphans)} augmented copies{f' ({where})' if where else ''} whose originals the names do "
            f"not tell, so that these may lie in another split ({RULE}): {first}"
        )
    return found


def shared_stems(names: Sequence[str | None], cases: Sequence[Case]) -> list[str]:
    """What patients would be shared under a looser key than the one in use; a sentence, or none.

    Args:
        names: Split of each case; None takes no part.
        cases: A looser key is their `stem`, where they have one, else the patient.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        if names[row] is not None:
            rows_of[case.stem or case.patient].append(row)
    shared = [
        rows
        for rows in rows_of.values()
        if len({names[row] for row in rows}) > 1 and len({cases[row].patient for row in rows}) > 1
    ]
    if not shared:
        return []
    counts = Counter(names[row] for rows in shared for row in rows)
    sides = [name for name in NAMES if counts[name]]
    images = ", ".join(f"{counts[name]} {name} images" for name in sides)
    pair = [next((cases[row].id for row in shared[0] if names[row] == name), "") for name in sides]
    return [
        f"patients are told apart by their whole key; by its begin alone, up to its last digit, {len(shared)} are in "
        f"{' and '.join(sides)} ({images}), such as {' and '.join(one for one in pair if one)}: if these are one "
        "person each, the scores are too good"
    ]


def _crosses(cases: Sequence[Case], group: Sequence[int]) -> bool:
    return len({cases[row].split for row in group} - {None}) > 1


def _first_in(cases: Sequence[Case], group: Sequence[int], name: str) -> str:
    return next((cases[row].id for row in group if cases[row].split == name), "")


def _one_a_patient(cases: Sequence[Case], group: Sequence[int]) -> list[int]:
    return list({cases[row].patient: row for row in reversed(group)}.values())[::-1]


def _have_two_labels(cases: Sequence[Case], group: Sequence[int]) -> bool:
    """Two classes; or a finding that is known to be there and known not to be. Masks are not compared."""
    labels = [cases[row].label for row in group if not isinstance(cases[row].label, Path)]
    plain = {str(label) for label in labels if not isinstance(label, Mapping)}
    known: dict[str, set[bool]] = defaultdict(set)
    for label in labels:
        for name, value in label.items() if isinstance(label, Mapping) else ():
            if value is not None:
                known[name].add(value)
    return len(plain) > 1 or any(len(values) > 1 for values in known.values())


def _shown(cases: Sequence[Case], groups: Sequence[Sequence[int]]) -> str:
    """The first groups, two members of each."""
    pairs = [" = ".join(cases[row].id for row in group[:2]) for group in groups]
    more = [f" and {len(group) - 2} more like it" if len(group) > 2 else "" for group in groups]
    return listed([pair + rest for pair, rest in zip(pairs, more, strict=True)])


def listed(names: Sequence[str], count: int = 5) -> str:
    """The first names, fewer where they are long, and how many more there are."""
    told = names[:1]
    while len(told) < min(count, len(names)) and sum(map(len, names[: len(told) + 1])) <= _LETTERS:
        told = names[: len(told) + 1]
    rest = f" and {len(names) - len(told)} more" if len(names) > len(told) else ""
    return ", ".join(told) + rest
