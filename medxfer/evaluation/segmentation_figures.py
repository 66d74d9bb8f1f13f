"""The figures of segmentation as data: spread of scores, agreement of volumes, and the cases that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .figures import FigureData
from .segmentation import Case, Measures, mean_dice

_SPREAD = {  # scores shown as box plots: title, axis, whether they are shares
    "dice": ("Dice by class", "Dice", True),
    "surface_dice": ("Surface Dice by class", "Surface Dice", True),
    "hd95": ("Distance by class", "95 % Hausdorff distance, {unit}", False),
}
_LISTED = 20  # rows of the failure list
_LIMITS = 1.96  # standard deviations: 95 % of the differences, if they are normal
_ENOUGH = 10  # cases; limits of fewer may lie almost anywhere


def amount_text(value: float, *, sign: bool = False) -> str:
    """A volume, an area or a count in three digits, or whole where it is large: `1.40`, `7,251`."""
    is_whole = float(value).is_integer()  # a count of pixels
    digits = 0 if is_whole else max(0, 2 - math.floor(math.log10(abs(value))))
    return format(value, f"{'+' if sign else ''},.{digits}f")


def figures_of_cases(
    cases: Sequence[Case], ids: Sequence[str], *, split: str = "test", failed_below: float = 0.5
) -> list[FigureData]:
    """The figures of one split.

    Args:
        cases: Measures by class, of each case.
        ids: Name of each case.
        split: Its name, for the titles.
        failed_below: Dice under which a class of a case is listed as failed.

    Returns:
        Box plots by class, Bland-Altman plots of the volume of each class, the list of failures; those that the cases
        allow.
    """
    if not cases:
        return []
    boxes = [figure for name in _SPREAD if (figure := _boxes(cases, ids, name, split))]
    classes = dict.fromkeys(name for case in cases for name in case)
    agreements = [figure for name in classes if (figure := agreement_figure(cases, ids, name, split))]
    return [*boxes, *agreements, failure_figure(cases, ids, split=split, failed_below=failed_below)]


def _boxes(cases: Sequence[Case], ids: Sequence[str], name: str, split: str) -> FigureData | None:
    """One score of every class; a class of which no case defines it is left out."""
    title, axis, is_share = _SPREAD[name]
    groups, left_out = [], 0
    for one in dict.fromkeys(one for case in cases for one in case):
        pairs = [(str(ids[row]), case[one]) for row, case in enumerate(cases) if one in case]
        kept = [(case, found) for case, found in pairs if not math.isnan(getattr(found, name))]
        if not is_share:  # the diagonal that a missed structure counts would flatten all the others
            left_out += sum(bool(found.fault) for _, found in kept)
            kept = [(case, found) for case, found in kept if not found.fault]
        if kept:
            values = [float(getattr(found, name)) for _, found in kept]
            groups.append({"name": one, "values": values, "ids": [case for case, _ in kept]})
    if not groups:
        return None
    unit = next(measure.length_unit for case in cases for measure in case.values())
    towards = "Towards the top is better." if is_share else "Towards the bottom is better."
    missing = f" {left_out} masks that are empty on one side only are not shown either." if left_out else ""
    return FigureData(
        kind="boxes",
        title=f"{title}, {split}",
        data={"y": axis.format(unit=unit), "groups": groups, "share": is_share},
        caption="A dot is a case. Box: the middle half of the cases, with the median; whiskers: the farthest case"
        " within 1.5 times the box. Cases without the class, in truth and prediction, are not shown."
        f"{missing} {towards}",
    )


def agreement_figure(cases: Sequence[Case], ids: Sequence[str], name: str, split: str) -> FigureData | None:
    """Difference of predicted and true size over their mean (Bland and Altman 1986); None of fewer than 3 cases.

    Without limits of agreement where cases are few: their standard error is 1.7 standard deviations over the root of
    the number of cases.
    """
    found = [(ids[row], case[name]) for row, case in enumerate(cases) if name in case]
    there = [(case, one) for case, one in found if one.size > 0 or one.true_size > 0]
    if len(there) < 3:
        return None
    unit = {"cm2": "cm²"}.get(there[0][1].size_unit, there[0][1].size_unit)
    kind = "Volume" if unit in ("ml", "voxels") else "Area"
    differences = np.array([one.size_error for _, one in there])
    bias, spread = float(differences.mean()), _LIMITS * float(differences.std(ddof=1))
    is_few = len(there) < _ENOUGH
    limits = (
        f"No limits of agreement: those of fewer than {_ENOUGH} cases tell little."
        if is_few
        else f"Broken lines: {amount_text(bias - spread)} to {amount_text(bias + spread)} {unit}, between which 95 % of"
        " the differences lie if they are normal."
    )
    return FigureData(
        kind="agreement",
        title=f"{kind} of {name}, {split}",
        data={
            "x": f"Mean of predicted and true {kind.lower()}, {unit}",
            "y": f"Predicted minus true, {unit}",
            "means": [(one.size + one.true_size) / 2 for _, one in there],
            "differences": differences,
            "ids": [str(case) for case, _ in there],
            "bias": bias,
            "low": None if is_few else bias - spread,
            "high": None if is_few else bias + spread,
        },
        caption=f"A dot is a case ({len(there)} with {name} in truth or prediction). Full line: mean difference"
        f" {amount_text(bias, sign=True)} {unit}. {limits} Above zero the prediction is too large.",
    )


def failure_figure(
    cases: Sequence[Case], ids: Sequence[str], *, split: str, failed_below: float = 0.5
) -> FigureData:
    """Classes of cases that were missed, called where there is none, or hardly overlap; the worst first."""
    found: list[tuple[float, float, str, str, Measures]] = []
    for row, case in enumerate(cases):
        for name, one in case.items():
            if one.fault or one.dice < failed_below:
                found.append((one.dice, -max(one.size, one.true_size), str(ids[row]), name, one))
    found.sort(key=lambda entry: entry[:4])
    rows = [_failure_row(case, name, one) for _, _, case, name, one in found[:_LISTED]]
    unit = next((one.size_unit for case in cases for one in case.values()), "ml")
    length = next((one.length_unit for case in cases for one in case.values()), "mm")
    more = f" The first {_LISTED} are shown." if len(found) > _LISTED else ""
    total = sum(len(case) for case in cases)
    said = f"{len(found)} of {total} masks (classes of cases) failed: Dice under {failed_below:g}, or nothing called"
    return FigureData(
        kind="table",
        title=f"Failures, {split}",
        data={
            "columns": [
                "Case",
                "Class",
                "Dice",
                f"HD95, {length}",
                f"Predicted, {unit}",
                f"True, {unit}",
                "Fault",
            ],
            "rows": rows,
        },
        caption=f"{said} or true at all.{more} Mean foreground Dice of the split: {mean_dice(cases):.3f}.",
    )


def _failure_row(case: str, name: str, one: Measures) -> list[str]:
    return [
        case,
        name,
        f"{one.dice:.2f}",
        f"{one.hd95:.1f}",
        amount_text(one.size),
        amount_text(one.true_size),
        one.fault or "little overlap",
    ]
