"""Several findings in one image, each there, not there, or unknown."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.cases import Case
from ..errors import ConfigError, DataError
from ..evaluation import findings as statistics
from ..evaluation.explain import Verdict, explained_picture
from ..evaluation.figures import CasePicture, FigureData
from ..evaluation.scores import alarms_of
from ..networks.heads import ClassificationHead
from ..plugin import Encoder
from .base import Calibration, ImageTask, Predictions, Scores

_MOST_WEIGHT = 20.0  # of a rare finding's cases: more, and single images decide the gradient


class Findings(ImageTask):
    """Any number of findings an image; unknown ones count neither in the loss nor in the scores.

    Args:
        classes: The findings, named as in the data; upper and lower case do not matter.
        balance: `weights` weighs the cases with a finding by (cases without) / (cases with), at most 20; probabilities
            then come out too high. `none` leaves them as frequent as they are.
        dropout: Of the pooled features.
    """

    key_metric = "auroc"

    def __init__(
        self, classes: Sequence[str], *, balance: Literal["weights", "none"] = "none", dropout: float = 0.0
    ) -> None:
        self.classes = tuple(str(name) for name in classes)
        folded = [name.casefold() for name in self.classes]
        if not folded or len(set(folded)) != len(folded):
            raise ConfigError(
                "task.classes", f"{list(classes)}", "different names", "list every finding once"
            )
        if balance not in ("weights", "none"):
            raise ConfigError("task.balance", str(balance), "weights or none", "change task.balance")
        if not 0 <= dropout < 1:
            raise ConfigError("task.dropout", str(dropout), "from 0 to below 1", "change task.dropout")
        self._balance, self._dropout = balance, dropout
        self._weights: Tensor | None = None
        self._head: ClassificationHead | None = None  # the last one made
        self._shares: np.ndarray | None = None  # of each finding in training: what the trivial rule knows

    def read_label(self, case: Case) -> list[float]:
        """1, 0 or NaN (unknown) for each finding."""
        if not isinstance(case.label, Mapping):
            todo = "name the columns of the label table: data.findings"
            raise DataError(
                f"label of {case.id}", "no findings", "a column of 0 and 1 for each finding", todo
            )
        known = {name.casefold(): value for name, value in case.label.items()}
        row = []
        for name in self.classes:
            if name.casefold() not in known:
                near = difflib.get_close_matches(name, list(case.label), 1)
                todo = f"did you mean {near[0]}?" if near else "correct task.classes or data.findings"
                raise DataError(f"label of {case.id}", f"no finding `{name}`", ", ".join(case.label), todo)
            value = known[name.casefold()]
            row.append(float("nan") if value is None else float(value))
        return row

    def class_of(self, case: Case) -> str:
        """What is there, joined by `; `, or `none`. Splits keep each finding in proportion, not these groups."""
        row = self.read_label(case)
        return "; ".join(name for name, value in zip(self.classes, row, strict=True) if value == 1) or "none"

    def head(self, encoder: Encoder) -> nn.Module:
        """A linear head on the means of all stages, one output a finding."""
        self._head = ClassificationHead(encoder.channels, len(self.classes), self._dropout)
        return self._head

    def prepare(self, targets: Tensor) -> None:
        """Shares and weights of findings from the training targets (N, K); the head begins with the shares.

        From 0.5 a head needs many epochs to learn that a finding is rare, and no temperature mends what is left.

        Raises:
            DataError: A finding that no training case has, or that all have.
        """
        there, known = (targets == 1).sum(0).float(), targets.isfinite().sum(0).float()
        poor = [
            f"{name} ({int(there[number])} of {int(known[number])} known)"
            for number, name in enumerate(self.classes)
            if there[number] in (0, known[number])
        ]
        if poor:
            seen = f"training cases cannot teach {', '.join(poor)}"
            todo = "leave it out of task.classes, or add cases"
            raise DataError("data", seen, "cases with and without each finding", todo)
        self._shares = (there / known).double().numpy()
        if self._balance == "weights":
            self._weights = ((known - there) / there).clamp(1 / _MOST_WEIGHT, _MOST_WEIGHT)
        elif self._head is not None:
            with torch.no_grad():
                self._head.linear.bias.copy_((there / known).logit())

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy of logits (B, K), mean over what is known; 0 where nothing is."""
        weights = None if self._weights is None else self._weights.to(output.device)
        known = target.isfinite()
        # NaN must not reach the loss: its gradient would be NaN even where it is masked afterwards.
        truth = torch.where(known, target, torch.zeros_like(target)).float()
        if label_smoothing:
            truth = truth * (1 - label_smoothing) + label_smoothing / 2
        each = functional.binary_cross_entropy_with_logits(
            output.float(), truth, pos_weight=weights, reduction="none"
        )
        return (each * known).sum() / known.sum().clamp_min(1)

    def activate(self, output: Tensor) -> Tensor:
        """A sigmoid each."""
        return output.sigmoid()

    def measure(self, predictions: Predictions) -> float:
        """Mean AUROC over the findings that have one."""
        assert predictions.labels is not None
        return statistics.mean_auroc(
            predictions.labels.astype(np.float64), predictions.outputs.astype(np.float64)
        )

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        """One temperature for all findings, then a threshold for each by `rule`, both on val."""
        assert val.labels is not None
        labels = val.labels.astype(np.float64)
        temperature = statistics.fit_shared_temperature(val.outputs.astype(np.float64), labels)
        chosen = statistics.choose_thresholds(labels, _sigmoid(val.outputs, temperature), rule)
        by_name = dict(zip(self.classes, chosen, strict=True))
        return {"temperature": temperature, "threshold": {"by_finding": by_name, "from": f"val, {rule}"}}

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        """Sigmoid of the logits divided by the temperature."""
        p = _sigmoid(predictions.outputs, float(calibration.get("temperature", 1.0)))
        return dataclasses.replace(predictions, probabilities=p)

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        """Mean scores of each split, those of each finding, and the trivial rule: each finding by its share."""
        scores: Scores = {
            "task": "Findings",
            "key_metric": self.key_metric,
            "classes": list(self.classes),
            "baseline_rule": "each finding by its share of the training cases",
            "averaged": "Each score is the mean over the findings, each on the cases in which it is known.",
        }
        scores.update(calibration)
        scores["baseline"], scores["by_finding"] = {}, {}
        for name, one in finished.items():
            found = self._scores_of(one, calibration, seed=seed)
            scores[name] = {key: value.to_plain() for key, value in found.mean.items()}
            scores["by_finding"][name] = {
                finding: {key: value.to_plain() for key, value in own.items()}
                for finding, own in found.by_finding.items()
            }
            base = statistics.findings_scores(
                _labels(one),
                np.tile(self._constant(one), (len(one.ids), 1)),
                one.patients,
                names=self.classes,
                thresholds=[0.5] * len(self.classes),
                seed=seed,
            )
            scores["baseline"][name] = {key: value.to_plain() for key, value in base.mean.items()}
        scores["alarms"] = alarms_of(scores)
        return scores

    def _constant(self, one: Predictions) -> np.ndarray:
        """Share of each finding in training; of the split itself where training is not known."""
        if self._shares is not None:
            return self._shares
        labels = _labels(one)
        known = (~np.isnan(labels)).sum(0)
        return np.asarray(np.nan_to_num(labels).sum(0) / np.maximum(known, 1))

    def _scores_of(
        self, one: Predictions, calibration: Calibration, *, seed: int
    ) -> statistics.FindingScores:
        assert one.probabilities is not None
        return statistics.findings_scores(
            _labels(one),
            one.probabilities,
            one.patients,
            names=self.classes,
            thresholds=self._thresholds(calibration),
            seed=seed,
        )

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        """Scores by finding, ROC, precision-recall and reliability of the test cases."""
        one = finished["test"]
        assert one.probabilities is not None
        return statistics.findings_figures(
            _labels(one),
            one.probabilities,
            one.patients,
            names=self.classes,
            scores=self._scores_of(one, calibration, seed=0),
            thresholds=self._thresholds(calibration),
        )

    def pictures(
        self,
        network: nn.Module,
        image_of: Callable[[int], Tensor],
        finished: Predictions,
        calibration: Calibration,
        count: int,
    ) -> Iterator[CasePicture]:
        """Cases by how far on the right side of its threshold a finding lies: rightly called, and most wrong."""
        assert finished.probabilities is not None
        labels, p = _labels(finished), finished.probabilities
        limits = np.asarray(self._thresholds(calibration))
        margin = _logit(p) - _logit(limits)
        signed = np.where(np.isnan(labels), np.nan, np.where(labels == 1, margin, -margin))
        hits = np.where(labels == 1, signed, np.nan)  # what is found is worth a picture, not what is absent
        best = [pair for pair in _ranked(hits, largest=True) if hits[pair] > 0][:count]
        taken = {row for row, _ in best}
        worst = [pair for pair in _ranked(signed, largest=False) if pair[0] not in taken][:count]
        for group, pairs in (("best", best), ("worst", worst)):
            for row, number in pairs:
                is_called, value = bool(p[row, number] >= limits[number]), float(p[row, number])
                verdict = Verdict(
                    true=self._words(number, bool(labels[row, number] == 1)),
                    called=self._words(number, is_called),
                    probability=value if is_called else 1 - value,
                    output=number,
                    explained=self.classes[number],
                )
                yield explained_picture(network, image_of(row), verdict, group=group, index=row)

    def _words(self, number: int, is_there: bool) -> str:
        return self.classes[number] if is_there else f"no {self.classes[number]}"

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        """Case, file, what is there, a probability a finding, and which are called."""
        assert finished.probabilities is not None
        limits = np.asarray(self._thresholds(calibration))
        rows: list[dict[str, object]] = []
        for i, name in enumerate(finished.ids):
            row: dict[str, object] = {"case": name, "file": finished.files[i]}
            row["label"] = "" if finished.labels is None else self._listed(finished.labels[i])
            for number, finding in enumerate(self.classes):
                row[f"p_{finding}"] = round(float(finished.probabilities[i, number]), 9)
            row["predicted"] = self._listed((finished.probabilities[i] >= limits).astype(float))
            rows.append(row)
        return rows

    def _listed(self, values: np.ndarray) -> str:
        """Findings that are there, those unknown with a question mark."""
        words = [
            name if value == 1 else f"{name}?"
            for name, value in zip(self.classes, values, strict=True)
            if value == 1 or np.isnan(value)
        ]
        return "; ".join(words) or "none"

    def _thresholds(self, calibration: Calibration) -> list[float]:
        by_name = calibration.get("threshold", {}).get("by_finding", {})
        return [float(by_name.get(name, 0.5)) for name in self.classes]


def _labels(one: Predictions) -> np.ndarray:
    assert one.labels is not None
    return np.asarray(one.labels, dtype=np.float64)


def _sigmoid(logits: np.ndarray, temperature: float) -> np.ndarray:
    """In float64, as float32 saturates at 1.0 and ties cost AUROC."""
    scaled = logits.astype(np.float64) / temperature
    return np.asarray(np.exp(-np.logaddexp(0.0, -scaled)))


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _ranked(values: np.ndarray, *, largest: bool) -> list[tuple[int, int]]:
    """(row, finding) pairs by their value, the first of each row; what is not known is left out."""
    order = np.argsort(-values if largest else values, axis=None, kind="stable")
    seen: set[int] = set()
    pairs = []
    for place in order:
        row, number = divmod(int(place), values.shape[1])
        if row not in seen and not np.isnan(values[row, number]):
            seen.add(row)
            pairs.append((row, number))
    return pairs
