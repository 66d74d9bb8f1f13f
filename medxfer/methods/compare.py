"""Runs side by side on the test cases they share, with paired differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..evaluation.classification import paired_difference, scores_of
from ..run_folder import RunFolder

SHOWN = ("auroc", "average_precision", "accuracy", "sensitivity", "specificity", "brier", "ece")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the comparison needs of one run."""

    root: Path
    classes: tuple[str, ...]
    threshold: float
    rows: dict[str, dict[str, str]]  # by case
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
        DataError: Other classes, no shared test case, or a case labelled differently.
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
    labels = np.array([first.classes.index(first.rows[case]["label"]) for case in shared])
    for other in runs[1:]:
        changed = next(
            (case for case in shared if other.rows[case]["label"] != first.rows[case]["label"]), None
        )
        if changed is not None:
            seen = f"{changed} is {other.rows[changed]['label']}, in the first run {first.rows[changed]['label']}"
            raise DataError(str(other.root), seen, "the same labels", "train both on the same labels")
    patients = [first.patients[case] for case in shared]
    base = _probabilities(first, shared)
    found: list[dict[str, Any]] = []
    for run in runs:
        p = _probabilities(run, shared)
        scores = scores_of(labels, p, patients, classes=run.classes, threshold=run.threshold, seed=seed)
        gains = paired_difference(
            labels,
            base,
            p,
            patients,
            classes=run.classes,
            thresholds=(first.threshold, run.threshold),
            seed=seed,
        )
        for name in SHOWN:
            row: dict[str, Any] = {
                "run": str(run.root),
                "score": name,
                "value": scores[name].value,
                "n": len(shared),
            }
            if run is not first:
                row |= {"difference": gains[name].value, "low": gains[name].low, "high": gains[name].high}
            found.append(row)
    return found


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
