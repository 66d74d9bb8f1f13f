"""Scores of several findings at once, each known or unknown a case: by finding, and their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .calibration import RANGE
from .classification import choose_threshold, scores_of
from .figures import FigureData
from .intervals import Floats, interval, patient_weights
from .resampled import BINS, NAMES, rank_values, values_of
from .scores import FEW_PATIENTS, Score

MOST_CURVES = 8  # in one figure: more cannot be told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingScores:
    """Scores of one split."""

    mean: dict[str, Score]  # over the findings for which a score is defined
    by_finding: dict[str, dict[str, Score]]
    undefined: tuple[str, ...]  # findings without AUROC: always there or never, where they are known


def known_of(labels: Floats) -> NDArray[np.bool_]:
    """(N, K): where something is known."""
    return np.asarray(~np.isnan(labels))


def defined_findings(labels: Floats) -> list[int]:
    """Findings that are there in one known case and not in another."""
    return [
        number
        for number in range(labels.shape[1])
        if (labels[:, number] == 1).any() and (labels[:, number] == 0).any()
    ]


def mean_auroc(labels: Floats, given: Floats) -> float:
    """Mean AUROC over the findings that have one; NaN where none has. For each epoch of training.

    Args:
        labels: (N, K), 1, 0 or NaN where unknown.
        given: (N, K), anything that rises with the probability.
    """
    found = []
    for number in defined_findings(labels):
        known = ~np.isnan(labels[:, number])
        truth, stated = _two_classes(labels[known, number], given[known, number])
        auroc, _ = next(iter(rank_values(truth, stated, np.ones((1, len(truth))))))
        found.append(float(auroc[0]))
    return float(np.mean(found)) if found else math.nan


def findings_scores(
    labels: Floats,
    probabilities: NDArray[np.floating],
    patients: Sequence[str],
    *,
    names: Sequence[str],
    thresholds: Sequence[float],
    seed: int = 0,
    samples: int = 1000,
) -> FindingScores:
    """Scores of each finding and their mean, with 95 % intervals by bootstrap over patients.

    A finding is scored on the cases in which it is known. What is not defined (a finding that no case has) is left
    out of the mean, of every resample's too, and said in its note.

    Args:
        labels: (N, K), 1, 0 or NaN where unknown.
        probabilities: (N, K).
        patients: Patient of each case.
        names: Of the findings, K of them.
        thresholds: Probability from which each is called.
        seed: Of the resamples; the same patients are drawn for every finding.
        samples: Resamples.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    by_finding: dict[str, dict[str, Score]] = {}
    for number, name in enumerate(names):
        known = ~np.isnan(labels[:, number])
        own = [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
        truth, stated = _two_classes(labels[known, number], given[known, number])
        scores = scores_of(
            truth,
            stated,
            own,
            classes=(f"no {name}", name),
            threshold=thresholds[number],
            seed=seed,
            samples=samples,
        )
        by_finding[name] = scores
    defined = defined_findings(labels)
    undefined = tuple(name for number, name in enumerate(names) if number not in defined)
    mean = _means(labels, given, patients, names, thresholds, defined, seed=seed, samples=samples)
    return FindingScores(mean=mean, by_finding=by_finding, undefined=undefined)


def _means(
    labels: Floats,
    given: Floats,
    patients: Sequence[str],
    names: Sequence[str],
    thresholds: Sequence[float],
    defined: Sequence[int],
    *,
    seed: int,
    samples: int,
) -> dict[str, Score]:
    """Mean over the findings that are defined, and of each resample over those that are defined in it."""
    people = len(set(patients))
    note = _note(labels, patients, names, defined)
    nothing = Score(value=math.nan, low=math.nan, high=math.nan, n=len(labels), patients=people, note=note)
    if not defined:
        return dict.fromkeys(NAMES, nothing)
    blocks = [np.ones((1, len(labels))), *patient_weights(patients, samples=samples, seed=seed)]
    draws: dict[str, list[Floats]] = {name: [] for name in NAMES}
    for weights in blocks:
        values: dict[str, list[Floats]] = {name: [] for name in NAMES}
        for number in defined:
            known = ~np.isnan(labels[:, number])
            truth, stated = _two_classes(labels[known, number], given[known, number])
            with np.errstate(invalid="ignore", divide="ignore"):
                found = values_of(truth, stated, thresholds[number], weights[:, known])
            for name in NAMES:
                values[name].append(found[name])
        for name in NAMES:
            draws[name].append(_mean_of_defined(np.stack(values[name])))
    scores = {}
    for name in NAMES:
        value = float(draws[name][0][0])
        low, high = interval(np.concatenate(draws[name][1:]), value) if people > 1 else (math.nan, math.nan)
        scores[name] = replace(nothing, value=value, low=low, high=high)
    return scores


def _mean_of_defined(values: Floats) -> Floats:
    """(K, R) to (R,): without what is not a number; NaN where nothing is one."""
    is_number = np.isfinite(values)
    count = is_number.sum(axis=0)
    total = np.where(is_number, values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))


def _note(labels: Floats, patients: Sequence[str], names: Sequence[str], defined: Sequence[int]) -> str:
    """Findings left out, and findings that rest on few patients."""
    if len(set(patients)) == 1:
        return "one patient only, so no interval"
    parts = []
    left_out = [names[number] for number in range(len(names)) if number not in defined]
    if left_out:
        parts.append(f"left out of the mean, not defined: {', '.join(left_out)}")
    people = np.asarray(patients, dtype=str)
    few = []
    for number in defined:
        count = len(np.unique(people[labels[:, number] == 1]))
        if count < FEW_PATIENTS:
            few.append(f"{count} with {names[number]}")
    if few:
        parts.append(f"few patients: {', '.join(few)}")
    return "; ".join(parts)


