"""A third kind of question, in one file: how sick is it, as a number. Nothing else of medxfer knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from medxfer.data.cases import Case
from medxfer.evaluation.figures import CasePicture, FigureData
from medxfer.networks.heads import ClassificationHead
from medxfer.plugin import Encoder
from medxfer.tasks.base import Calibration, ImageTask, Predictions, Scores


class Severity(ImageTask):
    """One number an image; 0 for `normal`, 1 for everything else."""

    key_metric = "agreement"

    def __init__(self, classes: Sequence[str] = ("severity",)) -> None:
        self.classes = tuple(classes)

    def read_label(self, case: Case) -> float:
        return 0.0 if case.label == "normal" else 1.0

    def class_of(self, case: Case) -> str:
        return str(case.label)

    def head(self, encoder: Encoder) -> nn.Module:
        return ClassificationHead(encoder.channels, 1)

    def prepare(self, targets: Tensor) -> None:
        pass

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return functional.mse_loss(output[:, 0].float(), target.float())

    def activate(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def measure(self, predictions: Predictions) -> float:
        assert predictions.labels is not None
        return -float(np.abs(predictions.outputs[:, 0] - predictions.labels).mean())

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        return {}

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        return dataclasses.replace(predictions, probabilities=predictions.outputs)

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        found: Scores = {
            "task": "Severity",
            "key_metric": self.key_metric,
            "classes": [],
            "alarms": [],
            "baseline": {},
        }
        for name, one in finished.items():
            value = {"value": self.measure(one), "low": -1.0, "high": 0.0}
            found[name] = {"agreement": {**value, "n": len(one.ids), "patients": len(set(one.patients))}}
        return found

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        return []

    def pictures(
        self,
        network: nn.Module,
        image_of: Callable[[int], Tensor],
        finished: Predictions,
        calibration: Calibration,
        count: int,
    ) -> list[CasePicture]:
        facts = {"severity": f"{float(finished.outputs[0, 0]):.2f}"}
        return [CasePicture(group="best", index=0, image=image_of(0).numpy(), facts=facts)]

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        return [
            {"case": name, "file": finished.files[i], "label": "", "severity": float(finished.outputs[i, 0])}
            for i, name in enumerate(finished.ids)
        ]
