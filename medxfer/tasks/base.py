"""What a task is: everything that differs between kinds of question, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..bundle.schema import Bundle
from ..data.cache import Arrays
from ..data.cases import Case
from ..data.masks import MaskRule, Origin
from ..data.sampling import AXES
from ..errors import ConfigError
from ..evaluation.figures import CasePicture, FigureData
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
        labels: (N, ...) as `Task.read_label` gives them, or None where unknown, and where labels are maps.
        outputs: What the task keeps of each: (N, ...) float32 logits, or a list.
        probabilities: (N, ...) float32 after `Task.finish`, else `None`.
    """

    ids: tuple[str, ...]
    files: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray | None
    outputs: Any
    probabilities: np.ndarray | None = None


class Task(Protocol):
    """One kind of question. The pipeline and the training loop never ask which."""

    classes: tuple[str, ...]
    key_metric: str  # name in the scores; higher is better
    label_kind: Literal["none", "map"]  # does the label move with the image?
    masks: MaskRule | None  # how mask files become maps, where labels are maps
    flips: tuple[int, ...]  # axes over which mirrored images are averaged when the network is asked

    def read_label(self, case: Case) -> Any:
        """The label as a number or array that `loss` takes, or its mask; DataError when it is none of the classes."""

    def class_of(self, case: Case) -> str:
        """The group that splits keep in proportion."""

    def head(self, encoder: Encoder) -> nn.Module:
        """A new head or decoder for this encoder (networks.network.Head)."""

    def prepare(self, targets: Any) -> None:
        """See the training targets once before training, for class weights: a tensor, or a sequence of maps."""

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def activate(self, output: Tensor) -> Tensor:
        """Outputs to probabilities."""

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Outputs for one batch of images of any size, in fp32."""

    def validate(self, answered: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Loss and key metric over batches of outputs and targets, without interval: cheap enough for every epoch."""

    def keep(self, outputs: Tensor, targets: Tensor | None, origins: Sequence[Origin]) -> Any:
        """What is kept of each case of a batch until all are scored: an array or a list, which `joined` joins."""

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        """Threshold, temperature: everything that is chosen on val."""

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        """Fill in the probabilities."""

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        """Scores with intervals for each split, the trivial baseline and alarms."""

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        """What the report draws."""

    def pictures(
        self,
        network: nn.Module,
        image_of: Callable[[int], Tensor],
        finished: Predictions,
        calibration: Calibration,
        count: int,
    ) -> Iterable[CasePicture]:
        """The best and worst cases, `count` of each at most; one at a time, as volumes are large.

        `image_of` gives the image (C, *spatial) of a row as the network gets it, in [0, 1].
        """

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        """One CSV row a case."""

    def write(self, finished: Predictions, index: int, folder: Path) -> tuple[Path, ...]:
        """Files for one case (a mask), or none where the CSV row says it all."""

    def write_probabilities(self, outputs: Tensor, origin: Origin, folder: Path, name: str) -> Path | None:
        """The probabilities of one case of a batch as a file, or None where the CSV row has them.

        Called last: `outputs` may be overwritten, as those of a volume are too large to be held twice.
        """

    def answer(self) -> RowAnswer | MaskAnswer:
        """What is said of an image, as plain data: the export writes it in its own way."""


