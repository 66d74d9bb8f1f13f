"""The figures of classification as data: curves with bootstrap bands, tables, bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import FigureData
from .intervals import Floats, wilson

GRID = np.linspace(0.0, 1.0, 101)  # where bands are evaluated
_MOST_POINTS = 400  # of a drawn curve: more cannot be told apart

Curve = tuple[Floats, Floats]
Ints = NDArray[np.int64]


def roc_figure(
    labels: Ints, probabilities: Floats, weights: Floats, *, classes: Sequence[str], called: Ints, split: str
) -> FigureData | None:
    """Sensitivity over 1 - specificity, a curve a class against the rest; None without two classes."""
    from sklearn.metrics import roc_auc_score, roc_curve

    if len(np.unique(labels)) < 2:
        return None
    series, points = [], []
    for label, name in _curves(labels, classes):
        truth = labels == label
        x, y, _ = roc_curve(truth, probabilities[:, label])
        area = roc_auc_score(truth, probabilities[:, label])
        band = _band(truth, probabilities[:, label], weights, _roc_on_grid)
        series.append({"name": f"{name}: AUROC {area:.3f}", "x": _thin(x), "y": _thin(y), **band})
        hits, misses = called[truth] == label, called[~truth] == label
        points.append(
            {"name": "at the threshold" if len(classes) == 2 else name, "x": misses.mean(), "y": hits.mean()}
        )
    return FigureData(
        kind="roc",
        title=f"ROC curve, {split}",
        data={
            "x": "1 - specificity",
            "y": "Sensitivity",
            "series": series,
            "points": points if len(classes) == 2 else [],
            "reference": {"x": [0.0, 1.0], "y": [0.0, 1.0], "name": "guessing"},
        },
        caption="Towards the upper left is better. Bands: 95 % of the curves when patients are drawn again."
        + (" The dot is the threshold in use." if len(classes) == 2 else " Each class against the rest."),
    )


def precision_recall_figure(
    labels: Ints, probabilities: Floats, weights: Floats, *, classes: Sequence[str], called: Ints, split: str
) -> FigureData | None:
    """Precision over sensitivity, a curve a class against the rest; None without two classes."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if len(np.unique(labels)) < 2:
        return None
    series, points = [], []
    for label, name in _curves(labels, classes):
        truth = labels == label
        y, x, _ = precision_recall_curve(truth, probabilities[:, label], drop_intermediate=True)
        area = average_precision_score(truth, probabilities[:, label])
        band = _band(truth, probabilities[:, label], weights, _precision_on_grid)
        series.append(
            {
                "name": f"{name}: average precision {area:.3f}",
                "x": _thin(x[::-1]),
                "y": _thin(y[::-1]),
                **band,
            }
        )
        if (called == label).any():
            hit = (called == label) & truth
            points.append(
                {
                    "name": "at the threshold",
                    "x": hit.sum() / truth.sum(),
                    "y": hit.sum() / (called == label).sum(),
                }
            )
    share = float((labels == 1).mean())
    return FigureData(
        kind="pr",
        title=f"Precision and recall, {split}",
        data={
            "x": "Recall (sensitivity)",
            "y": "Precision (share of calls that are right)",
            "series": series,
            "points": points if len(classes) == 2 else [],
            **(
                {"reference": {"x": [0.0, 1.0], "y": [share, share], "name": "guessing"}}
                if len(classes) == 2
                else {}
            ),
        },
        caption="Towards the upper right is better. Precision holds for the share of findings in these cases"
        " only: where the finding is rarer, more calls are false.",
    )


