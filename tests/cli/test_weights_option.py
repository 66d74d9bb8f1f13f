"""`medxfer run --weights FILE`: somebody's own checkpoint is used or refused, never half of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medxfer.encoders.registry import build

from .test_bad_input import BUNDLE, run, write_pictures

SHORT = ("--set", "phases=[{name: probe, train: head, lr: 0.001, epochs: 1}]", "--set", "images.size=32",
         "--set", "training.precision=fp32", "--set", "training.memory_format=contiguous")  # fmt: skip


def checkpoint(path: Path, encoder_id: str, dims: int, prefix: str) -> Path:
    state = build(encoder_id, spatial_dims=dims, in_channels=1).state_dict()
    torch.save({"state_dict": {f"{prefix}{name}": v for name, v in state.items()}, "epoch": 7}, path)
    return path


def test_prefix_and_wrapper_are_found_out_and_kept_in_the_receipt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pictures, out = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    weights = checkpoint(tmp_path / "mine.ckpt", "cnn", 2, "module.backbone.")

    code, text = run(
        capsys,
        *("run", BUNDLE, "--data", str(pictures), "--out", str(out), "--weights", str(weights)),
        *("--set", "encoder.id=cnn", *SHORT),
    )

    assert code == 0, text
    receipt = json.loads((out / "receipt.json").read_text("utf-8"))
    assert receipt["coverage"] == 1
    assert "opened the wrapper `state_dict`" in receipt["notes"]
    assert "the prefix `module.backbone.` was taken off the file's names" in receipt["notes"]
    assert "100.0% of" in text


@pytest.mark.parametrize(
    ("made_of", "dims", "words"),
    [
        ("cnn", 3, ["cnn in 2D", "kernels of 3 dimensions"]),
        ("segresnet", 2, ["of the parameters found", "another architecture"]),
    ],
)
def test_other_dimensions_and_architectures_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, made_of: str, dims: int, words: list[str]
) -> None:
    pictures, out = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    weights = checkpoint(tmp_path / "other.pth", made_of, dims, "")

    code, text = run(
        capsys,
        *("run", BUNDLE, "--data", str(pictures), "--out", str(out), "--weights", str(weights)),
        *("--set", "encoder.id=cnn", *SHORT),
    )

    assert code == 3, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert not out.exists()
