"""Scores of segmentation: each class of each case measured, then means with intervals by patient.

Empty masks: where truth and prediction are both empty, overlap and distance of that class are not defined (NaN) and
not counted, its volume error is 0. Where only one is, Dice, IoU and surface Dice are 0, and the distance is the
diagonal of the image (as in BraTS), so that a missed structure is never better than a bad one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import Floats, interval, patient_weights
from .lesions import LesionCounts, LesionRule, count_lesions
from .scores import FEW_PATIENTS, Score
from .surface import Mask, box_of, hausdorff_95, surface_dice

Labels = NDArray[np.integer] | Mask
Case = Mapping[str, "Measures"]  # by class

_SIZE_UNITS = {3: ("ml", 1000.0), 2: ("cm2", 100.0)}  # by axes: unit, cubic or square mm in it
_KINDS = {"ml": "volume", "cm2": "area", "voxels": "volume", "pixels": "area"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """One class of one case."""

    dice: float  # NaN where both masks are empty, as iou, hd95 and surface_dice
    iou: float
    hd95: float  # in `length_unit`; the image's diagonal where one mask is empty
    surface_dice: float
    size: float  # as predicted, in `size_unit`
    true_size: float
    length_unit: str = "mm"  # or voxels, pixels, where the spacing is unknown
    size_unit: str = "ml"  # cm2 of pictures; voxels, pixels
    lesions: LesionCounts | None = None

    @property
    def size_error(self) -> float:
        """Predicted minus true size."""
        return self.size - self.true_size

    @property
    def fault(self) -> str:
        """What went wrong altogether: `missed`, `called where there is none`, or nothing."""
        if self.size == 0 and self.true_size > 0:
            return "missed"
        return "called where there is none" if self.size > 0 and self.true_size == 0 else ""

    def values(self) -> dict[str, float]:
        """Every figure by the name of its score; units are part of the name."""
        kind = _KINDS[self.size_unit]
        values = {
            "dice": self.dice,
            "iou": self.iou,
            f"hd95_{self.length_unit}": self.hd95,
            "surface_dice": self.surface_dice,
            f"{kind}_error_{self.size_unit}": abs(self.size_error),
        }
        if self.lesions is not None:
            counts = self.lesions
            values |= {
                "lesion_f1": counts.f1,
                "lesion_precision": counts.precision,
                "lesion_recall": counts.recall,
            }
        return values

    def to_row(self) -> dict[str, object]:
        """Columns of a CSV file: the figures, both sizes, the count of lesions; empty where not defined."""
        row: dict[str, object] = {
            name: "" if math.isnan(value) else round(value, 5) for name, value in self.values().items()
        }
        kind = _KINDS[self.size_unit]
        row |= {
            f"{kind}_{self.size_unit}": round(self.size, 5),
            f"true_{kind}_{self.size_unit}": round(self.true_size, 5),
        }
        if self.lesions is not None:
            row |= {"lesions_called": self.lesions.called, "lesions_true": self.lesions.true}
        return row


def measure_case(
    predicted: Labels,
    true: Labels,
    *,
    classes: Sequence[str],
    spacing: Sequence[float] | None,
    tolerance: float | Mapping[str, float],
    ignore: int | Mask | None = None,
    lesions: LesionRule | None = None,
) -> dict[str, Measures]:
    """Compare two masks of one case, class by class.

    Args:
        predicted: Class numbers (X, Y, Z) or (rows, columns), 0 for background; or, where classes may overlap, a
            boolean stack (K, ...).
        true: As `predicted`.
        classes: Foreground names, K of them: the first is number 1, or the first of the stack.
        spacing: mm along each axis; None: unknown, lengths and sizes are then counted in voxels or pixels.
        tolerance: Of the surface Dice, in mm (voxels, pixels), for all classes or by class.
        ignore: Voxels that count on neither side: where `true` has this number, or a boolean array.
        lesions: How single lesions are matched; None: they are not counted.

    Returns:
        Measures by class name.

    Raises:
        ValueError: Other shapes, or not one mask a class.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"prediction of shape {predicted.shape}, truth {true.shape}")
    is_stack = predicted.dtype == bool
    if is_stack and len(predicted) != len(classes):
        raise ValueError(f"{len(predicted)} masks for {len(classes)} classes")
    if is_stack and isinstance(ignore, int | np.integer):
        raise ValueError("overlapping classes have no number to ignore: give a boolean array")
    left_out = true == ignore if isinstance(ignore, int | np.integer) else ignore
    measured = {}
    for number, name in enumerate(classes):
        one, other = (
            (predicted[number], true[number]) if is_stack else (predicted == number + 1, true == number + 1)
        )
        if left_out is not None:
            one, other = one & ~left_out, other & ~left_out
        reach = tolerance[name] if isinstance(tolerance, Mapping) else tolerance
        measured[name] = measure(one, other, spacing=spacing, tolerance=reach, lesions=lesions)
    return measured


