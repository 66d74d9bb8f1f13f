"""What a task is: everything that differs between kinds of question, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from ..data.cases import Case
from ..evaluation.figures import FigureData
from ..plugin import Encoder

Scores = dict[str, Any]  # the content of scores.json: plain data
Calibration = Mapping[str, Any]  # what was chosen on val and is applied to everything after: plain data


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a network said of some cases.

    Attributes:
        ids: Case ids.
        files: File names as the user knows them.
        patients: Patient per case; intervals go by this.
        labels: (N, ...) as `Task.read_label` gives them, or None where unknown.
        outputs: (N, ...) float32, what the network gave (logits).
        probabilities: (N, ...) float32 after `Task.finish`, else `None`.
    """

    ids: tuple[str, ...]
    files: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray | None
    outputs: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """A case worth a picture in the report."""

    group: Literal["best", "worst"]
    index: int  # row of the Predictions
    label: str
    predicted: str
    probability: float  # of `predicted`
    target: int  # output whose evidence is shown


class Task(Protocol):
    """One kind of question. The pipeline and the training loop never ask which."""

    classes: tuple[str, ...]
    key_metric: str  # name in the scores; higher is better
    label_kind: Literal["none", "map"]  # does the label move with the image?

    def read_label(self, case: Case) -> Any:
        """The label as a number or array that `loss` takes; DataError when it is none of the classes."""

    def class_of(self, case: Case) -> str:
        """The group that splits keep in proportion."""

    def head(self, encoder: Encoder) -> nn.Module:
        """A new head or decoder for this encoder (networks.network.Head)."""

    def prepare(self, targets: Tensor) -> None:
        """See the training targets once before training, for class weights."""

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def activate(self, output: Tensor) -> Tensor:
        """Outputs to probabilities."""

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Outputs for one batch of images, in fp32."""

    def measure(self, predictions: Predictions) -> float:
        """The key metric alone, without interval: cheap enough for every epoch."""

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        """Threshold, temperature: everything that is chosen on val."""

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        """Fill in the probabilities."""

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        """Scores with intervals for each split, the trivial baseline and alarms."""

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        """What the report draws."""

    def highlights(self, finished: Predictions, calibration: Calibration, count: int) -> list[Highlight]:
        """The best and worst cases."""

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        """One CSV row a case."""

    def write(self, finished: Predictions, index: int, folder: Path) -> Path | None:
        """A file for one case (a mask), or None where the CSV row says it all."""


def select(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Some cases of a set of predictions."""
    pick = list(rows)
    return Predictions(
        ids=tuple(predictions.ids[i] for i in pick),
        files=tuple(predictions.files[i] for i in pick),
        patients=tuple(predictions.patients[i] for i in pick),
        labels=None if predictions.labels is None else predictions.labels[pick],
        outputs=predictions.outputs[pick],
        probabilities=None if predictions.probabilities is None else predictions.probabilities[pick],
    )
