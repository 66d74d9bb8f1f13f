"""A run folder as a finished run leaves it: labels and logits drawn, all else by the real functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medxfer.evaluation.calibration import fit_temperature
from medxfer.evaluation.classification import (
    alarms_of,
    baseline_of,
    choose_threshold,
    figures_of,
    scores_of,
)
from medxfer.evaluation.figures import CasePicture
from medxfer.reports.pictures import save_pictures
from medxfer.run_folder import RunFolder

CONFIG = """\
seed: 0
data: {source: synthetic.chest_xray, layout: auto}
images: {preset: xray, size: 128}
encoder: {id: efficientnet_lite0, weights: imagenet, in_channels: 1}
task: {_target_: Classification, classes: [normal, pneumonia]}
phases:
  - {name: probe, train: head, lr: 1.0e-3, epochs: 6}
  - {name: finetune, train: all, lr: 1.0e-4, epochs: 3, layer_decay: 0.8}
"""


def make_run(
    root: Path,
    *,
    classes: Sequence[str] = ("normal", "pneumonia"),
    strength: dict[str, float] | None = None,
    counts: dict[str, int] | None = None,
    kind: str = "synthetic",
) -> RunFolder:
    """Write a run folder; `strength` is how far the logits of the true class are lifted in each split."""
    folder = RunFolder(root)
    strength = strength or {"val": 2.6, "test": 2.4}
    counts = counts or {"train": 400, "val": 120, "test": 200}
    generator = np.random.default_rng(3)
    drawn = {
        split: _draw(generator, counts[split], len(classes), strength.get(split, 3.0)) for split in counts
    }
    temperature = fit_temperature(drawn["val"]["logits"], drawn["val"]["labels"])
    for one in drawn.values():
        one["p"] = _softmax(one["logits"] / temperature)
    threshold = (
        choose_threshold(drawn["val"]["labels"], drawn["val"]["p"][:, 1]) if len(classes) == 2 else 0.5
    )
    scores: dict[str, Any] = {
        "task": "Classification",
        "key_metric": "auroc",
        "classes": list(classes),
        "baseline": {},
    }
    for split in ("val", "test"):
        one = drawn[split]
        found = scores_of(
            one["labels"], one["p"], one["patients"], classes=classes, threshold=threshold, samples=200
        )
        trivial = baseline_of(one["labels"], one["patients"], classes=classes, samples=50)
        scores[split] = {name: score.to_plain() for name, score in found.items()}
        scores["baseline"][split] = {name: score.to_plain() for name, score in trivial.items()}
    scores["temperature"] = temperature
    if len(classes) == 2:
        scores["threshold"] = {"value": threshold, "from": "val, youden"}
    scores["alarms"] = alarms_of(scores)
    one = drawn["test"]
    figures = figures_of(
        one["labels"], one["p"], one["patients"], classes=classes, threshold=threshold, samples=100
    )
    folder.write("scores.json", scores)
    folder.write("figures.json", [figure.to_plain() for figure in figures])
    folder.write("config.yaml", CONFIG)
    folder.write("split.csv", _split_rows(drawn, classes))
    folder.write("history.csv", _history())
    folder.write("receipt.json", _receipt())
    folder.write("run.json", _run(classes, kind))
    _pictures(folder, one, classes, threshold)
    return folder


def _draw(generator: np.random.Generator, count: int, classes: int, lift: float) -> dict[str, Any]:
    labels = generator.choice(classes, size=count, p=_shares(classes))
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += lift
    patients = [f"P{number // 2:04d}" if number % 3 else f"P{number:04d}a" for number in range(count)]
    return {"labels": labels, "logits": logits, "patients": patients}


def _shares(classes: int) -> list[float]:
    first = 0.6 if classes == 2 else 0.5
    return [first, *[(1 - first) / (classes - 1)] * (classes - 1)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return exponent / exponent.sum(1, keepdims=True)


def _split_rows(drawn: dict[str, Any], classes: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "case": f"images/{split}-{number:04d}.dcm",
            "patient": f"{split}-{patient}",
            "split": split,
            "class": classes[label],
            "file": f"images/{split}-{number:04d}.dcm",
            "sha256": "0" * 64,
        }
        for split, one in drawn.items()
        for number, (label, patient) in enumerate(zip(one["labels"], one["patients"], strict=True))
    ]


def _history() -> list[dict[str, object]]:
    rows = []
    for number in range(9):
        phase = "probe" if number < 6 else "finetune"
        value = 0.95 - 0.2 * 0.6**number - (0.01 if number == 8 else 0.0)
        rows.append(
            {
                "phase": phase,
                "epoch": number + 1 if number < 6 else number - 5,
                "rate": 1e-3 if number < 6 else 1e-4,
                "train_loss": 0.2 + 0.5 * 0.7**number,
                "val_loss": 0.25 + 0.45 * 0.75**number,
                "val_auroc": value,
                "best": int(number != 8),
            }
        )
    return rows


def _receipt() -> dict[str, Any]:
    tensors = [
        {
            "name": f"stages.{n}.conv.weight",
            "shape": [32, 16, 3, 3],
            "kind": "parameter",
            "state": "loaded",
            "how": "same name",
        }
        for n in range(5)
    ]
    tensors.append(
        {
            "name": "classifier.weight",
            "shape": [1000, 1280],
            "kind": "file",
            "state": "unused",
            "how": "no place for it",
        }
    )
    return {
        "encoder": "efficientnet_lite0",
        "weights": "imagenet",
        "file": str(Path.home() / "lib" / "weights.pth"),
        "sha256": "ab" * 32,
        "licence": "Apache-2.0",
        "trained_on": "1.28 M ImageNet photographs",
        "coverage": 0.996,
        "counts": {"loaded": 5, "converted": 0, "re-initialised": 0, "unused": 1},
        "notes": ["the first convolution was summed from 3 channels to 1"],
        "tensors": tensors,
    }


def _run(classes: Sequence[str], kind: str) -> dict[str, Any]:
    return {
        "medxfer": "0.1.0",
        "command": ["medxfer", "run", "bundles/pneumonia_cls"],
        "status": "done",
        "bundle": "pneumonia_cls",
        "seed": 0,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": {"read": 4.1, "training": 61.0, "whole": 80.2},
        "device": "cpu",
        "hardware": {"processor": "A processor", "cores": 2, "threads": 2},
        "versions": {"medxfer": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "chosen": {
            "precision": {"value": "bf16", "why": "1.8 times as fast as fp32 here, largest difference 0.004"},
            "memory_format": {"value": "channels_last", "why": "1.2 times as fast"},
        },
        "data": {
            "source": "synthetic.chest_xray" if kind == "synthetic" else str(Path.home() / "data"),
            "kind": kind,
            "patient_key": "PatientID of the DICOM files",
            "notes": ["6 images of 3 patients were moved together, as near copies of each other."],
            "classes": dict.fromkeys(classes, 100),
            "accept_leak": None,
        },
        "refused": [
            {
                "case": "images/0007.dcm",
                "where": "images/0007.dcm",
                "seen": "truncated pixel data",
                "accepted": "a whole file",
                "todo": "export it again",
            }
        ],
    }


def _pictures(folder: RunFolder, one: dict[str, Any], classes: Sequence[str], threshold: float) -> None:
    p, labels = one["p"], one["labels"]
    own = p[np.arange(len(labels)), labels]
    order = np.argsort(own)
    called = (p[:, 1] >= threshold).astype(int) if len(classes) == 2 else p.argmax(1)
    rows, columns = np.mgrid[0:128, 0:128] / 127
    pictures = []
    for group, indices in (("best", order[::-1][:4]), ("worst", order[:4])):
        for number, index in enumerate(indices):
            said = int(called[index])
            x = 0.3 + 0.12 * number
            lung = np.exp(-(((columns - 0.32) / 0.14) ** 2 + ((rows - 0.5) / 0.3) ** 2))
            lung += np.exp(-(((columns - 0.68) / 0.14) ** 2 + ((rows - 0.5) / 0.3) ** 2))
            heat = np.exp(-(((columns - x) / 0.15) ** 2 + ((rows - 0.6) / 0.12) ** 2))
            pictures.append(
                CasePicture(
                    group=group,
                    index=int(index),
                    image=(0.75 - 0.6 * lung + 0.03 * np.sin(columns * 90 * rows))[None],
                    facts={
                        "true": classes[labels[index]],
                        "called": classes[said],
                        "probability": f"{p[index, said]:.3f}",
                    },
                    wrong=() if said == labels[index] else ("called",),
                    heat=None if number == 3 else heat,
                    heat_of=classes[said],
                )
            )
    save_pictures(folder, pictures, [f"images/test-{index:04d}.dcm" for index in range(len(labels))])
