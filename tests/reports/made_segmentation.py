"""A run folder as a finished segmentation leaves it: phantoms, masks bent at random, all else by the real functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from medxfer.data.synthetic import hippocampus_mri, nuclei, sarcoma_ct
from medxfer.evaluation.lesions import LesionRule
from medxfer.evaluation.scores import alarms_of
from medxfer.evaluation.segmentation import Measures, measure_case, scores_by_class, scores_of_cases
from medxfer.evaluation.segmentation_figures import figures_of_cases
from medxfer.evaluation.segmentation_pictures import pictures_of_cases
from medxfer.reports.pictures import save_pictures
from medxfer.run_folder import RunFolder

Array = np.ndarray[Any, np.dtype[Any]]

CONFIG = """\
seed: 0
data: {source: SOURCE, layout: decathlon}
images: {preset: mri, dims: 3, size: [40, 56, 40], patches: {count: 2, foreground: 0.5}}
encoder: {id: cnn, weights: none, in_channels: 1}
task: {_target_: Segmentation, classes: [CLASSES]}
phases:
  - {name: train, train: all, lr: 1.0e-3, epochs: 4}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One sort of images with masks."""

    classes: tuple[str, ...]
    make: Callable[[np.random.Generator], tuple[Array, Array]]  # image (C, *spatial) in [0, 1], mask
    spacing: tuple[float, ...] | None
    tolerance: float


def hippocampus(random: np.random.Generator) -> tuple[Array, Array]:
    image, mask = hippocampus_mri.make_case(random)
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low), 0, 1)[None].astype(np.float32), mask


def sarcoma(random: np.random.Generator) -> tuple[Array, Array]:
    hu, mask = sarcoma_ct.make_case(random)
    return np.clip((hu.astype(np.float32) + 160) / 400, 0, 1)[None], mask


def cells(random: np.random.Generator) -> tuple[Array, Array]:
    kind: nuclei.Kind = "fluorescence" if random.integers(2) else "stained_colour"
    image, mask = nuclei.make_pair(kind, random)
    colours = np.moveaxis(image[..., :3], -1, 0) if image.ndim == 3 else np.repeat(image[None], 3, axis=0)
    return colours.astype(np.float32) / 255, (mask > 0).astype(np.uint8)


KINDS = {
    "hippocampus": Kind(
        classes=("anterior", "posterior"), make=hippocampus, spacing=(1.0, 1.0, 1.0), tolerance=1.0
    ),
    "sarcoma": Kind(classes=("mass",), make=sarcoma, spacing=sarcoma_ct.SPACING, tolerance=3.0),
    "nuclei": Kind(classes=("nucleus",), make=cells, spacing=None, tolerance=2.0),
}


def bent(mask: Array, random: np.random.Generator, amount: float) -> Array:
    """A mask as a network might have called it: moved, thicker or thinner, uneven at its border."""
    if amount > 6:
        return np.zeros_like(mask)
    called = np.zeros_like(mask)
    noise = gaussian_filter(random.normal(size=mask.shape), 1.5)
    offset = random.normal(0, 0.35 * amount, mask.ndim)
    best = np.full(mask.shape, 0.5) + 0.4 * amount * noise
    for number in range(1, int(mask.max()) + 1):
        soft = shift(gaussian_filter((mask == number).astype(float), 0.7), offset, order=1)
        called = np.where(soft > best, number, called)
        best = np.maximum(best, soft)
    return called.astype(mask.dtype)


def make_segmentation(
    root: Path, *, kind: str = "hippocampus", count: int = 12, samples: int = 100, pictures: int = 4
) -> RunFolder:
    """Write the folder; a fifth of the cases is called badly, the last one not at all."""
    made, folder = KINDS[kind], RunFolder(root)
    random = np.random.default_rng(5)
    images, masks, measures = [], [], []
    for number in range(count):
        image, true = made.make(random)
        amount = 99.0 if number == count - 1 else 4.0 if number % 5 == 4 else 1.0
        predicted = bent(true, random, amount)
        images.append(image)
        masks.append((predicted, true))
        rule = LesionRule() if kind == "sarcoma" else None
        measures.append(
            measure_case(
                predicted, true, classes=made.classes, spacing=made.spacing, tolerance=made.tolerance, lesions=rule
            )
        )  # fmt: skip
    ids = [f"{kind}_{number:03d}.nii.gz" for number in range(count)]
    scores = _scores(made, measures, samples)
    folder.write("scores.json", scores)
    folder.write("figures.json", [one.to_plain() for one in figures_of_cases(measures, ids)])
    config = CONFIG.replace("SOURCE", f"synthetic.{kind}").replace("CLASSES", ", ".join(made.classes))
    folder.write("config.yaml", config)
    folder.write("predictions/test.csv", _rows(measures, ids))
    folder.write("split.csv", _splits(ids))
    folder.write("history.csv", _history())
    folder.write("receipt.json", {"encoder": "cnn", "weights": "none", "coverage": 0.0, "tensors": []})
    folder.write("run.json", _run(kind))
    drawn = pictures_of_cases(
        measures, images.__getitem__, masks.__getitem__, classes=made.classes,
        spacing_of=lambda _: made.spacing, count=pictures,
    )  # fmt: skip
    save_pictures(folder, drawn, ids)
    return folder


def _patients(count: int) -> list[str]:
    return [f"P{number:03d}" for number in range(count)]


def _scores(made: Kind, measures: Sequence[dict[str, Measures]], samples: int) -> dict[str, Any]:
    patients = _patients(len(measures))
    found = {k: v.to_plain() for k, v in scores_of_cases(measures, patients, samples=samples).items()}
    by_class = {
        name: {key: value.to_plain() for key, value in own.items()}
        for name, own in scores_by_class(measures, patients, samples=samples).items()
    }
    trivial = {"dice": {"value": 0.41, "low": 0.36, "high": 0.45, "n": 12, "patients": 12}}
    scores: dict[str, Any] = {
        "task": "Segmentation",
        "key_metric": "dice",
        "classes": list(made.classes),
        "baseline_rule": "the mean training mask, put into the middle of each image",
        "stated": {"tolerance of the surface Dice": f"{made.tolerance:g} mm"},
        "baseline": {"test": trivial, "val": trivial},
        "test": found,
        "val": found,
        "by_class": {"test": by_class, "val": by_class},
    }
    return scores | {"alarms": alarms_of(scores)}


def _rows(measures: Sequence[dict[str, Measures]], ids: Sequence[str]) -> list[dict[str, object]]:
    rows = []
    for name, case in zip(ids, measures, strict=True):
        row: dict[str, object] = {"case": name, "file": name}
        for one, found in case.items():
            row |= {f"{key}_{one}": value for key, value in found.to_row().items()}
        rows.append(row)
    return rows


def _splits(ids: Sequence[str]) -> list[dict[str, object]]:
    train = [(f"train_{number:03d}.nii.gz", f"T{number:03d}", "train") for number in range(40)]
    val = [(f"val_{number:03d}.nii.gz", f"V{number:03d}", "val") for number in range(8)]
    test = [(name, patient, "test") for name, patient in zip(ids, _patients(len(ids)), strict=True)]
    return [
        {"case": case, "shown": case, "patient": patient, "split": split, "class": "", "file": case}
        for case, patient, split in (*train, *val, *test)
    ]


def _history() -> list[dict[str, object]]:
    return [
        {"phase": "train", "epoch": number + 1, "rate": 1e-3, "train_loss": 1.2 * 0.7**number,
         "val_loss": 1.3 * 0.75**number, "val_dice": 0.85 - 0.5 * 0.6**number, "best": int(number == 3)}
        for number in range(4)
    ]  # fmt: skip


def _run(kind: str) -> dict[str, Any]:
    return {
        "medxfer": "0.1.0",
        "command": ["medxfer", "run", f"bundles/{kind}_seg"],
        "status": "done",
        "bundle": f"{kind}_seg",
        "seed": 0,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": {"training": 61.0, "whole": 80.2},
        "device": "cpu",
        "data": {
            "source": f"synthetic.{kind}",
            "kind": "synthetic",
            "patient_key": "the file name",
            "notes": [],
            "classes": {},
            "accept_leak": None,
        },
        "refused": [],
    }
