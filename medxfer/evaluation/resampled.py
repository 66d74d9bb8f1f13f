"""The scores of classification in many resamples at once; definitions are scikit-learn's, with weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .intervals import Floats

Values = dict[str, Floats]  # score name: one number a resample

SHARES = ("auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity")
NAMES = (*SHARES, "brier", "ece")
BINS = 10  # of equal width, for the calibration error and the reliability curve
_NEED_TWO_CLASSES = ("auroc", "average_precision", "balanced_accuracy")


def values_of(labels: NDArray[np.int64], probabilities: Floats, threshold: float, weights: Floats) -> Values:
    """Every score in every resample; `weights` is (resamples, N), the results are (resamples,)."""
    values = _threshold_values(labels, called(probabilities, threshold), probabilities.shape[1], weights)
    auroc, precision = zip(*rank_values(labels, probabilities, weights), strict=True)
    values["auroc"], values["average_precision"] = np.mean(auroc, axis=0), np.mean(precision, axis=0)
    total = weights.sum(axis=1)
    values["brier"] = weights @ _squared_errors(labels, probabilities) / total
    stated, happened = binned(labels, probabilities)
    bin_of = np.clip((stated * BINS).astype(np.int64), 0, BINS - 1)
    excess = np.zeros((len(labels), BINS))
    excess[np.arange(len(labels)), bin_of] = stated - happened
    values["ece"] = np.abs(weights @ excess).sum(axis=1) / total
    if len(np.unique(labels)) < 2:
        values |= {name: np.full(len(weights), np.nan) for name in _NEED_TWO_CLASSES}
    return {name: values[name] for name in NAMES}


def called(probabilities: Floats, threshold: float) -> NDArray[np.int64]:
    """The class that each case is called: by the threshold on the second of two, else the most probable."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def _scored_classes(labels: NDArray[np.int64], count: int) -> list[int]:
    """The second of two classes; of more, those that occur (a mean cannot hold what is not defined)."""
    return [1] if count == 2 else [int(label) for label in np.unique(labels)]


def _threshold_values(
    labels: NDArray[np.int64], decided: NDArray[np.int64], count: int, weights: Floats
) -> Values:
    """Scores of decisions, from the confusion matrix of each resample."""
    cells = np.zeros((len(labels), count * count))
    cells[np.arange(len(labels)), labels * count + decided] = 1.0
    matrix = (weights @ cells).reshape(len(weights), count, count)
    total = matrix.sum(axis=(1, 2))
    right = np.diagonal(matrix, axis1=1, axis2=2)
    present, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    absent = total[:, None] - present
    occurring = [int(label) for label in np.unique(labels)]
    scored = _scored_classes(labels, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / present
        specificity = (absent - predicted + right) / absent
        f1 = 2 * right / (present + predicted)
    return {
        "accuracy": right.sum(axis=1) / total,
        "balanced_accuracy": recall[:, occurring].mean(axis=1),
        "f1": f1[:, scored].mean(axis=1),
        "sensitivity": recall[:, scored].mean(axis=1),
        "specificity": specificity[:, scored].mean(axis=1),
    }


def rank_values(
    labels: NDArray[np.int64], probabilities: Floats, weights: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """AUROC and average precision of each scored class against the rest, in each resample."""
    for label in _scored_classes(labels, probabilities.shape[1]):
        order = np.argsort(-probabilities[:, label], kind="stable")
        ranked = probabilities[order, label]
        starts = np.flatnonzero(
            np.r_[True, ranked[1:] != ranked[:-1]]
        )  # cases of one probability count together
        is_class = labels[order] == label
        positive = np.add.reduceat(weights[:, order] * is_class, starts, axis=1)
        negative = np.add.reduceat(weights[:, order] * ~is_class, starts, axis=1)
        above, wrong_above = positive.cumsum(axis=1), negative.cumsum(axis=1)
        positives, negatives = above[:, -1], wrong_above[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            # a pair is right when the negative comes after the positive, half right in a tie
            pairs = (positive * (negatives[:, None] - wrong_above + negative / 2)).sum(axis=1)
            all_above = above + wrong_above
            precision = np.divide(above, all_above, out=np.zeros_like(above), where=all_above > 0)
            yield pairs / (positives * negatives), (positive * precision).sum(axis=1) / positives


def _squared_errors(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """Brier (1950): of the second of two classes; summed over classes when there are more."""
    target = np.eye(probabilities.shape[1])[labels]
    errors = ((probabilities - target) ** 2).sum(axis=1)
    return np.asarray(errors / 2 if probabilities.shape[1] == 2 else errors)


def binned(labels: NDArray[np.int64], probabilities: Floats) -> tuple[Floats, Floats]:
    """What was stated and what happened: the finding of two classes; of more, the class that was called."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], (labels == 1).astype(np.float64)
    named = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), (labels == named).astype(np.float64)
