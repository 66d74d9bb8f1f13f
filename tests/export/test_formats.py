"""Single files for other programs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medxfer.errors import ConfigError
from medxfer.export.formats import FORMATS, write_program

from .conftest import ANSWERING, Tiny, softmax, stir


def write(target: Path, kind: str, warned: list[str]) -> tuple[torch.nn.Module, Path]:
    network = stir(Tiny())
    common: dict[str, Any] = {
        "activate": softmax, "temperature": 1.3, "in_channels": 1, "shape": (32, 32), "answering": ANSWERING,
    }  # fmt: skip
    return network, write_program(target, kind, network=network, warn=warned.append, **common)


def test_pt2_takes_any_batch(tmp_path: Path) -> None:
    images = torch.rand(4, 1, 32, 32)

    network, path = write(tmp_path / "model.pt2", "pt2", [])

    given = torch.export.load(path).module()(images)
    torch.testing.assert_close(given, (network(images) / 1.3).softmax(1), atol=1e-6, rtol=0)


def test_torchscript_is_written_and_said_to_be_deprecated(tmp_path: Path) -> None:
    images, warned = torch.rand(4, 1, 32, 32), list[str]()

    network, path = write(tmp_path / "model.ts", "torchscript", warned)

    given = torch.jit.load(str(path))(images)
    torch.testing.assert_close(given, (network(images) / 1.3).softmax(1), atol=1e-6, rtol=0)
    assert any("deprecated" in text for text in warned)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="extra `onnx` is not installed")
def test_onnx_gives_the_same_probabilities_for_any_batch(tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    images = torch.rand(3, 1, 32, 32)

    network, path = write(tmp_path / "model.onnx", "onnx", [])

    (given,) = ReferenceEvaluator(str(path)).run(["probabilities"], {"image": images.numpy()})
    np.testing.assert_allclose(np.asarray(given), (network(images) / 1.3).softmax(1).detach(), atol=1e-5)


def test_onnx_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name)
    )

    with pytest.raises(ConfigError) as refused:
        write(tmp_path / "model.onnx", "onnx", [])

    assert "onnxscript" in refused.value.seen
    assert refused.value.todo == "pip install 'medxfer[onnx]'"
    assert not list(tmp_path.iterdir())


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        write(tmp_path / "model.caffe", "caffe", [])

    assert refused.value.accepted == ", ".join(FORMATS)
