"""A class for every pixel or voxel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..data.cases import Case
from ..data.masks import IGNORED, MaskRule, Origin, truth_on_file
from ..data.names import file_stems
from ..data.patches import counts_of
from ..data.regrid import affine_of_box, called_box, decided_on_grid
from ..data.writers import PROBABILITIES, volume_row, write_mask, write_probabilities
from ..errors import DataError
from ..evaluation.figures import CasePicture, FigureData
from ..evaluation.lesions import LesionRule
from ..evaluation.mean_mask import RULE, MeanMask
from ..evaluation.scores import alarms_of
from ..evaluation.segmentation import Case as Measured
from ..evaluation.segmentation import measure_case, scores_by_class, scores_of_cases
from ..evaluation.segmentation_figures import figures_of_cases
from ..evaluation.segmentation_pictures import pictures_of_cases
from ..networks.decoder import Decoder
from ..networks.windows import predict_windows
from ..plugin import Encoder
from .base import Calibration, MaskAnswer, Predictions, Scores
from .mask_losses import mask_loss, shrunk
from .mask_options import by_value, require_classes, require_decoder, require_numbers, require_regions
from .masked import cleaned, dice_counts, mean_of_counts, stacked
from .segmented import Packed, Segmented

_LOG = logging.getLogger(__name__)


class Segmentation:
    """A class number for each voxel, or several overlapping regions.

    Args:
        classes: Foreground names; class k of the list has the number k + 1 in the masks, 0 is the background.
        values: How values of mask files become classes: `number`, `nonzero` (one class, whatever above 0), or class
            name -> list of values.
        regions: Name -> classes that belong to it; regions may overlap, each is an output of its own. None: the
            classes themselves, of which each voxel has one.
        ignore: Value of voxels that count on neither side.
        loss: `dice_ce`, `dice_focal` or `tversky`.
        decoder: Arguments of `Decoder`: width, attention, deep_supervision, dropout.
        overlap: Share of a window that the next one covers too, where an image is larger than `images.size`.
        flips: Axes over which predictions of mirrored images are averaged (test-time flips).
        keep_largest: Of each class only the largest connected part is kept.
        fill_holes: Holes in each class are filled.
        tolerance: Of the surface Dice, in mm (pixels where the spacing is unknown).
        lesions: Count single lesions of each class too.
    """

    key_metric = "dice"
    label_kind: Literal["none", "map"] = "map"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        values: Literal["number", "nonzero"] | Mapping[str, Sequence[int]] = "number",
        regions: Mapping[str, Sequence[str]] | None = None,
        ignore: int | None = None,
        loss: Literal["dice_ce", "dice_focal", "tversky"] = "dice_ce",
        decoder: Mapping[str, Any] | None = None,
        overlap: float = 0.25,
        flips: Sequence[int] = (),
        keep_largest: bool = False,
        fill_holes: bool = False,
        tolerance: float = 2.0,
        lesions: bool = False,
    ) -> None:
        named = tuple(str(name) for name in classes)
        require_classes(named, values, ignore)
        require_regions(regions, named)
        require_numbers(loss, overlap, tolerance, flips)
        require_decoder(decoder or {})
        self.masks: MaskRule | None = MaskRule(
            classes=len(named),
            values=None if isinstance(values, str) else by_value(values, named),
            nonzero=values == "nonzero",
            ignore=ignore,
        )
        self.flips = tuple(flips)
        self.classes = named if regions is None else tuple(regions)
        self._exclusive = regions is None
        self._members = [
            [named.index(name) + 1 for name in own]
            for own in (regions.values() if regions is not None else [[name] for name in named])
        ]
        self._loss = mask_loss(loss, self._members, exclusive=self._exclusive)
        self._decoder, self._overlap, self._tolerance = dict(decoder or {}), overlap, tolerance
        self._clean = {"keep_largest": keep_largest, "fill_holes": fill_holes}
        self._lesions = LesionRule() if lesions else None
        self._mean: MeanMask | None = None  # of the training masks: what the trivial rule knows

    def read_label(self, case: Case) -> Path:
        """The path of the case's mask."""
        if not isinstance(case.label, Path):
            todo = "put masks into a folder beside the images, or name their column in the label table"
            raise DataError(f"label of {case.id}", "no mask", "a mask for each case", todo)
        return case.label

    def class_of(self, case: Case) -> str:
        """One group: splits look at patients only."""
        return "with mask"

    def head(self, encoder: Encoder) -> nn.Module:
        """A U-Net decoder."""
        outputs = len(self.classes) + (1 if self._exclusive else 0)
        return Decoder(encoder.channels, encoder.strides, encoder.in_channels, outputs, **self._decoder)

    def prepare(self, targets: Sequence[np.ndarray]) -> None:
        """The mean mask, for the trivial rule.

        Raises:
            DataError: A class that no training mask has.
        """
        counts = sum(counts_of(one) for one in targets)
        absent = [
            name
            for name, own in zip(self.classes, self._members, strict=True)
            if not np.asarray(counts)[own].any()
        ]
        if absent:
            what = (
                "only background" if len(absent) == len(self.classes) else f"no voxel of {', '.join(absent)}"
            )
            todo = "check task.values against the mask files (`medxfer inspect MASK`), or leave the class out"
            raise DataError("training masks", what, "voxels of every class", todo)
        self._mean = MeanMask.of(targets, self._members)

    def loss(self, output: Tensor | list[Tensor], target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The loss of logits (B, K + 1, *spatial) and maps (B, *spatial).

        Of deep supervision the mean over resolutions, each weighing half as much as the next finer one. Labels are
        not smoothed: Dice has no use for it.
        """
        outputs = [output] if isinstance(output, Tensor) else output
        weights = [0.5**number for number in range(len(outputs))]
        losses = [
            weight * self._loss(one, shrunk(target, one.shape[2:]))
            for weight, one in zip(weights, outputs, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)

    def activate(self, output: Tensor) -> Tensor:
        """Softmax over background and classes; of regions a sigmoid each."""
        return output.softmax(dim=1) if self._exclusive else output.sigmoid()

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits of whole images, by sliding window where they are larger than what the network saw."""
        return predict_windows(network, images, network.window, overlap=self._overlap)  # type: ignore[arg-type]

    def validate(self, answered: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Mean loss and mean foreground Dice on the grid of the network, before anything is cleaned."""
        total, cases = 0.0, 0
        counts: list[np.ndarray] = []
        for outputs, maps in answered:
            total += float(self.loss(outputs, maps)) * len(maps)
            cases += len(maps)
            counts += dice_counts(self._called(outputs), maps, self._members)
        return total / max(1, cases), mean_of_counts(counts)

    def _called(self, outputs: Tensor) -> Tensor:
        """Boolean (B, K, *spatial) of logits."""
        if not self._exclusive:
            return outputs > 0
        best = outputs.argmax(1)
        return torch.stack([best == number for number in range(1, outputs.shape[1])], 1)

    def keep(self, outputs: Tensor, targets: Tensor | None, origins: Sequence[Origin]) -> list[Segmented]:
        """Masks on the files' own grids, compressed, and what they measure."""
        return [
            self._kept(output, None if targets is None else targets[number], origin)
            for number, (output, origin) in enumerate(zip(outputs, origins, strict=True))
        ]

    def _kept(self, logits: Tensor, target: Tensor | None, origin: Origin) -> Segmented:
        assert self.masks is not None
        grid, threshold = origin.grid(), None if self._exclusive else 0.5
        seen = self._called(logits[None])[0].cpu().numpy()
        box = called_box(
            np.asarray(seen.any(0))
        )  # probabilities of a whole CT take as much memory as its windows
        p = self.activate(logits[(None, slice(None), *box)])[0].cpu().numpy()
        affine = affine_of_box(origin.affine, box)
        mask = cleaned(decided_on_grid(p, affine, grid, threshold=threshold), **self._clean)
        measures = trivial = true = None
        if target is not None:
            numbers = truth_on_file(origin.case, grid, self.masks, origin.policy)
            counts = numbers != IGNORED
            measures = measure_case(
                stacked(mask, len(self.classes)) & counts,
                np.stack([np.isin(numbers, own) for own in self._members]),
                classes=self.classes, spacing=grid.spacing, tolerance=self._tolerance, lesions=self._lesions,
            )  # fmt: skip
            seen_truth = np.stack([np.isin(target.cpu().numpy(), own) for own in self._members])
            true = Packed.of(seen_truth)
            if self._mean is not None:
                counted = target.cpu().numpy() != IGNORED
                trivial = self._mean.measure(seen_truth, counted, classes=self.classes)
        return Segmented(
            origin=origin,
            mask=Packed.of(mask),
            seen=Packed.of(seen),
            true=true,
            sizes=volume_row(mask, grid, self.classes),
            measures=measures,
            trivial=trivial,
        )

    def calibrate(self, val: Predictions, rule: str) -> dict[str, Any]:
        """Nothing: the most probable class, or a half, is what Dice was trained for."""
        return {}

    def finish(self, predictions: Predictions, calibration: Calibration) -> Predictions:
        """Nothing is left to do."""
        return predictions

    def score(self, finished: Mapping[str, Predictions], calibration: Calibration, *, seed: int) -> Scores:
        """Means over classes and for each class, beside the mean training mask."""
        scores: Scores = {
            "task": "Segmentation", "key_metric": self.key_metric, "classes": list(self.classes),
            "averaged": "Each score is the mean over the cases that have the class."
            if len(self.classes) == 1
            else "Each score is the mean over the classes, each over the cases that have it.",
            "stated": self._stated(), "baseline": {}, "by_class": {}, "alarms": [],
        }  # fmt: skip
        if self._mean is not None:
            scores["baseline_rule"] = RULE
        for name, one in finished.items():
            cases = _measures(one)
            found = scores_of_cases(cases, one.patients, seed=seed)
            scores[name] = {key: value.to_plain() for key, value in found.items()}
            scores["by_class"][name] = {
                label: {key: value.to_plain() for key, value in own.items()}
                for label, own in scores_by_class(cases, one.patients, seed=seed).items()
            }
            trivial = [case.trivial for case in one.outputs if case.trivial is not None]
            if trivial:
                base = scores_of_cases(trivial, one.patients, seed=seed)
                scores["baseline"][name] = {key: base[key].to_plain() for key in ("dice", "iou")}
        scores["alarms"] = alarms_of(scores)
        return scores

    def _stated(self) -> dict[str, str]:
        """How masks were made and measured, for the report."""
        stated = {
            "tolerance of the surface Dice": f"{self._tolerance:g} mm (pixels where the spacing is unknown)",
            "overlap of windows, where an image is larger": f"{self._overlap:.0%}",
        }
        if self.flips:
            stated["test-time flips over axes"] = ", ".join(map(str, self.flips))
        stated |= {name.replace("_", " "): "yes" for name, is_on in self._clean.items() if is_on}
        return stated

    def figures(self, finished: Mapping[str, Predictions], calibration: Calibration) -> list[FigureData]:
        """Box plots, agreement of volumes and the failures of the test cases."""
        one = finished["test"]
        return figures_of_cases(_measures(one), one.ids)

    def pictures(
        self,
        network: nn.Module,
        image_of: Callable[[int], Tensor],
        finished: Predictions,
        calibration: Calibration,
        count: int,
    ) -> Iterator[CasePicture]:
        """Best, median and worst cases by Dice, with outlines."""

        def masks(row: int) -> tuple[np.ndarray, np.ndarray | None]:
            case = finished.outputs[row]
            return case.seen.unpacked(), None if case.true is None else case.true.unpacked()

        def spacing(row: int) -> tuple[float, ...]:
            affine = finished.outputs[row].origin.affine
            return tuple(np.linalg.norm(affine[:-1, :-1], axis=0).tolist())

        return pictures_of_cases(
            _measures(finished),
            lambda row: image_of(row).numpy(),
            masks,
            classes=self.classes,
            spacing_of=spacing,
            count=count,
        )

    def rows(self, finished: Predictions, calibration: Calibration) -> list[dict[str, object]]:
        """Case, file, mean Dice and the figures of each class where the truth is known, and how large each class is."""
        rows: list[dict[str, object]] = []
        for name, file, case in zip(finished.ids, finished.files, finished.outputs, strict=True):
            row: dict[str, object] = {"case": name, "file": file}
            if case.measures is not None:
                found = [one.dice for one in case.measures.values() if one.dice == one.dice]
                row["dice"] = round(float(np.mean(found)), 5) if found else ""
                for label, one in case.measures.items():
                    row |= {f"{key}_{label}": value for key, value in one.to_row().items()}
            rows.append(row if case.measures is not None else {**row, **case.sizes})
        return rows

    def write(self, finished: Predictions, index: int, folder: Path) -> tuple[Path, ...]:
        """The mask on the grid of its file: NIfTI, DICOM SEG or PNG, of overlapping classes one PNG each.

        Where no SEG can be made of a DICOM image (highdicom is absent, or the series cannot be referred to) it is a
        NIfTI or PNG file on the same grid: the mask must not be lost.
        """
        case: Segmented = finished.outputs[index]
        mask, grid, name = case.mask.unpacked(), case.origin.grid(), file_stems(finished.ids)[index]
        try:
            return write_mask(mask, grid, folder, name, classes=self.classes)
        except DataError as error:
            if grid.kind != "DICOM":
                raise
            _LOG.warning("%s: no DICOM SEG, written as it is: %s", name, error.seen)
            other: Literal["png", "nifti"] = "png" if len(grid.shape) == 2 else "nifti"
            return write_mask(mask, grid, folder, name, classes=self.classes, output=other)

    def write_probabilities(self, outputs: Tensor, origin: Origin, folder: Path, name: str) -> Path:
        """Of each class on the grid of the file, the background left out: it is 1 less their sum.

        A volume a class of a NIfTI file, a page a class of a TIFF file for pictures. Of the whole image, not of the box
        that `keep` decides on: what was nearly called is of interest too.
        """
        for begin in range(outputs.shape[1]):  # in place: probabilities of a CT are gigabytes
            plane = outputs[(None, slice(None), slice(begin, begin + 1))]
            plane.copy_(self.activate(plane))
        classes = outputs[1:] if self._exclusive else outputs
        grid = origin.grid()
        path = folder / f"{name}{PROBABILITIES[len(grid.shape)]}"
        return write_probabilities(classes.cpu().numpy(), origin.affine, grid, path)

    def answer(self) -> MaskAnswer:
        """What an exported bundle gives."""
        threshold = None if self._exclusive else 0.5
        return MaskAnswer(classes=self.classes, threshold=threshold, overlap=self._overlap, **self._clean)


def _measures(one: Predictions) -> list[Measured]:
    return [case.measures for case in one.outputs]