def measure(
    predicted: Mask,
    true: Mask,
    *,
    spacing: Sequence[float] | None,
    tolerance: float,
    lesions: LesionRule | None = None,
) -> Measures:
    """Compare two binary masks.

    Args:
        predicted: (X, Y, Z) or (rows, columns).
        true: As `predicted`.
        spacing: As `measure_case`.
        tolerance: As `measure_case`.
        lesions: As `measure_case`.
    """
    dims = predicted.ndim
    cells = "voxels" if dims == 3 else "pixels"
    steps = tuple(float(one) for one in (spacing or (1.0,) * dims))
    unit, per_unit = _SIZE_UNITS[dims] if spacing else (cells, 1.0)
    voxel = math.prod(steps) / per_unit
    box = box_of(predicted, true)
    diagonal = math.hypot(*(step * length for step, length in zip(steps, predicted.shape, strict=True)))
    if box is not None:  # nothing outside of it changes any figure, and it is far smaller
        predicted, true = np.ascontiguousarray(predicted[box]), np.ascontiguousarray(true[box])
    called, present = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    common = int(np.count_nonzero(predicted & true))
    if called and present:
        distance = hausdorff_95(predicted, true, steps)
        near = surface_dice(predicted, true, steps, tolerance)
    else:
        distance, near = (diagonal, 0.0) if called or present else (math.nan, math.nan)
    return Measures(
        dice=2 * common / (called + present) if called or present else math.nan,
        iou=common / (called + present - common) if called or present else math.nan,
        hd95=distance,
        surface_dice=near,
        size=called * voxel,
        true_size=present * voxel,
        length_unit="mm" if spacing else cells,
        size_unit=unit,
        lesions=count_lesions(predicted, true, lesions, voxel=voxel) if lesions else None,
    )


def scores_of_cases(
    cases: Sequence[Case], patients: Sequence[str], *, seed: int = 0, samples: int = 1000
) -> dict[str, Score]:
    """Means over the cases of a split, with 95 % intervals by bootstrap over patients.

    Each class is averaged over the cases that define it, then the classes are averaged, each alike.

    Args:
        cases: Measures by class, of each case.
        patients: Patient of each case.
        seed: Of the resamples.
        samples: Resamples.

    Returns:
        Scores by name: `dice`, `iou`, `surface_dice`, `hd95_mm`, `volume_error_ml` (mean of its size, sign left out)...
    """
    classes = _classes_of(cases)
    return _scores(cases, classes, patients, seed, samples)


def scores_by_class(
    cases: Sequence[Case], patients: Sequence[str], *, seed: int = 0, samples: int = 1000
) -> dict[str, dict[str, Score]]:
    """As `scores_of_cases`, for each class; `n` is the number of cases that count."""
    return {name: _scores(cases, [name], patients, seed, samples) for name in _classes_of(cases)}


def mean_dice(cases: Sequence[Case]) -> float:
    """The mean foreground Dice alone, without an interval: for each epoch. NaN where nothing is defined."""
    return (
        float(_means(_table(cases, _classes_of(cases), "dice"), np.ones((1, len(cases))))[0])
        if cases
        else math.nan
    )