def confusion_figure(labels: Ints, called: Ints, *, classes: Sequence[str], split: str) -> FigureData:
    """How many cases of each class were called what."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, called, labels=np.arange(len(classes)))
    return FigureData(
        kind="confusion",
        title=f"Calls, {split}",
        data={"classes": list(classes), "matrix": matrix},
        caption="Rows: what the case is. Columns: what it was called"
        + (" at the threshold in use." if len(classes) == 2 else " (the most probable class).")
        + " Percent of the row below each number.",
    )


def reliability_figure(
    stated: Floats,
    happened: Floats,
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    split: str,
    bins: int,
) -> FigureData:
    """Observed frequency over stated probability, in bins of equal width."""
    bin_of = np.clip((stated * bins).astype(np.int64), 0, bins - 1)
    people = np.asarray(patients, dtype=str)
    rows: dict[str, list[float]] = {name: [] for name in ("predicted", "observed", "low", "high", "counts")}
    for number in np.unique(bin_of):
        inside = bin_of == number
        observed = float(happened[inside].mean())
        # not by bootstrap: a bin of few cases that all went one way would get no interval at all
        low, high = wilson(observed, len(np.unique(people[inside])))
        values = (float(stated[inside].mean()), observed, low, high, int(inside.sum()))
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    two = len(classes) == 2
    return FigureData(
        kind="reliability",
        title=f"Reliability of the probabilities, {split}",
        data={
            "x": f"Stated probability of {classes[1]}" if two else "Stated probability of the class called",
            "y": "Observed frequency",
            **rows,
        },
        caption="On the diagonal a stated 70 % comes true in 70 % of cases. Bars: 95 % interval (Wilson) for"
        " the patients in the bin. Numbers: cases in it.",
    )


def histogram_figure(
    labels: Ints, probabilities: Floats, *, classes: Sequence[str], threshold: float, split: str
) -> FigureData:
    """How the stated probabilities are spread, by true class."""
    two = probabilities.shape[1] == 2
    stated = probabilities[:, 1] if two else probabilities[np.arange(len(labels)), labels]
    edges = np.linspace(0.0, 1.0, 21)
    series = [
        {"name": name, "counts": np.histogram(stated[labels == label], edges)[0]}
        for label, name in enumerate(classes)
    ]
    return FigureData(
        kind="histogram",
        title=f"Stated probabilities, {split}",
        data={
            "x": f"Probability of {classes[1]}" if two else "Probability of the true class",
            "y": "Cases",
            "edges": edges,
            "series": series,
            "marks": [{"x": threshold, "name": "threshold"}] if two else [],
        },
        caption="Colours are what the case is. The less they overlap, the easier the decision.",
    )


def _curves(labels: Ints, classes: Sequence[str]) -> list[tuple[int, str]]:
    """The classes that get a curve: the second of two, else each that occurs."""
    if len(classes) == 2:
        return [(1, classes[1])]
    return [(label, name) for label, name in enumerate(classes) if (labels == label).any()]


def _band(
    truth: NDArray[np.bool_], given: Floats, weights: Floats, on_grid: Callable[[Floats, Floats], Floats]
) -> dict[str, Any]:
    """2.5 and 97.5 % of the resampled curves at each place of the grid."""
    order = np.argsort(-given, kind="stable")
    ranked = given[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])  # cases of one probability come together
    curves = []
    for row in weights:
        own = row[order]
        hits, misses = (own * truth[order]).cumsum()[ends], (own * ~truth[order]).cumsum()[ends]
        if hits[-1] > 0 and misses[-1] > 0:  # else the class was not drawn
            curves.append(on_grid(hits, misses))
    if len(curves) * 2 < len(weights) or len(curves) < 2:
        return {}
    low, high = np.quantile(np.stack(curves), [0.025, 0.975], axis=0)
    return {"grid": GRID, "low": low, "high": high}


def _roc_on_grid(hits: Floats, misses: Floats) -> Floats:
    curve: Curve = (np.r_[0.0, misses / misses[-1]], np.r_[0.0, hits / hits[-1]])
    return np.interp(GRID, *curve)


def _precision_on_grid(hits: Floats, misses: Floats) -> Floats:
    """Precision at the first threshold that reaches each recall."""
    first = np.searchsorted(hits / hits[-1], GRID - 1e-12)
    called = hits + misses
    precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
    return np.asarray(precision[np.minimum(first, len(precision) - 1)])


def _thin(values: Floats) -> Floats:
    """At most `_MOST_POINTS` of them, both ends among them."""
    if len(values) <= _MOST_POINTS:
        return values
    return np.asarray(values[np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int)])
