"""Groups dealt into parts so that every label keeps its share (Sechidis et al. 2011, iterative stratification)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from ..case import Case

NOTHING = ""  # stands for a case without any finding


def labels_of(case: Case, name: str) -> frozenset[str]:
    """What proportions are kept of: the findings that are there, or the class."""
    if isinstance(case.label, Mapping):
        return frozenset(finding for finding, value in case.label.items() if value) or frozenset({NOTHING})
    return frozenset({name})


def deal(
    groups: Sequence[Sequence[int]],
    labels: Sequence[frozenset[str]],
    shares: Sequence[float],
    places: Sequence[str],
) -> list[int]:
    """Deal groups into parts.

    The label with the fewest cases left goes first: each of its groups goes to the part that still lacks most of that
    label, then to the part that lacks most cases (Sechidis et al. 2011, algorithm 1, with groups instead of cases).

    Args:
        groups: Rows that stay together.
        labels: Of each row.
        shares: Of each part; they add up to 1.
        places: Of each group, its place in the queue; decides between equals.

    Returns:
        The part of each group.
    """
    counts = [Counter(label for row in group for label in labels[row]) for group in groups]
    left = sum(counts, Counter[str]())
    lacking = [{label: share * number for label, number in left.items()} for share in shares]
    sizes = [share * sum(len(group) for group in groups) for share in shares]
    parts = [-1] * len(groups)
    waiting = sorted(range(len(groups)), key=lambda number: places[number])
    while waiting:
        rare = min((label for label in left if left[label] > 0), key=lambda label: (left[label], label))
        # Large groups first: a small one can still even out what they did.
        own = sorted((number for number in waiting if counts[number][rare]), key=lambda n: -counts[n][rare])
        for number in own:
            part = max(
                range(len(shares)), key=lambda one: (round(lacking[one][rare], 9), round(sizes[one], 9), -one)
            )
            parts[number] = part
            sizes[part] -= len(groups[number])
            for label, count in counts[number].items():
                lacking[part][label] -= count
                left[label] -= count
        waiting = [number for number in waiting if parts[number] < 0]
    return parts


def place_of(group: Sequence[int], cases: Sequence[Case], seed: int, name: str) -> str:
    """Where a group stands in the queue for a part: a hash, so that the order of files changes nothing."""
    key = min((cases[row].patient, cases[row].id) for row in group)
    return hashlib.sha256(json.dumps([seed, name, *key]).encode()).hexdigest()
