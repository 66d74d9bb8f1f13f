"""A 2D network trained on volumes by the one command: a frozen encoder first, then all, masks on the volumes' grids."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medxfer.bundle.parser import load_bundle
from medxfer.data.synthetic.hippocampus_mri import write_hippocampi
from medxfer.encoders.loading import create_encoder
from medxfer.networks.network import Network
from medxfer.networks.starting import start_from
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder
from medxfer.trained import evaluate_on, open_run

from .test_segmentation_run import bundle_of

BUNDLE = """\
name: tiny_planes
seed: 1
data: {source: %s, split: {test: 0.25, val: 0.25}}
images: {preset: mri, dims: 3, size: [32, 48, 1], patches: {count: 6, foreground: 0.7}}
encoder: {id: tinyconv, weights: none, in_channels: 1}
task: {_target_: Segmentation, classes: [anterior, posterior], decoder: {width: 8, deep_supervision: true}, flips: [1]}
phases:
  - {name: warm_up, train: head, lr: 1.0e-2, epochs: 1, views: 2}
  - {name: all, train: all, lr: 1.0e-2, epochs: 3}
training: {batch: 8, precision: fp32, memory_format: channels_last}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("planes")
    write_hippocampi(root / "data", count=8, seed=2)
    bundle = load_bundle(bundle_of(root / "tiny_planes", BUNDLE, root / "data"))
    return run_bundle(bundle, Request(out=root / "run", device="cpu"), Progress(quiet=True))


def test_volumes_stay_volumes_and_the_network_is_that_of_pictures(run: RunFolder) -> None:
    scores, history = run.read("scores.json"), run.read("history.csv")
    trained = open_run(run.root)

    assert trained.network.encoder.spatial_dims == 2
    assert [row["phase"] for row in history] == ["warm_up"] + ["all"] * 3
    assert float(history[-1]["val_loss"]) < float(history[0]["val_loss"])
    assert scores["test"]["hd95_mm"]["n"] == 2
    for row in run.read("predictions/test.csv"):
        source, mask = (nibabel.load(one) for one in (row["file"], run.root / "predictions" / row["mask"]))
        assert mask.shape == source.shape
        np.testing.assert_array_equal(mask.affine, source.affine)
    notes = " ".join(run.read("run.json")["data"]["notes"])
    assert "neighbours along that axis" not in notes
    assert (run.root / "report.html").is_file()


def test_predict_and_evaluate_give_the_runs_own_masks_and_scores(run: RunFolder, tmp_path: Path) -> None:
    told = run.read("predictions/test.csv")

    rows = open_run(run.root / "bundle").predict([row["file"] for row in told], folder=tmp_path)

    for row, own in zip(rows, told, strict=True):
        mine, theirs = (
            np.asarray(nibabel.load(path).dataobj)
            for path in (tmp_path / str(row["mask"]), run.root / "predictions" / own["mask"])
        )
        assert np.mean(mine != theirs) <= 1e-4
    folder = Path(told[0]["file"]).parents[1]
    assert evaluate_on(run.root, folder)["all"]["dice"]["n"] == 8


def test_a_network_of_other_planes_starts_from_it(run: RunFolder) -> None:
    trained = open_run(run.root)
    encoder, _ = create_encoder(trained.bundle.encoder, spatial_dims=2)
    other = Network(encoder, trained.task.head(encoder), window=(32, 1, 48))

    started = start_from(other, trained.network, str(run.root))

    assert (started.fresh, started.unused) == ({}, ())
