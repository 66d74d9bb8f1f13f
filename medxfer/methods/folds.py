"""Cross-validation: one run for each fold, and what their test parts say together."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.schema import Bundle
from ..errors import ConfigError
from ..evaluation.segmentation import score_of_table
from ..files import write_json
from ..pipeline import Request, resume_run, run_bundle
from ..progress import Progress
from ..run_folder import RunFolder, default_root


def run_folds(bundle: Bundle, folds: int, request: Request, say: Progress) -> Path:
    """Run a bundle once for each fold; patients lie in one fold only, val is cut from each fold's training part.

    A folder that an interrupted call left is gone on with: finished folds stay, an interrupted one is resumed.

    Args:
        bundle: Its `data.split` is dealt into `folds` parts.
        folds: Two or more.
        request: `out` is the folder of all folds.
        say: Where progress goes.

    Returns:
        The folder: `fold-0`, `fold-1`, ... and `folds.json`.

    Raises:
        ConfigError: Fewer than two folds, or a split file beside them.
        MedxferError: As a single run.
    """
    if folds < 2:
        raise ConfigError("--folds", str(folds), "2 or more", "write --folds 5")
    if request.split_file is not None:
        raise ConfigError("--folds", "--split beside it", "one of the two", "leave out --split")
    root = request.out or default_root(f"{bundle.name}-folds")
    runs = []
    for fold in range(folds):
        say(f"fold {fold + 1} of {folds}")
        place = root / f"fold-{fold}"
        if (place / "config.yaml").is_file():
            runs.append(resume_run(place, device=request.device, say=say))
            continue
        split = dataclasses.replace(bundle.data.split, folds=folds, fold=fold)
        data = dataclasses.replace(bundle.data, split=split)
        one = dataclasses.replace(bundle, data=data)
        runs.append(run_bundle(one, dataclasses.replace(request, out=place), say))
    write_json(root / "folds.json", summary_of(runs))
    return root


def summary_of(runs: list[RunFolder]) -> dict[str, Any]:
    """Mean, lowest and highest of each test score over folds, with the number of cases in all; by class, if known.

    The spread over folds is no confidence interval: their training parts overlap. Where every case was tested once and
    has a score of its own (Dice), `pooled` holds the mean over all cases with its interval by patient.
    """
    scores = [run.read("scores.json") for run in runs]
    found: dict[str, Any] = {"folds": len(runs), "test": _over_folds([one["test"] for one in scores])}
    by_class = [(one.get("by_class") or {}).get("test", {}) for one in scores]
    for name in by_class[0]:
        if all(name in one for one in by_class):
            found.setdefault("by_class", {})[name] = _over_folds([one[name] for one in by_class])
    bases = [(one.get("baseline") or {}).get("test") for one in scores]
    if all(bases):
        found["baseline"] = _over_folds([one for one in bases if one])
    if (pooled := _pooled(runs, scores[0])) is not None:
        found["pooled"] = pooled
    seconds = [run.read("run.json").get("seconds", {}) for run in runs]
    found["seconds"] = {
        name: round(sum(one.get(name, 0.0) for one in seconds), 1) for name in ("training", "whole")
    }
    if resumed := sum(run.read("run.json").get("resumed", 0) for run in runs):
        found["resumed"] = resumed
    return found | {"runs": [run.root.name for run in runs]}


def _pooled(runs: list[RunFolder], scores: dict[str, Any]) -> dict[str, Any] | None:
    """The key metric over the test cases of all folds, where each case has it and is tested once."""
    key = str(scores.get("key_metric"))
    rows = [row for run in runs for row in run.read("predictions/test.csv")]
    people = {row["case"]: row["patient"] for row in runs[0].read("split.csv")}
    columns = [f"{key}_{name}" for name in scores.get("classes", [])]
    cases = [row["case"] for row in rows]
    if not columns or len(set(cases)) != len(cases) or not all(name in rows[0] for name in columns):
        return None
    table = np.array([[float(row[name] or "nan") for name in columns] for row in rows], dtype=np.float64)
    return {key: score_of_table(table, [people[case] for case in cases]).to_plain()}


def _over_folds(scores: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in scores[0]:
        if not all(name in one for one in scores):
            continue
        values = [one[name]["value"] for one in scores if one[name]["value"] is not None]
        if values:
            found[name] = {
                "mean": statistics.fmean(values),
                "low": min(values),
                "high": max(values),
                "folds": len(values),
                "n": sum(one[name]["n"] for one in scores),
            }
    return found
