"""Cases worth a picture with the outlines of their masks: the best, those in the middle and the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import CasePicture, Outline
from .segmentation import Case, Labels, Measures, mean_dice
from .segmentation_figures import amount_text

POOR = 0.5  # Dice under which a class is said to be wrong, as in the list of failures

Pixels = NDArray[np.floating]


def pictures_of_cases(
    cases: Sequence[Case],
    images: Callable[[int], NDArray[Any]],
    masks: Callable[[int], tuple[Labels, Labels | None]],
    *,
    classes: Sequence[str],
    spacing_of: Callable[[int], Sequence[float] | None],
    count: int,
) -> Iterator[CasePicture]:
    """Pictures of cases by mean foreground Dice; no image is asked for before its turn, as volumes are large.

    Args:
        cases: Measures by class, of each case; those without any class, in truth and prediction, are not shown.
        images: Row to (C, rows, columns) or (C, X, Y, Z) in RAS, in [0, 1].
        masks: Row to predicted and true mask on the grid of its image: class numbers, or boolean stacks (K, ...) where
            classes overlap.
        classes: Foreground names, K of them.
        spacing_of: Row to mm along each axis of its image; None: unknown.
        count: The worst cases; of the best and of those in the middle half as many.

    Yields:
        The best, the first first; those about the median; the worst, the worst first. No case twice.
    """
    for group, rows in _chosen(cases, count).items():
        for row in rows:
            predicted, true = masks(row)
            spacing = spacing_of(row)
            facts, wrong = _facts(cases[row])
            yield CasePicture(
                group=group,
                index=row,
                image=np.asarray(images(row), dtype=np.float32),
                facts=facts,
                wrong=wrong,
                outlines=(*_outlines(true, classes, "true"), *_outlines(predicted, classes, "predicted")),
                spacing=None if spacing is None else tuple(float(step) for step in spacing),
            )


def _chosen(cases: Sequence[Case], count: int) -> dict[str, list[int]]:
    """Rows by group; where cases are few, each is in one: half of them worst, a quarter best; one is neither."""
    values = [mean_dice([case]) for case in cases]
    order = sorted((row for row in range(len(cases)) if not math.isnan(values[row])), key=values.__getitem__)
    half = -(-count // 2)
    worst = order[: min(count, len(order) // 2)]
    left = order[len(worst) :]
    best = left[::-1][: min(half, -(-len(left) // 2))] if worst else []
    left = left[: len(left) - len(best)]
    middle = order[len(order) // 2] if order else 0
    nearest = sorted(left, key=lambda row: abs(values[row] - values[middle]))[:half]
    groups = {"best": best, "median": sorted(nearest, key=values.__getitem__, reverse=True), "worst": worst}
    return {name: rows for name, rows in groups.items() if rows}


def _facts(case: Case) -> tuple[dict[str, str], tuple[str, ...]]:
    """What stands under a case, and which of it is wrong."""
    facts = {"mean Dice": f"{mean_dice([case]):.3f}"} if len(case) > 1 else {}
    facts |= {name: _told(one) for name, one in case.items()}
    return facts, tuple(name for name, one in case.items() if one.fault or one.dice < POOR)


def _told(one: Measures) -> str:
    unit = one.size_unit.replace("cm2", "cm²")
    if one.size == 0 and one.true_size == 0:
        return "none, and none called"
    if one.fault:
        return f"{one.fault} ({amount_text(max(one.size, one.true_size))} {unit})"
    return (
        f"Dice {one.dice:.3f}, HD95 {one.hd95:.1f} {one.length_unit}, {amount_text(one.size)} {unit}"
        f" for {amount_text(one.true_size)} {unit} true"
    )


def _outlines(mask: Labels | None, classes: Sequence[str], kind: Any) -> Iterator[Outline]:
    if mask is None:
        return
    is_stack = mask.dtype == bool
    for number, name in enumerate(classes):
        region = mask[number] if is_stack else mask == number + 1
        yield Outline(name=name, kind=kind, mask=np.asarray(region, dtype=bool))
