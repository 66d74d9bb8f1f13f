"""Cross-validation through the command: every patient is tested once, and an interrupted one goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medxfer.bundle.parser import load_bundle
from medxfer.data.synthetic.chest_xray import write_chest_xrays
from medxfer.errors import ConfigError
from medxfer.methods.folds import run_folds
from medxfer.pipeline import Request
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder

BUNDLE = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"
QUICK = (
    "images.size=32", "training.precision=fp32", "training.memory_format=channels_last", "encoder.id=resnet10",
    "encoder.weights=none", "phases=[{name: probe, train: head, lr: 0.001, epochs: 1}]",
)  # fmt: skip


def test_every_patient_is_tested_in_one_fold_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    write_chest_xrays(tmp_path / "data", count=60, seed=3)
    bundle = load_bundle(BUNDLE, overrides=QUICK, data=str(tmp_path / "data"))
    root = run_folds(bundle, 2, Request(out=tmp_path / "out"), Progress(quiet=True))
    before = (root / "fold-0" / "checkpoints" / "best.pt").stat().st_mtime_ns
    (root / "folds.json").unlink()

    again = run_folds(bundle, 2, Request(out=tmp_path / "out"), Progress(quiet=True))

    runs = [RunFolder.open(again / f"fold-{number}") for number in range(2)]
    first = runs[0].read("split.csv")
    patient_of = {row["case"]: row["patient"] for row in first}  # pseudonyms differ from run to run
    tested = [
        {patient_of[row["case"]] for row in run.read("split.csv") if row["split"] == "test"} for run in runs
    ]
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == set(patient_of.values())
    assert (root / "fold-0" / "checkpoints" / "best.pt").stat().st_mtime_ns == before
    found = json.loads((root / "folds.json").read_text())
    assert found["test"]["auroc"]["n"] == 60
    assert found["test"]["auroc"]["low"] <= found["test"]["auroc"]["mean"] <= found["test"]["auroc"]["high"]


def test_one_fold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        run_folds(load_bundle(BUNDLE), 1, Request(out=tmp_path / "out"), Progress(quiet=True))
