"""Groups held out so that every class keeps its share: one class a group, or several."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ...errors import DataError
from ..case import Case
from ..listing.misspelt import meant
from .folds import deal, place_of

_SPARE = 2  # groups of a class that a further part could still be taken from


def held_out(
    free: Sequence[Sequence[int]],
    classes: Sequence[str],
    cases: Sequence[Case],
    *,
    name: str,
    share: float,
    seed: int,
) -> list[Sequence[int]]:
    """Groups to hold out.

    A group counts for the rarest of its classes and each class is taken from by itself, so that a new patient moves
    next to none of the others. Where that leaves a class without groups of its own, since its patients hold rarer
    ones too, groups are dealt by all of their classes.

    Args:
        free: Groups of rows that may be taken.
        classes: Of each row.
        cases: Of each row.
        name: The split they are taken for.
        share: Of the rows of each class.
        seed: Decides the order of groups.

    Raises:
        DataError: A class with fewer than two groups, one to take and one to leave.
    """
    counts = Counter(classes)
    queue = sorted(free, key=lambda group: place_of(group, cases, seed, name))
    inside = [{classes[row] for row in group} for group in queue]
    by_class: dict[str, list[Sequence[int]]] = defaultdict(list)
    for group, own in zip(queue, inside, strict=True):
        by_class[min(own, key=lambda label: (counts[label], label))].append(group)
    for label in sorted(counts):
        holding = [group for group, own in zip(queue, inside, strict=True) if label in own]
        if len(holding) < 2:
            patients = len({cases[row].patient for group in holding for row in group})
            near = meant(label, counts)
            raise too_few(f"class {label}: {patients} patients left to take {name} from", name, near)
    if all(len(by_class[label]) > 1 for label in counts):
        return [group for label in sorted(counts) for group in _share_of(by_class[label], share)]
    parts = deal(queue, [frozenset({label}) for label in classes], (share, 1 - share), _numbers(queue))
    taken = [part == 0 for part in parts]
    for label in sorted(counts, key=lambda label: (counts[label], label)):
        _even_out(taken, inside, label)
    return [group for group, is_taken in zip(queue, taken, strict=True) if is_taken]


def too_few(seen: str, name: str, near: str | None = None) -> DataError:
    """The refusal of data with too few patients for a split; `near` is the class that may have been meant."""
    todo = f"add patients, or give the split yourself (a column `split`, or --split FILE) with {name} cases"
    todo = f"did you mean `{near}`? else {todo}" if near else todo
    return DataError("data.split", seen, "two patients of each class or more for each split made", todo)


def _share_of(own: Sequence[Sequence[int]], share: float) -> list[Sequence[int]]:
    """The first groups of a class up to its share; one at least, and not the last."""
    held: list[Sequence[int]] = []
    wanted, taken = share * sum(len(group) for group in own), 0
    for group in own[:-1]:
        if taken and taken + len(group) / 2 > wanted:
            continue
        held.append(group)
        taken += len(group)
        if taken >= wanted:
            break
    return held


def _numbers(queue: Sequence[Sequence[int]]) -> list[str]:
    """Places of a queue that is in order already."""
    return [f"{number:09}" for number in range(len(queue))]


def _even_out(taken: list[bool], inside: Sequence[set[str]], label: str) -> None:
    """Move a group where one side has none of a class: that which leaves most of its classes behind."""
    sides = {taken[number] for number, own in enumerate(inside) if label in own}
    if len(sides) > 1:
        return
    (side,) = sides
    left = Counter(
        one for own, is_taken in zip(inside, taken, strict=True) if is_taken == side for one in own
    )
    candidates = [number for number, own in enumerate(inside) if label in own]
    best = max(
        candidates, key=lambda number: (min(min(left[one] - 1, _SPARE) for one in inside[number]), -number)
    )
    taken[best] = not side
