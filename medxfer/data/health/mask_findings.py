"""What is wrong or suspicious in masks, against their images, among themselves and against what a task knows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import DataError
from ..masks import MaskRule
from .findings_of_data import Finding, about, some_of
from .looks import Look, Mask

_ENOUGH = 10  # masks, before a value of few of them is one that hardly any other has
_RARE = 0.02  # share of the masks
_CLASSES = 32  # different values that may still be classes


def of_masks(looks: Sequence[Look], rule: MaskRule | None = None) -> Iterator[Finding]:
    """Masks on another grid than their image, values that are none or unknown, empty masks, odd values.

    Args:
        looks: Of cases, with and without masks.
        rule: What values mean to the task of a run, if it is known.
    """
    masks = {look.case.id: look.mask for look in looks if look.mask is not None}
    masked = [look for look in looks if look.case.id in masks]
    yield from _of_places(masked, masks, len(looks))
    yield from _of_empty(masked, masks)
    if rule is None:
        yield from _of_values(masked, masks)
    else:
        yield from _unknown(masked, masks, rule)


def _of_places(masked: Sequence[Look], masks: dict[str, Mask], count: int) -> Iterator[Finding]:
    by_problem: dict[str, list[Look]] = defaultdict(list)
    for look in masked:
        if problem := masks[look.case.id].problem:
            by_problem[re.sub(r"[\d.]+", "#", problem)].append(look)
    for group in by_problem.values():
        first = group[0].case.id
        yield Finding(
            level="refused",
            where=some_of(len(group), count),
            problem=f"{masks[first].problem} (first: {first})",
            todo="export mask and image from one series, on one grid, with whole numbers as classes",
            cases=tuple(look.case.id for look in group),
            is_seen=True,
        )


def _of_empty(masked: Sequence[Look], masks: dict[str, Mask]) -> Iterator[Finding]:
    are_all = all(mask.foreground == 0 for mask in masks.values())
    yield from about(
        masked,
        lambda look: masks[look.case.id].foreground == 0,
        "have an empty mask",
        "nothing can be learnt from these masks: correct them"
        if are_all
        else "right if nothing is to be found there; else correct the mask",
        "refused" if are_all else "suspect",
    )


def _unknown(masked: Sequence[Look], masks: dict[str, Mask], rule: MaskRule) -> Iterator[Finding]:
    """Values that the task would refuse, each refusal once."""
    faults: dict[str, tuple[DataError, list[str]]] = {}
    for look in masked:
        values = np.array(masks[look.case.id].values)
        try:
            rule.numbers(values, look.case.id)
        except DataError as error:
            seen = re.sub(r" in \d+ voxels", "", error.seen)  # values are looked at, each once
            faults.setdefault(seen, (error, []))[1].append(look.case.id)
    for seen, (fault, ids) in faults.items():
        yield Finding(
            level="refused",
            where=some_of(len(ids), len(masked)),
            problem=f"have a mask that the task does not know: {seen}; accepted: {fault.accepted}",
            todo=fault.todo,
            cases=tuple(ids),
            is_seen=True,
        )


def _of_values(masked: Sequence[Look], masks: dict[str, Mask]) -> Iterator[Finding]:
    """Values that differ from what other masks hold."""
    counts = Counter(value for mask in masks.values() for value in mask.values)
    rare = {value for value, number in counts.items() if number <= max(1, _RARE * len(masked))}
    if rare and len(counts) <= _CLASSES and len(masked) >= _ENOUGH:
        told = ", ".join(f"{value:g}" for value in sorted(rare)[:5])
        yield from about(
            masked,
            lambda look: bool(rare & set(masks[look.case.id].values)),
            f"have mask values that hardly any other has: {told}",
            "correct the masks, or name the class",
        )
    if len(counts) > _CLASSES:
        yield Finding(
            level="note",
            where="masks",
            problem=f"{len(counts)} different values: numbered objects, or grey edges",
            todo="for one class take mask > 0 (task.values: nonzero)",
        )
