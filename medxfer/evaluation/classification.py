"""Scores of classification with intervals by patient, threshold, trivial baseline and paired differences.

Definitions are scikit-learn's (tests hold them equal); they are written here for many resamples at once,
which takes a second where a thousand calls take a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .curves import (
    confusion_figure,
    histogram_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from .figures import FigureData
from .intervals import Floats, interval, patient_weights, wilson
from .resampled import BINS, NAMES, SHARES, Values, binned, called, rank_values, values_of
from .scores import FEW_PATIENTS, Score, alarms_of

__all__ = [
    "alarms_of",
    "auroc_of",
    "baseline_of",
    "choose_threshold",
    "figures_of",
    "paired_difference",
    "scores_of",
]

Labels = NDArray[np.integer]

RULES = ("youden", "f1", "half")  # for the threshold


def scores_of(
    labels: Labels,
    probabilities: NDArray[np.floating],
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    threshold: float,
    seed: int = 0,
    samples: int = 1000,
) -> dict[str, Score]:
    """All scores of one split, with 95 % intervals by bootstrap over patients.

    Args:
        labels: (N,), class indices.
        probabilities: (N, K).
        patients: Patient of each case.
        classes: Names, K of them; with two, the second is the finding.
        threshold: Probability of the second class from which a case is called; unused above two classes,
            where the most probable class is called and scores are means over classes, each against the rest.
        seed: Of the resamples.
        samples: Resamples.

    Returns:
        Scores by name. What is not defined (one class only, no case) has the value NaN and a note.
    """
    truth, given = _checked(labels, probabilities)
    people = len(set(patients))
    if len(truth) == 0:
        nothing = Score(value=math.nan, low=math.nan, high=math.nan, n=0, patients=0, note="no cases")
        return dict.fromkeys(NAMES, nothing)
    point = {
        name: float(values[0])
        for name, values in values_of(truth, given, threshold, np.ones((1, len(truth)))).items()
    }
    draws = _draws(lambda weights: values_of(truth, given, threshold, weights), patients, samples, seed)
    note = _note(truth, patients, classes)
    faultless = _faultless_bounds(truth, patients, len(classes))
    scores = {}
    for name, value in point.items():
        low, high = interval(draws[name], value) if people > 1 else (math.nan, math.nan)
        if value == 1.0 and low == high and name in faultless:
            low = faultless[name]
        scores[name] = Score(value=value, low=low, high=high, n=len(truth), patients=people, note=note)
    return scores


def baseline_of(
    labels: Labels,
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    shares: Sequence[float] | None = None,
    seed: int = 0,
    samples: int = 1000,
) -> dict[str, Score]:
    """Scores of the trivial rule: always the most frequent class, with the classes' shares as probabilities.

    Args:
        labels: (N,), class indices of the split that is scored.
        patients: Patient of each case.
        classes: Names, K of them.
        shares: Share (or number) of each class among the training cases; without them those of the split
            itself, which is the hardest such rule to beat.
        seed: Of the resamples; the same as for `scores_of`.
        samples: Resamples.
    """
    counts = (
        np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(classes)) if shares is None else shares
    )
    parts = np.asarray(counts, dtype=np.float64)
    constant = np.tile(parts / max(float(parts.sum()), 1e-12), (len(labels), 1))
    return scores_of(labels, constant, patients, classes=classes, threshold=0.5, seed=seed, samples=samples)


def paired_difference(
    labels: Labels,
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    thresholds: tuple[float, float],
    seed: int = 0,
    samples: int = 1000,
) -> dict[str, Score]:
    """How much the second network differs from the first on the same cases: second minus first.

    Both are scored on the same resamples of patients, so what is hard for both cancels out.

    Args:
        labels: (N,), class indices.
        first: (N, K), probabilities of the first network.
        second: (N, K), of the second, in the same order of cases.
        patients: Patient of each case.
        classes: Names, K of them.
        thresholds: Of the first and of the second network.
        seed: Of the resamples.
        samples: Resamples.

    Returns:
        Differences by score name; an interval without 0 shows a difference.
    """
    truth, one = _checked(labels, first)
    _, two = _checked(labels, second)

    def difference(weights: Floats) -> Values:
        before, after = (
            values_of(truth, one, thresholds[0], weights),
            values_of(truth, two, thresholds[1], weights),
        )
        return {name: after[name] - before[name] for name in before}

    point = difference(np.ones((1, len(truth))))
    draws = _draws(difference, patients, samples, seed)
    people, note = len(set(patients)), _note(truth, patients, classes)
    scores = {}
    for name, values in point.items():
        low, high = interval(draws[name], float(values[0])) if people > 1 else (math.nan, math.nan)
        scores[name] = Score(
            value=float(values[0]), low=low, high=high, n=len(truth), patients=people, note=note
        )
    return scores


def auroc_of(labels: Labels, probabilities: NDArray[np.floating]) -> float:
    """AUROC alone, without an interval: for each epoch of training. NaN where it is not defined.

    Args:
        labels: (N,), class indices.
        probabilities: (N, K).
    """
    truth, given = _checked(labels, probabilities)
    if len(np.unique(truth)) < 2:
        return math.nan
    return float(np.mean([auroc[0] for auroc, _ in rank_values(truth, given, np.ones((1, len(truth))))]))


def choose_threshold(labels: Labels, positive: NDArray[np.floating], rule: str = "youden") -> float:
    """The probability from which a case is called; chosen on val, never on test.

    Args:
        labels: (N,), 1 where the finding is present.
        positive: (N,), its probability.
        rule: `youden`: best sensitivity + specificity; `f1`: best F1; `half`: 0.5.

    Returns:
        The middle between two neighbouring probabilities; the middle one of equally good places; 0.5 where
        there is nothing to choose from.

    Raises:
        ConfigError: Another rule.
    """
    if rule not in RULES:
        raise ConfigError("training.threshold", rule, ", ".join(RULES), "name one of them")
    truth, given = np.asarray(labels) == 1, np.asarray(positive, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if rule == "half" or positives == 0 or negatives == 0:
        return 0.5
    levels, of_case = np.unique(given, return_inverse=True)
    called = np.bincount(of_case, minlength=len(levels))[::-1].cumsum()[::-1]  # cases at or above each level
    right = np.bincount(of_case, weights=truth, minlength=len(levels))[::-1].cumsum()[::-1]
    gain = (
        right / positives - (called - right) / negatives
        if rule == "youden"
        else 2 * right / (called + positives)
    )
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    place = int(best[len(best) // 2])
    if place == 0:  # everything is called: nothing below to stand in the middle of
        return float(levels[0])
    middle = float((levels[place - 1] + levels[place]) / 2)
    return middle if middle > levels[place - 1] else float(levels[place])


def figures_of(
    labels: Labels,
    probabilities: NDArray[np.floating],
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    threshold: float,
    split: str = "test",
    seed: int = 0,
    samples: int = 500,
) -> list[FigureData]:
    """The figures of one split: ROC, precision and recall, confusion, reliability, probabilities.

    Args:
        labels: (N,), class indices.
        probabilities: (N, K).
        patients: Patient of each case.
        classes: Names, K of them.
        threshold: As for `scores_of`.
        split: Its name, for the titles.
        seed: Of the resamples behind the bands.
        samples: Resamples behind the bands.

    Returns:
        Those figures that the cases allow: no ROC curve of one class.
    """
    truth, given = _checked(labels, probabilities)
    if len(truth) == 0:
        return []
    weights = np.concatenate(list(patient_weights(patients, samples=samples, seed=seed)))
    calls = called(given, threshold)
    figures = [
        roc_figure(truth, given, weights, classes=classes, called=calls, split=split),
        precision_recall_figure(truth, given, weights, classes=classes, called=calls, split=split),
        confusion_figure(truth, calls, classes=classes, split=split),
        reliability_figure(*binned(truth, given), patients, classes=classes, split=split, bins=BINS),
        histogram_figure(truth, given, classes=classes, threshold=threshold, split=split),
    ]
    return [figure for figure in figures if figure is not None]


def _checked(labels: Labels, probabilities: NDArray[np.floating]) -> tuple[NDArray[np.int64], Floats]:
    return np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)


def _draws(values: Callable[[Floats], Values], patients: Sequence[str], samples: int, seed: int) -> Values:
    blocks = [values(weights) for weights in patient_weights(patients, samples=samples, seed=seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _patients_by_class(labels: NDArray[np.int64], patients: Sequence[str], count: int) -> list[int]:
    return [
        len({patient for patient, own in zip(patients, labels, strict=True) if own == label})
        for label in range(count)
    ]


def _note(labels: NDArray[np.int64], patients: Sequence[str], classes: Sequence[str]) -> str:
    """What weakens a split: a class without cases, a class of few patients, one patient only."""
    if len(set(patients)) == 1:
        return "one patient only, so no interval"
    people = dict(zip(classes, _patients_by_class(labels, patients, len(classes)), strict=True))
    missing = [name for name, number in people.items() if number == 0]
    few = [f"{number} with {name}" for name, number in people.items() if 0 < number < FEW_PATIENTS]
    parts = [f"no case of {', '.join(missing)}"] * bool(missing) + [f"few patients: {', '.join(few)}"] * bool(
        few
    )
    return "; ".join(parts)


def _faultless_bounds(labels: NDArray[np.int64], patients: Sequence[str], count: int) -> Mapping[str, float]:
    """Lower bound of each score that came out as exactly 1, by the patients it rests on."""
    people = _patients_by_class(labels, patients, count)
    fewest = min(number for number in people if number)
    bounds = {name: wilson(1.0, fewest)[0] for name in SHARES}
    bounds["accuracy"] = wilson(1.0, len(set(patients)))[0]
    if count == 2:
        bounds |= {"sensitivity": wilson(1.0, people[1])[0], "specificity": wilson(1.0, people[0])[0]}
    return bounds
