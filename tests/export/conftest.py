"""A trained-looking network, its exported bundle, and that bundle run where medxfer is not installed."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medxfer.bundle.schema import DataSpec, EncoderSpec, ImagesSpec
from medxfer.data.presets import Step, steps_of
from medxfer.data.synthetic.chest_xray import write_chest_xrays
from medxfer.encoders.loading import create_encoder
from medxfer.export.answering import answering_for
from medxfer.export.monai_bundle import export_bundle
from medxfer.export.reading import reading_for
from medxfer.networks.network import Network
from medxfer.tasks.base import RowAnswer
from medxfer.tasks.classification import Classification

from .images import write_all

CLASSES = ("normal", "pneumonia, any")
TEMPERATURE = 1.7
PICTURES = reading_for(DataSpec(source=""), 2)
SIZE = 96
ROWS = RowAnswer(classes=CLASSES)
ANSWERING = answering_for(ROWS, PICTURES, (SIZE, SIZE), {})

# An interpreter of its own, in which medxfer cannot be imported even where it is installed.
BLOCKED = """\
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "medxfer" or name.startswith("medxfer."):
            raise ModuleNotFoundError("medxfer is blocked here", name=name)

sys.meta_path.insert(0, Blocked())
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported, and where to."""

    folder: Path
    network: nn.Module
    task: Classification
    steps: tuple[Step, ...]


def softmax(logits: Tensor) -> Tensor:
    """The activation of a classification."""
    return logits.softmax(dim=1)


class Tiny(nn.Module):
    """Convolution, batch norm with statistics of its own, mean, linear."""

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def stir(network: nn.Module) -> nn.Module:
    """Random weights that answer differently for different images, and moved batch-norm statistics."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features, generator=generator) * 0.2
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.0, generator=generator)
    return network.eval()


def probabilities_of(exported: Exported, images: Sequence[Tensor]) -> np.ndarray:
    """What `predict` prints for preprocessed images."""
    with torch.inference_mode():
        logits = torch.cat([exported.network(image[None]) for image in images])
        return exported.task.activate(logits / TEMPERATURE).numpy()


def run_monai_bundle(bundle: Path, images: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    """`python -m monai.bundle run` without medxfer; probabilities by file."""
    run_apart(bundle, images, out, *options)
    return read_answers(out)


def run_apart(bundle: Path, images: Path, out: Path, *options: str) -> None:
    """`python -m monai.bundle run` without medxfer."""
    place = out.parent / f"{out.name}-python"
    place.mkdir(parents=True)
    (place / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    common = {"env": environment, "cwd": place, "capture_output": True, "text": True, "timeout": 300}
    absent = subprocess.run([sys.executable, "-c", "import medxfer"], **common, check=False)  # type: ignore[call-overload]
    assert "medxfer is blocked here" in absent.stderr
    config = str(bundle / "configs" / "inference.yaml")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config]
    command += ["--dataset_dir", str(images), "--output_dir", str(out), *options]
    done = subprocess.run(command, **common, check=False)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-3000:]


def run_here(bundle: Path, images: Path, out: Path, **options: Any) -> dict[str, np.ndarray]:
    """The same in this interpreter, which saves 8 s of imports and does not show that medxfer is not needed."""
    start_here(bundle, images, out, **options)
    return read_answers(out)


def start_here(bundle: Path, images: Path, out: Path, **options: Any) -> None:
    """What `run_here` does before it reads probabilities."""
    from monai.bundle.scripts import run

    config = str(bundle / "configs" / "inference.yaml")
    options = {"bundle_root": str(bundle), "dataset_dir": str(images), "output_dir": str(out), **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI: whether the file is to be trusted
        run(config_file=config, device="cpu", **options)


def read_answers(out: Path) -> dict[str, np.ndarray]:
    """Probabilities by file."""
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", *[f"p_{name}" for name in CLASSES]]
    return {row[0]: np.array(row[1:], float) for row in rows}


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Resnet18 with the chest X-ray preset, exported."""
    spec = EncoderSpec(id="resnet18", weights="none", in_channels=1)
    torch.manual_seed(0)
    encoder, _ = create_encoder(spec)
    task = Classification(classes=list(CLASSES))
    network = stir(Network(encoder, task.head(encoder)))
    steps = steps_of(ImagesSpec(size=SIZE), 1)
    folder = export_bundle(
        tmp_path_factory.mktemp("export") / "bundle",
        network=network,
        activate=task.activate,
        calibration={"temperature": TEMPERATURE, "threshold": {"value": 0.37}},
        reading=PICTURES,
        answer=task.answer(),
        steps=steps,
        in_channels=1,
        shape=(SIZE, SIZE),
        config_yaml="seed: 0\n",
        metadata={"task": "pneumonia or normal", "authors": "A. Uthor", "version": "0.3.0"},
        licence_text="Apache-2.0\n",
        docs="# Pneumonia\n\nSynthetic.",
    )
    return Exported(folder=folder, network=network, task=task, steps=steps)


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic chest X-rays of both polarities, and every other kind of file."""
    folder = tmp_path_factory.mktemp("images")
    write_all(folder / "mixed")
    write_chest_xrays(folder / "chest", count=12, seed=7)
    return folder


@pytest.fixture(scope="package")
def answers(
    exported: Exported, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """The bundle's probabilities for `images`; about 10 s, most of it `import monai`."""
    return run_monai_bundle(exported.folder, images, tmp_path_factory.mktemp("out") / "eval")