class ImageTask:
    """What all tasks share whose answer is a few numbers an image.

    A task of this kind adds `classes`, `key_metric`, `loss` and the rest of `Task`, and `measure`.
    """

    classes: tuple[str, ...]
    label_kind: Literal["none", "map"] = "none"
    masks: MaskRule | None = None
    flips: tuple[int, ...] = ()

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch."""
        raise NotImplementedError

    def measure(self, predictions: Predictions) -> float:
        """The key metric of labelled predictions."""
        raise NotImplementedError

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits of one batch."""
        logits: Tensor = network(images)
        return logits.float()

    def validate(self, answered: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Loss and key metric of all cases at once: neither is a mean over batches."""
        outputs, targets = (torch.cat(parts) for parts in zip(*answered, strict=True))
        loss = self.loss(outputs, targets)
        found = Predictions(
            ids=(), files=(), patients=(), labels=targets.cpu().numpy(), outputs=outputs.cpu().numpy()
        )
        return float(loss), self.measure(found)

    def keep(self, outputs: Tensor, targets: Tensor | None, origins: Sequence[Origin]) -> np.ndarray:
        """The outputs (B, ...)."""
        kept: np.ndarray = outputs.float().cpu().numpy()
        return kept

    def write(self, finished: Predictions, index: int, folder: Path) -> tuple[Path, ...]:
        """Nothing: the CSV row says it all."""
        return ()

    def write_probabilities(self, outputs: Tensor, origin: Origin, folder: Path, name: str) -> Path | None:
        """Nothing: the CSV row has them."""
        return None

    def answer(self) -> RowAnswer:
        """A probability a class."""
        return RowAnswer(classes=self.classes)


def labels_of(task: Task, arrays: Arrays) -> Tensor | None:
    """A label per row of the arrays; None where their maps are the labels.

    Raises:
        DataError: A label that is none of the classes.
    """
    if task.masks is not None:
        return None
    return torch.as_tensor([task.read_label(case) for case in arrays.cases])


def require_fitting(task: Task, bundle: Bundle) -> None:
    """Refuse a bundle whose images are not made for its task.

    Raises:
        ConfigError: Patches without masks, masks of slices, or mirrored axes that images do not have or that are one
            voxel thick.
    """
    dims = bundle.images.dims
    if any(axis >= dims for axis in task.flips):
        accepted = ", ".join(map(str, range(dims)))
        todo = f"images.dims is {dims}: name axes below {dims}"
        raise ConfigError("task.flips", f"{list(task.flips)}", accepted, todo)
    if bundle.images.thin in task.flips:
        seen = f"axis {bundle.images.thin}, along which images.size is 1: mirrored planes are the same planes"
        accepted = ", ".join(str(axis) for axis in range(dims) if axis != bundle.images.thin)
        raise ConfigError("task.flips", seen, accepted, "leave this axis out")
    if task.masks is None and bundle.images.patches is not None:
        todo = "remove images.patches, or segment: task: {_target_: Segmentation, ...}"
        raise ConfigError("images.patches", "patches, but labels of whole images", "masks", todo)
    if task.masks is not None and bundle.data.slices is not None:
        size = list(bundle.images.shape[:2])
        size.insert(AXES[bundle.data.slices.plane], 1)
        todo = (
            f"to segment {bundle.data.slices.plane} slices of volumes remove data.slices and set images.dims=3, "
            f"images.size={size} and images.patches={{count: 16}}: a 2D network sees one plane at a time"
        )
        raise ConfigError(
            "data.slices", "slices cut from volumes, and masks", "whole volumes or pictures", todo
        )


def joined(kept: Sequence[Sequence[Any]]) -> Any:
    """What `Task.keep` gave batch by batch as one array, or one list."""
    if kept and all(isinstance(part, np.ndarray) for part in kept):
        return np.concatenate(list(kept))
    return [one for part in kept for one in part]


def select(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Some cases of a set of predictions."""
    pick, outputs = list(rows), predictions.outputs
    return Predictions(
        ids=tuple(predictions.ids[i] for i in pick),
        files=tuple(predictions.files[i] for i in pick),
        patients=tuple(predictions.patients[i] for i in pick),
        labels=None if predictions.labels is None else predictions.labels[pick],
        outputs=outputs[pick] if isinstance(outputs, np.ndarray) else [outputs[i] for i in pick],
        probabilities=None if predictions.probabilities is None else predictions.probabilities[pick],
    )


def named(files: Sequence[Path], root: Path) -> str:
    """Files of an answer as one cell of a table."""
    return ";".join(path.relative_to(root).as_posix() for path in files)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAnswer:
    """The answer for an image is a row: a probability a class.

    Attributes:
        classes: Names, in the order of the outputs.
    """

    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAnswer:
    """The answer for an image is a mask on the grid of its file.

    Attributes:
        classes: Foreground names. Without a threshold the outputs are the background and these, one of which a voxel is
            (softmax); with one there is an output for each, and they may overlap (sigmoid).
        threshold: From which probability on a voxel belongs to a class; None: to the most probable one.
        overlap: Of neighbouring windows, where an image is larger than what the network sees; 0 to below 1.
        keep_largest: Of each class only the largest connected part stays.
        fill_holes: Holes in each class are filled, after that.
    """

    classes: tuple[str, ...]
    threshold: float | None = None
    overlap: float = 0.25
    keep_largest: bool = False
    fill_holes: bool = False
