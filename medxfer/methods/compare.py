"""Runs side by side on the test cases they share, with paired differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..evaluation import classification
from ..evaluation.scores import MEANINGS, Score
from ..evaluation.segmentation import difference_of_tables, mean_of_table
from ..run_folder import RunFolder

SHOWN = ("auroc", "average_precision", "accuracy", "sensitivity", "specificity", "brier", "ece")
_SAME_SIZE = 1e-3  # relative difference of true sizes up to which two runs had the same mask

Row = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the comparison needs of one run."""

    root: Path
    classes: tuple[str, ...]
    threshold: float
    rows: dict[str, Row]  # by case
    patients: dict[str, str]


def compare_runs(roots: Sequence[Path], *, seed: int = 0) -> list[dict[str, Any]]:
    """Scores of each run on the shared test cases, and each run minus the first.

    Args:
        roots: Two or more run folders.
        seed: Of the resamples of patients.

    Returns:
        A row a run and score: `run, score, value, n` and, but for the first run, `difference, low, high`.

    Raises:
        ConfigError: Fewer than two runs.
        DataError: Other classes, no shared test case, a case labelled differently, or predictions of another kind.
    """
    if len(roots) < 2:
        raise ConfigError(
            "medxfer compare", f"{len(roots)} run", "two or more run folders", "name another run"
        )
    runs = [_read(root) for root in roots]
    first = runs[0]
    for other in runs[1:]:
        if other.classes != first.classes:
            seen = f"classes {', '.join(other.classes)}"
            raise DataError(
                str(other.root), seen, f"{', '.join(first.classes)}, as in {first.root}", "compare others"
            )
    shared = [case for case in first.rows if all(case in run.rows for run in runs)]
    if not shared:
        todo = "train them with one split: --split RUN/split.csv"
        raise DataError(str(roots[1]), "no test case shared with the first run", "the same test cases", todo)
    pairs = [
        (run, name, value, gain) for run in runs for name, value, gain in _pair(first, run, shared, seed)
    ]
    found: list[dict[str, Any]] = []
    for run, name, value, gain in pairs:
        row: dict[str, Any] = {"run": str(run.root), "score": name, "value": value, "n": len(shared)}
        if run is not first:
            row |= {"difference": gain.value, "low": gain.low, "high": gain.high}
        found.append(row)
    return found


def _pair(first: _Run, run: _Run, cases: Sequence[str], seed: int) -> Iterator[tuple[str, float, Score]]:
    """Name, value and difference to the first run of each score, by the columns that both runs wrote."""
    for fits, pair in _WAYS:
        if fits(first) and fits(run):
            return pair(first, run, cases, seed)
    columns = next(iter(run.rows.values()), {})
    seen = f"columns {', '.join(columns)}"
    accepted = "p_CLASS with one label a case, or SCORE_CLASS such as dice_CLASS, as in the first run"
    raise DataError(f"{run.root}/predictions/test.csv", seen, accepted, "compare their scores.json by hand")


def _holds_probabilities(run: _Run) -> bool:
    """Whether each case has one of the classes, and a probability for each of them."""
    return all(
        row.get("label") in run.classes and all(f"p_{name}" in row for name in run.classes)
        for row in run.rows.values()
    )


def _pair_probabilities(
    first: _Run, run: _Run, cases: Sequence[str], seed: int
) -> Iterator[tuple[str, float, Score]]:
    for case in cases:
        own, theirs = run.rows[case]["label"], first.rows[case]["label"]
        if own != theirs:
            raise _relabelled(run, f"{case} is {own}, in the first run {theirs}")
    labels = np.array([first.classes.index(first.rows[case]["label"]) for case in cases])
    patients = [first.patients[case] for case in cases]
    base, p = _probabilities(first, cases), _probabilities(run, cases)
    scores = classification.scores_of(
        labels, p, patients, classes=run.classes, threshold=run.threshold, seed=seed
    )
    gains = classification.paired_difference(
        labels,
        base,
        p,
        patients,
        classes=run.classes,
        thresholds=(first.threshold, run.threshold),
        seed=seed,
    )
    return ((name, scores[name].value, gains[name]) for name in SHOWN)


def _holds_scores(run: _Run) -> bool:
    """Whether each case has scores of its own, class by class."""
    return bool(_scores_of_cases(run))


def _pair_scores(
    first: _Run, run: _Run, cases: Sequence[str], seed: int
) -> Iterator[tuple[str, float, Score]]:
    for case in cases:
        for column, text in first.rows[case].items():
            if not column.startswith("true_"):
                continue
            theirs, own = _number(text), _number(run.rows[case].get(column, text))
            if abs(own - theirs) > max(_SAME_SIZE * abs(theirs), 1e-4):
                raise _relabelled(run, f"{column} of {case} is {own:g}, in the first run {theirs:g}")
    patients = [first.patients[case] for case in cases]
    for name in _scores_of_cases(first):
        if name in _scores_of_cases(run):
            base, own_table = _table(first, cases, name), _table(run, cases, name)
            yield name, mean_of_table(own_table), difference_of_tables(base, own_table, patients, seed=seed)


def _scores_of_cases(run: _Run) -> list[str]:
    columns = next(iter(run.rows.values()), {})
    return [name for name in MEANINGS if all(f"{name}_{one}" in columns for one in run.classes)]


def _table(run: _Run, cases: Sequence[str], name: str) -> np.ndarray:
    """A score of each case (rows) and class (columns); NaN where it is not defined."""
    return np.array([[_number(run.rows[case][f"{name}_{one}"]) for one in run.classes] for case in cases])


def _relabelled(run: _Run, seen: str) -> DataError:
    return DataError(str(run.root), seen, "the same labels", "train both on the same labels")


# What the columns of test.csv allow, and how two runs are compared by them. A new kind of prediction is a row here.
_WAYS = ((_holds_probabilities, _pair_probabilities), (_holds_scores, _pair_scores))


def _read(root: Path) -> _Run:
    folder = RunFolder.open(root)
    scores = folder.read("scores.json")
    return _Run(
        root=root,
        classes=tuple(scores["classes"]),
        threshold=float(scores.get("threshold", {}).get("value", 0.5)),
        rows={row["case"]: row for row in folder.read("predictions/test.csv")},
        patients={row["case"]: row["patient"] for row in folder.read("split.csv")},
    )


def _probabilities(run: _Run, cases: Sequence[str]) -> np.ndarray:
    return np.array([[float(run.rows[case][f"p_{name}"]) for name in run.classes] for case in cases])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
