"""One of several classes for a whole image."""

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
from ..evaluation import calibration as temperatures
from ..evaluation import classification as statistics
from ..evaluation.explain import Verdict, explained_picture
from ..evaluation.figures import CasePicture, FigureData
from ..evaluation.scores import BASELINE
from ..networks.heads import ClassificationHead
from ..plugin import Encoder
from .base import Calibration, ImageTask, Predictions, Scores


class Classification(ImageTask):
    """Exactly one class an image; with two classes the second is the finding.

    Args:
        classes: Names as in the data; upper and lower case do not matter.
        balance: `weights` weighs each class by the inverse of its share of the training cases.
        loss: `cross_entropy`, or `focal` (Lin et al. 2017, equation 4) with `gamma`.
        gamma: Focusing exponent of the focal loss.
        dropout: Of the pooled features.
    """

    key_metric = "auroc"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        balance: Literal["weights", "none"] = "weights",
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        gamma: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        self.classes = tuple(str(name) for name in classes)
        self._numbers = {name.casefold(): number for number, name in enumerate(self.classes)}
        if len(self._numbers) < 2 or len(self._numbers) != len(self.classes):
            raise ConfigError(
                "task.classes", f"{list(classes)}", "two or more different names", "list every class"
            )
        for key, value, accepted in (
            ("balance", balance, ("weights", "none")),
            ("loss", loss, ("cross_entropy", "focal")),
        ):
            if value not in accepted:
                raise ConfigError(f"task.{key}", str(value), " or ".join(accepted), f"change task.{key}")
        if gamma < 0 or not 0 <= dropout < 1:
            raise ConfigError(
                "task", f"gamma {gamma}, dropout {dropout}", "gamma >= 0, dropout in [0, 1)", "change it"
            )
        self._balance, self._loss, self._gamma, self._dropout = balance, loss, gamma, dropout
        self._weights: Tensor | None = None
        self._shares: list[float] | None = None  # cases a class in training: what the trivial rule knows

    def read_label(self, case: Case) -> int:
        """Number of the case's class."""
        name = str(case.label)
        if name.casefold() not in self._numbers:
            near = difflib.get_close_matches(name, self.classes, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            todo = f"{hint}correct the label, or add it: --set 'task.classes=[...]'"
            raise DataError(f"label of {case.id}", name, ", ".join(self.classes), todo)
        return self._numbers[name.casefold()]

    def class_of(self, case: Case) -> str:
        """Name of the case's class."""
        return self.classes[self.read_label(case)]

    def head(self, encoder: Encoder) -> nn.Module:
        """A linear head on the means of all stages."""
        return ClassificationHead(encoder.channels, len(self.classes), self._dropout)

    def prepare(self, targets: Tensor) -> None:
        """Class weights from the training targets: N / (classes x count), so that their mean over cases is 1."""
        counts = torch.bincount(targets, minlength=len(self.classes)).float()
        self._shares = counts.tolist()
        if self._balance == "weights":
            self._weights = targets.numel() / (len(self.classes) * counts.clamp_min(1))

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy or focal loss of logits (B, classes), weighted by class."""
        weights = None if self._weights is None else self._weights.to(output.device)
        if self._loss == "cross_entropy":
            return functional.cross_entropy(output.float(), target, weights, label_smoothing=label_smoothing)
        log_p = functional.log_softmax(output.float(), dim=1)
        each = functional.nll_loss(log_p, target, weights, reduction="none")
        if label_smoothing:
            each = (1 - label_smoothing) * each - label_smoothing * log_p.mean(1)
        p_true = log_p.gather(1, target[:, None]).squeeze(1).exp()
        return ((1 - p_true) ** self._gamma * each).mean()

    def activate(self, output: Tensor) -> Tensor:
        """Softmax over classes."""
        return output.softmax(dim=1)

    def measure(self, predictions: Predictions) -> float:
        """AUROC (one class against the rest, averaged, with more than two classes)."""
        assert predictions.labels is not None
        p = _softmax(predictions.outputs, 1.0)
        return statistics.auroc_of(predictions.labels, p)

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        """Temperature by likelihood on val, then the threshold by `rule` on the calibrated probabilities."""
        assert val.labels is not None
        temperature = float(temperatures.fit_temperature(val.outputs, val.labels))
        chosen: dict[str, Any] = {"temperature": temperature}
        if len(self.classes) == 2:
            p = _softmax(val.outputs, temperature)[:, 1]
            value = float(statistics.choose_threshold(val.labels, p, rule))
            chosen["threshold"] = {"value": value, "from": f"val, {rule}"}
        return chosen

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        """Softmax of the logits divided by the temperature."""
        p = _softmax(predictions.outputs, float(calibration.get("temperature", 1.0)))
        return dataclasses.replace(predictions, probabilities=p)

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        """Every score of each split, beside the majority class."""
        threshold = _threshold(calibration)
        scores: Scores = {
            "task": "Classification",
            "key_metric": self.key_metric,
            "classes": list(self.classes),
            "baseline_rule": BASELINE,
        }
        if len(self.classes) > 2:
            scores["averaged"] = "Each score is the mean over the classes, each against the rest."
        scores.update(calibration)
        scores["baseline"] = {}
        for name, one in finished.items():
            assert one.labels is not None
            assert one.probabilities is not None
            found = statistics.scores_of(
                one.labels,
                one.probabilities,
                one.patients,
                classes=self.classes,
                threshold=threshold,
                seed=seed,
            )
            scores[name] = {key: value.to_plain() for key, value in found.items()}
            base = statistics.baseline_of(
                one.labels, one.patients, classes=self.classes, shares=self._shares, seed=seed
            )
            scores["baseline"][name] = {key: value.to_plain() for key, value in base.items()}
        scores["alarms"] = statistics.alarms_of(scores)
        return scores

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        """ROC, precision-recall, confusion and reliability of the test cases."""
        one = finished["test"]
        assert one.labels is not None
        assert one.probabilities is not None
        return statistics.figures_of(
            one.labels,
            one.probabilities,
            one.patients,
            classes=self.classes,
            threshold=_threshold(calibration),
        )

    def pictures(
        self,
        network: nn.Module,
        image_of: Callable[[int], Tensor],
        finished: Predictions,
        calibration: Calibration,
        count: int,
    ) -> Iterator[CasePicture]:
        """Cases by the probability of their true class: highest, turn by turn among the classes, and lowest."""
        assert finished.labels is not None
        assert finished.probabilities is not None
        p, labels = finished.probabilities, finished.labels
        p_true = p[np.arange(len(labels)), labels]
        predicted = self._decide(p, calibration)
        order = np.argsort(p_true, kind="stable")
        by_class = [[i for i in order[::-1] if labels[i] == number] for number in range(len(self.classes))]
        turns = [group[turn] for turn in range(count) for group in by_class if turn < len(group)]
        best = [int(i) for i in turns[:count]]
        worst = [int(i) for i in order[:count] if int(i) not in best]
        for group, rows in (("best", best), ("worst", worst)):
            for row in rows:
                said = int(predicted[row])
                verdict = Verdict(
                    true=self.classes[int(labels[row])],
                    called=self.classes[said],
                    probability=float(p[row, said]),
                    output=said,
                )
                yield explained_picture(network, image_of(row), verdict, group=group, index=row)

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        """Case, file, label where known, a probability per class, the class said."""
        assert finished.probabilities is not None
        predicted = self._decide(finished.probabilities, calibration)
        rows: list[dict[str, object]] = []
        for i, name in enumerate(finished.ids):
            row: dict[str, object] = {"case": name, "file": finished.files[i]}
            row["label"] = "" if finished.labels is None else self.classes[int(finished.labels[i])]
            for number, class_name in enumerate(self.classes):
                row[f"p_{class_name}"] = round(float(finished.probabilities[i, number]), 9)
            row["predicted"] = self.classes[int(predicted[i])]
            rows.append(row)
        return rows

    def _decide(self, p: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Class numbers: by threshold on the finding with two classes, else the most probable."""
        if len(self.classes) == 2:
            return np.asarray((p[:, 1] >= _threshold(calibration)).astype(np.int64))
        return np.asarray(p.argmax(1))


def _threshold(calibration: Calibration) -> float:
    return float(calibration.get("threshold", {}).get("value", 0.5))


def _softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """In float64, as float32 saturates at 1.0 and ties cost AUROC."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    exponent = np.exp(scaled)
    return np.asarray(exponent / exponent.sum(1, keepdims=True))
