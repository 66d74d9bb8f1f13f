"""What is wrong or suspicious in masks, against their images, among themselves and against what a task knows.

Voxels that are much longer than wide are told here too: a run says it of images with masks alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import DataError
from ..advice import unequal_steps
from ..masks import MaskRule
from .findings_of_data import Finding, about, some_of
from .looks import SPECK, Look, Mask

_ENOUGH = 10  # masks, before a value of few of them is one that hardly any other has
_RARE = 0.02  # share of the masks
_PARTS = 3  # train, val and test: a class of fewer patients is absent from one of them
_CLASSES = 32  # different values that may still be classes


def of_masks(
    looks: Sequence[Look], rule: MaskRule | None = None, *, has_planes: bool = False
) -> Iterator[Finding]:
    """Masks on another grid than their image, values that are none or unknown, empty masks, odd values, specks.

    Args:
        looks: Of cases, with and without masks.
        rule: What values mean to the task of a run, if it is known.
        has_planes: Whether the run takes volumes apart into planes, which have no neighbours.
    """
    masks = {look.case.id: look.mask for look in looks if look.mask is not None}
    masked = [look for look in looks if look.case.id in masks]
    yield from _of_places(masked, masks, len(looks))
    yield from _of_empty(masked, masks)
    if rule is None:
        yield from _of_values(masked, masks)
    else:
        yield from _unknown(masked, masks, rule)
        yield from _of_classes(masked, masks, rule)
    yield from _of_specks(masked, masks)
    if not has_planes:
        yield from _of_steps(masked)


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


def _of_classes(masked: Sequence[Look], masks: dict[str, Mask], rule: MaskRule) -> Iterator[Finding]:
    """Classes of the task that too few patients have for each of train, val and test to see them."""
    numbers = rule.values if rule.values is not None else {one: one for one in range(1, rule.classes + 1)}
    if rule.nonzero:
        return  # one class: the others are empty masks
    for number in range(1, rule.classes + 1):
        own = {value for value, known in numbers.items() if known == number}
        there = [look for look in masked if own & set(masks[look.case.id].values)]
        patients = len({look.case.patient for look in there})
        if patients < _PARTS < len(masked):
            told = ", ".join(f"{value}" for value in sorted(own))
            yield Finding(
                level="suspect",
                where=some_of(len(there), len(masked)),
                problem=f"have class {number} of the task (value {told}), of {patients} patients: too few for train, "
                "val and test",
                todo="leave the class out of task.classes, or add masks that hold it",
                cases=tuple(look.case.id for look in there),
            )


def _of_specks(masked: Sequence[Look], masks: dict[str, Mask]) -> Iterator[Finding]:
    number = sum(mask.specks for mask in masks.values())
    yield from about(
        masked,
        lambda look: masks[look.case.id].specks > 0,
        f"have specks in their mask: {number} pieces of 1 to {SPECK} voxels beside a much larger one of the same class",
        "right if findings are that small; else slips of a brush or threshold: remove them",
        "note",
    )


def _of_steps(masked: Sequence[Look]) -> Iterator[Finding]:
    volumes = [look for look in masked if len(look.steps) == 3]
    if volumes and (told := unequal_steps(np.array([look.steps for look in volumes]))):
        problem, todo = told
        yield Finding(level="note", where=some_of(len(volumes), len(masked)), problem=problem, todo=todo)