def paired_difference(
    first: Sequence[Case],
    second: Sequence[Case],
    patients: Sequence[str],
    *,
    seed: int = 0,
    samples: int = 1000,
) -> dict[str, Score]:
    """How much the second network differs from the first on the same cases: second minus first.

    Both are averaged over the same resamples of patients, so what is hard for both cancels out.

    Args:
        first: Measures by class, of each case.
        second: Of the second network, in the same order.
        patients: Patient of each case.
        seed: Of the resamples.
        samples: Resamples.

    Returns:
        Differences by score name; an interval without 0 shows a difference.
    """
    classes = _classes_of([*first, *second])
    return {
        name: difference_of_tables(
            _table(first, classes, name), _table(second, classes, name), patients, seed=seed, samples=samples
        )
        for name in _names_of(first)
    }


def difference_of_tables(
    first: Floats, second: Floats, patients: Sequence[str], *, seed: int = 0, samples: int = 1000
) -> Score:
    """As `paired_difference`, of one score whose values (cases, classes) are known; NaN where it is not defined."""
    people = len(set(patients))

    def difference(weights: Floats) -> Floats:
        return _means(second, weights) - _means(first, weights)

    value = float(difference(np.ones((1, len(first))))[0])
    draws = np.concatenate([difference(w) for w in patient_weights(patients, samples=samples, seed=seed)])
    low, high = interval(draws, value) if people > 1 else (math.nan, math.nan)
    return Score(value=value, low=low, high=high, n=len(first), patients=people, note=_few(people))


def mean_of_table(table: Floats) -> float:
    """Mean over cases, then over classes, of values (cases, classes); NaN where nothing is defined."""
    return float(_means(table, np.ones((1, len(table))))[0])


def score_of_table(table: Floats, patients: Sequence[str], *, seed: int = 0, samples: int = 1000) -> Score:
    """The mean of such values with its 95 % interval by bootstrap over patients.

    Args:
        table: Values (cases, classes), NaN where a case does not define a class.
        patients: Patient of each case.
        seed: Of the resamples.
        samples: Resamples.
    """
    counted = np.asarray(np.isfinite(table).any(axis=1))
    people = len({patient for patient, counts in zip(patients, counted, strict=True) if counts})
    value = mean_of_table(table)
    draws = np.concatenate([_means(table, w) for w in patient_weights(patients, samples=samples, seed=seed)])
    low, high = interval(draws, value) if people > 1 else (math.nan, math.nan)
    note = _few(people) if counted.any() else "no case has it, in truth or prediction"
    return Score(value=value, low=low, high=high, n=int(counted.sum()), patients=people, note=note)


def _classes_of(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case))


def _names_of(cases: Sequence[Case]) -> list[str]:
    found = (one.values() for case in cases for one in case.values())
    return list(dict.fromkeys(name for values in found for name in values))


def _table(cases: Sequence[Case], classes: Sequence[str], name: str) -> Floats:
    """A score of each case (rows) and class (columns); NaN where it is not defined."""
    return np.array(
        [
            [case[one].values().get(name, math.nan) if one in case else math.nan for one in classes]
            for case in cases
        ],
        dtype=np.float64,
    ).reshape(len(cases), len(classes))


def _means(table: Floats, weights: Floats) -> Floats:
    """Mean over cases, then over classes, in each resample; `weights` is (resamples, N)."""
    defined = np.isfinite(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_class = (weights @ np.where(defined, table, 0.0)) / (weights @ defined)
        there = np.isfinite(of_class)
        means: Floats = np.where(there, of_class, 0.0).sum(axis=1) / there.sum(axis=1)
    return means


def _scores(
    cases: Sequence[Case], classes: Sequence[str], patients: Sequence[str], seed: int, samples: int
) -> dict[str, Score]:
    tables = {name: _table(cases, classes, name) for name in _names_of(cases)}
    if not cases:
        return {}
    scores = {}
    for name, table in tables.items():
        score = score_of_table(table, patients, seed=seed, samples=samples)
        if name.startswith("hd95") and (faults := _one_sided(cases, classes)):
            said = f"{faults} masks empty on one side count as the image's diagonal"
            score = dataclasses.replace(score, note="; ".join(filter(None, (score.note, said))))
        scores[name] = score
    return scores


def _one_sided(cases: Sequence[Case], classes: Sequence[str]) -> int:
    """Masks that were missed, or called where there is none."""
    return sum(bool(case[name].fault) for case in cases for name in classes if name in case)


def _few(people: int) -> str:
    if people == 1:
        return "one patient only, so no interval"
    return f"few patients: {people}" if people < FEW_PATIENTS else ""
