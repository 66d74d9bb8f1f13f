"""What `predict` takes: folders as `inspect` walks them, tables of several files a case, names of any kind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medxfer.bundle.parser import load_bundle
from medxfer.cli import main as command
from medxfer.data.describe import records
from medxfer.data.presets import fill_in, steps_of
from medxfer.encoders.loading import create_encoder
from medxfer.networks.network import Network
from medxfer.tasks.classification import Classification
from medxfer.trained import Trained, evaluate_on

from ..data.faults import saved_series, series

_REST = """\
encoder: {id: cnn, weights: none, in_channels: %d}
task: {_target_: Classification, classes: [a, b]}
phases: [{name: all, train: all, lr: 1.0e-3, epochs: 1}]
"""


def trained(folder: Path, data: str = "{source: x}", channels: int = 1) -> Trained:
    """A tiny 3D network with random weights."""
    (folder / "configs").mkdir(parents=True)
    text = f"data: {data}\nimages: {{preset: mri, dims: 3, size: 16}}\n{_REST % channels}"
    (folder / "configs" / "train.yaml").write_text(text, encoding="utf-8")
    bundle = fill_in(load_bundle(folder))
    torch.manual_seed(0)
    encoder, _ = create_encoder(bundle.encoder, spatial_dims=3)
    task = Classification(classes=["a", "b"])
    network = Network(encoder, task.head(encoder)).eval()
    for weights in network.head.parameters():  # of zeros all answers would be alike
        torch.nn.init.normal_(weights)
    return Trained(
        bundle=bundle,
        task=task,
        network=network,
        steps=steps_of(bundle.images, channels),
        calibration={"temperature": 1.0},
    )


def call(*words: object) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        command([str(word) for word in words])
    return int(left.value.code or 0)


def volume(path: Path, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 900, (18, 17, 16)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return values


def test_a_series_in_two_folders_is_one_volume_as_for_inspect(tmp_path: Path) -> None:
    saved_series(series(), tmp_path / "scan" / "a")
    (tmp_path / "scan" / "b").mkdir()
    for number in range(6, 12):
        shutil.move(tmp_path / "scan" / "a" / f"{number:03}.dcm", tmp_path / "scan" / "b")
    saved_series(series(), tmp_path / "whole")
    network = trained(tmp_path / "bundle")

    rows = network.predict([tmp_path / "scan"])
    (plain,) = network.predict([tmp_path / "whole"])

    assert [row["file"] for row in rows] == [record["path"] for record in records([tmp_path / "scan"])]
    assert [row["p_a"] for row in rows] == [plain["p_a"]]


def test_rules_choose_among_the_series_of_a_folder(tmp_path: Path) -> None:
    saved_series(series()[:6], tmp_path / "scan")
    for number, image in enumerate(series()):
        image.SeriesInstanceUID, image.SOPInstanceUID = "1.2.826.0.1.77", f"1.2.826.0.1.98.{number}"
        image.save_as(tmp_path / "scan" / f"other{number}.dcm", enforce_file_format=True)

    chosen = trained(tmp_path / "one", "{source: x, series: {slices: 10}}").predict([tmp_path / "scan"])
    both = trained(tmp_path / "all").predict([tmp_path / "scan"])

    assert [row["status"] for row in chosen] == ["ok"]
    assert len({str(row["file"]) for row in both}) == 2


def test_td8_a_pipe_is_refused_without_opening_it(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    os.mkfifo(tmp_path / "scans" / "x.dcm")

    (row,) = trained(tmp_path / "bundle").predict([tmp_path / "scans"])

    assert row["status"] == "refused"
    assert "pipe" in str(row["reason"])


def test_td5_td6_odd_names_are_written_escaped(tmp_path: Path) -> None:
    plain = tmp_path / "plain.nii"
    volume(plain, 1)
    (tmp_path / "odd").mkdir()
    shutil.copy(plain, tmp_path / "odd" / "two\nlines.nii")
    shutil.copy(plain, tmp_path / "odd" / os.fsdecode(b"lost\xff.nii"))

    rows = trained(tmp_path / "bundle").predict([tmp_path / "odd"])

    names = [str(row["file"]) for row in rows]
    assert [Path(name).name for name in names] == ["lost\\xff.nii", "two\\nlines.nii"]
    "".join(names).encode("utf-8")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two cases of two files, one row whose file is absent, and each case as one 4D file."""
    lines = ["flair,t1,label"]
    for case in range(2):
        both = [volume(tmp_path / "pairs" / f"{name}{case}.nii", 2 * case + number)
                for number, name in enumerate(("f", "t"))]  # fmt: skip
        lines.append(f"f{case}.nii,t{case}.nii,{'ab'[case]}")
        (tmp_path / "joined").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.stack(both, -1), np.eye(4)), tmp_path / "joined" / f"{case}.nii")
    (tmp_path / "pairs" / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "pairs"


_PAIRS = "{source: x, images: [flair, t1]}"


def test_a_table_names_the_files_of_each_case(tmp_path: Path, pairs: Path) -> None:
    network = trained(tmp_path / "bundle", _PAIRS, 2)
    table = pairs / "table.csv"
    table.write_text("t1,flair\nt0.nii,f0.nii\nt1.nii,absent.nii\nt1.nii,f1.nii\n", encoding="utf-8")

    rows = network.predict(table=table)

    assert [row["status"] for row in rows] == ["ok", "refused", "ok"]
    assert "line 3" in str(rows[1]["file"])
    joined = network.predict([tmp_path / "joined"])
    assert [row["p_a"] for row in joined] == pytest.approx([rows[0]["p_a"], rows[2]["p_a"]], abs=1e-6)
    assert rows[0]["p_a"] != rows[2]["p_a"]


def test_one_file_of_several_is_refused_and_the_table_named(tmp_path: Path, pairs: Path) -> None:
    (row,) = trained(tmp_path / "bundle", _PAIRS, 2).predict([pairs / "f0.nii"])

    assert row["status"] == "refused"
    assert "--data TABLE.csv" in str(row["reason"])
    assert "flair, t1" in str(row["reason"])


def test_predict_and_evaluate_of_a_network_on_several_sequences(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained(tmp_path / "bundle", _PAIRS, 2)
    (tmp_path / "bundle" / "models").mkdir()
    save_file(dict(network.network.state_dict()), tmp_path / "bundle" / "models" / "model.safetensors")
    calibration = {"calibration": {"temperature": 1.0, "threshold": {"value": 0.5}}}
    (tmp_path / "bundle" / "configs" / "exported.json").write_text(json.dumps(calibration), encoding="utf-8")

    code = call("predict", tmp_path / "bundle", "--data", pairs / "table.csv", "--json", "--quiet")
    rows = json.loads(capsys.readouterr().out)
    scores = evaluate_on(tmp_path / "bundle", pairs)

    assert code == 0
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert scores["all"]["auroc"]["value"] in (0.0, 1.0)
    assert call("predict", tmp_path / "bundle") == 2