def _two_classes(labels: Floats, given: Floats) -> tuple[NDArray[np.int64], Floats]:
    """One finding as two classes: labels (N,), probabilities (N, 2)."""
    return labels.astype(np.int64), np.stack([1 - given, given], axis=1)


def choose_thresholds(labels: Floats, probabilities: Floats, rule: str) -> list[float]:
    """A threshold a finding, chosen on its known val cases; 0.5 where there is nothing to choose from."""
    found = []
    for number in range(labels.shape[1]):
        known = ~np.isnan(labels[:, number])
        found.append(
            choose_threshold(labels[known, number].astype(np.int64), probabilities[known, number], rule)
        )
    return found


def fit_shared_temperature(logits: Floats, labels: Floats) -> float:
    """One temperature for all findings (Guo et al. 2017, section 4.2), by the likelihood of the known labels on val.

    Args:
        logits: (N, K).
        labels: (N, K), 1, 0 or NaN where unknown.

    Returns:
        A number within `calibration.RANGE`; 1.0 where there is nothing to fit.
    """
    from scipy.optimize import minimize_scalar

    defined = defined_findings(labels)
    if not defined or not np.isfinite(logits).all():
        return 1.0
    scores, truth = logits[:, defined], labels[:, defined]
    known = ~np.isnan(truth)
    # Targets of Platt (1999, section 2.2): a val set without an error would make the network sure of everything.
    ones, zeros = (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
    soft = np.where(truth == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))[known]
    stated = scores[known]

    def loss(logarithm: float) -> float:
        scaled = stated / np.exp(logarithm)
        return float((np.logaddexp(0.0, scaled) - soft * scaled).mean())

    best = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded")
    return float(np.exp(best.x))


def findings_figures(
    labels: Floats,
    probabilities: NDArray[np.floating],
    patients: Sequence[str],
    *,
    names: Sequence[str],
    scores: FindingScores,
    thresholds: Sequence[float],
    split: str = "test",
) -> list[FigureData]:
    """The figures of one split: a table by finding, ROC and precision-recall curves, reliability of all findings.

    Args:
        labels: (N, K), 1, 0 or NaN where unknown.
        probabilities: (N, K).
        patients: Patient of each case.
        names: Of the findings.
        scores: Of this split.
        thresholds: Probability from which each is called.
        split: Its name, for the titles.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    figures = [_table(labels, names, scores, thresholds, split)]
    defined = defined_findings(labels)
    if not defined:
        return figures
    frequent = sorted(defined, key=lambda number: -(labels[:, number] == 1).sum())[:MOST_CURVES]
    figures += _curves(labels, given, frequent, names, split, is_whole=len(frequent) == len(defined))
    from .curves import reliability_figure

    known = known_of(labels)
    people = np.repeat(np.asarray(patients, dtype=str)[:, None], labels.shape[1], axis=1)[known]
    figures.append(
        reliability_figure(
            given[known], labels[known], list(people), classes=("", "a finding"), split=split, bins=BINS
        )
    )
    return figures


def _table(
    labels: Floats, names: Sequence[str], scores: FindingScores, thresholds: Sequence[float], split: str
) -> FigureData:
    rows = []
    for number, name in enumerate(names):
        own = scores.by_finding[name]
        known = int((~np.isnan(labels[:, number])).sum())
        there = int((labels[:, number] == 1).sum())
        cells = [own[key].text() for key in ("auroc", "average_precision", "sensitivity", "specificity")]
        rows.append([name, f"{there} of {known}", *cells, f"{thresholds[number]:.3f}"])
    columns = ["Finding", "Cases", "AUROC", "Average precision", "Sensitivity", "Specificity", "Threshold"]
    return FigureData(
        kind="table",
        title=f"Scores by finding, {split}",
        data={"columns": columns, "rows": rows},
        caption="Cases: with the finding, of those in which it is known. Intervals: 95 %, by bootstrap over patients."
        " Threshold: the probability from which the finding is called, chosen on val.",
    )


def _curves(
    labels: Floats, given: Floats, numbers: Sequence[int], names: Sequence[str], split: str, *, is_whole: bool
) -> list[FigureData]:
    """ROC and precision-recall curves of some findings, each on its known cases."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, pr = [], []
    for number in numbers:
        known = ~np.isnan(labels[:, number])
        truth, stated = labels[known, number], given[known, number]
        x, y, _ = roc_curve(truth, stated)
        roc.append({"name": names[number], "x": x, "y": y})
        precision, recall, _ = precision_recall_curve(truth, stated, drop_intermediate=True)
        # The last point, precision 1 at recall 0, is a convention: nothing is called there.
        pr.append({"name": names[number], "x": recall[-2::-1], "y": precision[-2::-1]})
    which = "" if is_whole else f" The {len(numbers)} most frequent findings."
    guess = {"x": [0.0, 1.0], "y": [0.0, 1.0], "name": "guessing"}
    return [
        FigureData(
            kind="roc",
            title=f"ROC curves, {split}",
            data={
                "x": "1 - specificity",
                "y": "Sensitivity",
                "series": roc,
                "points": [],
                "reference": guess,
            },
            caption=f"Towards the upper left is better.{which}",
        ),
        FigureData(
            kind="pr",
            title=f"Precision and recall, {split}",
            data={
                "x": "Recall (sensitivity)",
                "y": "Precision (share of calls that are right)",
                "series": pr,
                "points": [],
            },
            caption="Towards the upper right is better. Precision holds for the share of findings in these cases"
            f" only.{which}",
        ),
    ]
