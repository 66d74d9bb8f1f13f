"""Which rows belong together: cases of one patient, files of one scan, pictures stored twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...bundle.schema import SplitSpec
from ..case import Case


class DuplicateGroups(Protocol):
    """What `leaks` found; groups of rows."""

    @property
    def exact(self) -> tuple[tuple[int, ...], ...]:
        """Groups of equal pictures."""

    @property
    def near(self) -> tuple[tuple[int, ...], ...]:
        """Groups of nearly equal pictures."""


def patient_of(case: Case) -> tuple[str, ...]:
    """Its patient."""
    return (case.patient,) if case.patient else ()


def study_of(case: Case) -> tuple[str, ...]:
    """Its study, where it is known."""
    return (case.study,) if case.study else ()


def links_of(case: Case) -> tuple[str, ...]:
    """Series and frame of reference, where they are known."""
    return case.links


KeysOf = Callable[[Case], tuple[str, ...]]


def rows_by(cases: Sequence[Case], keys_of: KeysOf) -> dict[str, list[int]]:
    """Rows of each key."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        for key in keys_of(case):
            found[key].append(row)
    return found


def groups_of(
    cases: Sequence[Case],
    duplicates: DuplicateGroups,
    spec: SplitSpec,
    copies: Iterable[Sequence[int]] = (),
) -> list[tuple[int, ...]]:
    """Rows that must stay together, each row in one group.

    Args:
        cases: In the order of the arrays.
        duplicates: Groups of rows with equal or nearly equal pictures.
        spec: Whether patients are held apart, or images only.
        copies: Further groups, such as an image and its augmented copies.
    """
    joined: list[Sequence[int]] = [*duplicates.exact, *duplicates.near, *copies]
    if spec.by == "patient":
        for keys_of in (patient_of, study_of, links_of):
            joined += list(rows_by(cases, keys_of).values())
    return joined_groups(len(cases), joined)


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
