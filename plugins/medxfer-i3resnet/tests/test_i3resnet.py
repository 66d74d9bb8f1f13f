"""Inflated ResNet-152: the contract on a narrow one, the axes, and the published weights where they are installed."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from medxfer_i3resnet import build_i3resnet152
from torch import Tensor

from medxfer.bundle.schema import EncoderSpec
from medxfer.cards import EncoderCard
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import card_of
from medxfer.encoders.sources import on_this_machine
from medxfer.encoders.weights import require
from medxfer.plugin import Encoder
from medxfer.testing import CHECKS, Subject

PLUGIN = Path(__file__).parents[1]
NARROW = {"layers": [1, 2, 1, 1], "width": 8}


def narrow(in_channels: int = 3) -> Encoder:
    return build_i3resnet152(spatial_dims=3, in_channels=in_channels, **NARROW)


def card() -> EncoderCard:
    return card_of("i3resnet152")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_conformance_of_a_narrow_one(check: Callable[[Subject], None]) -> None:
    network = narrow()
    claims = replace(
        card(), channels=network.channels, parameters={3: sum(p.numel() for p in network.parameters())}
    )

    check(Subject("i3resnet152", 3, make=narrow, card=claims))


def test_card_says_what_the_whole_network_is() -> None:
    with torch.device("meta"):
        network = build_i3resnet152(spatial_dims=3, in_channels=3)

    assert card().parameters == {3: sum(p.numel() for p in network.parameters())}
    assert card().channels == network.channels
    assert card().strides_in(3) == network.strides


def test_wheel_holds_card_and_key_map(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]

    subprocess.run(command, cwd=PLUGIN, check=True, capture_output=True)

    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    wanted = {"__init__.py", "cards.yaml", "i3resnet_keys.yaml", "py.typed"}
    assert {f"medxfer_i3resnet/{name}" for name in wanted} <= names


def published_names(network: Encoder) -> dict[str, Tensor]:
    """The state dict under the publisher's names, in bf16, as the joined file has it."""
    names = {"stages.0.conv": "conv1", "stages.0.norm": "bn1"}
    names |= {f"stages.{i}.blocks": f"layer{i}" for i in range(1, 5)}
    found = {}
    for key, value in network.state_dict().items():
        for ours, theirs in names.items():
            if key.startswith(f"{ours}."):
                tensor = value.bfloat16() if value.is_floating_point() else value
                found[theirs + key.removeprefix(ours)] = tensor
    return found


def published_forward(x: Tensor, tensors: dict[str, Tensor]) -> list[Tensor]:
    """The publisher's network, written anew by its names: `(B, 3, X, Y, Z)` to five `(B, C, Z, X, Y)`."""
    tensors = {name: t.float() for name, t in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        statistics = [tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *statistics)

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        y = norm(F.conv3d(x, tensors[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
        y = F.conv3d(y, tensors[f"{name}.conv2.weight"], stride=stride, padding=1)
        y = F.conv3d(norm(y, f"{name}.bn2").relu(), tensors[f"{name}.conv3.weight"])
        if f"{name}.downsample.0.weight" in tensors:
            x = norm(
                F.conv3d(x, tensors[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1"
            )
        return (norm(y, f"{name}.bn3") + x).relu()

    x = x.permute(0, 1, 4, 2, 3)
    x = norm(F.conv3d(x, tensors["conv1.weight"], stride=(1, 2, 2), padding=(1, 3, 3)), "bn1").relu()
    states = [x]
    x = F.max_pool3d(x, 3, 2, 1)
    for layer in range(1, 5):
        index = 0
        while f"layer{layer}.{index}.conv1.weight" in tensors:
            x = block(x, f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1)
            index += 1
        states.append(x)
    return states


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A narrow network's file as the publisher would write it, with statistics that are not those of a new one."""
    torch.manual_seed(3)
    network = narrow()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path / "narrow.pth"
    torch.save({"state_dict": published_names(network), "meta": {"source": "test"}}, path)
    return path


def test_published_names_load_whole_and_compute_the_same(published: Path) -> None:
    spec = EncoderSpec(id="i3resnet152", weights=str(published), in_channels=3, options=NARROW)
    volume = torch.rand(1, 3, 33, 40, 21, generator=torch.Generator().manual_seed(0))

    encoder, receipt = create_encoder(spec, spatial_dims=3)

    assert receipt.coverage == 1.0
    assert not receipt.of("unused")
    assert not receipt.of("re-initialised")
    tensors = torch.load(published, weights_only=True)["state_dict"]
    with torch.no_grad():
        pairs = zip(encoder.eval()(volume), published_forward(volume, tensors), strict=True)
        for found, wanted in pairs:
            torch.testing.assert_close(found, wanted.permute(0, 1, 3, 4, 2), rtol=1e-4, atol=1e-5)


def test_grey_volume_gives_what_its_copies_give(published: Path) -> None:
    spec = EncoderSpec(id="i3resnet152", weights=str(published), in_channels=3, options=NARROW)
    volume = torch.rand(1, 1, 32, 32, 16, generator=torch.Generator().manual_seed(0))
    colour, _ = create_encoder(spec, spatial_dims=3)
    grey, _ = create_encoder(replace(spec, in_channels=1), spatial_dims=3)

    with torch.no_grad():
        pairs = zip(grey.eval()(volume), colour.eval()(volume.expand(-1, 3, -1, -1, -1)), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spatial_dims": 2}, "3D network"),
        ({"layers": [3, 8]}, "four numbers"),
        ({"layers": [3, 8, 0, 3]}, "four numbers"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_impossible_networks_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_i3resnet152(**{"spatial_dims": 3, "in_channels": 1, **options})


def test_published_weights_load_strictly_and_run(record_property: Callable[[str, object], None]) -> None:
    weights = card().weights[0]
    if not on_this_machine(weights):
        pytest.skip("the weights are not here: pip install 'medxfer-i3resnet[weights]' (187 MB)")

    path = require(weights, "i3resnet152")  # joined, and its hash that of the card
    spec = EncoderSpec(id="i3resnet152", weights="ctrg", in_channels=1, min_coverage=1.0)
    encoder, receipt = create_encoder(spec, spatial_dims=3)

    assert path.stat().st_size == weights.size_bytes
    assert receipt.sha256 == weights.sha256
    assert receipt.coverage == 1.0
    assert not receipt.of("unused")
    assert not receipt.of("re-initialised")
    assert len(receipt.of("converted")) == 775  # bf16 to fp32
    assert len(receipt.of("loaded")) == 155 + 2  # counters; mean and std, from the card
    volume = torch.rand(1, 1, 96, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        begun = time.perf_counter()
        maps = encoder.eval()(volume)
        seconds = time.perf_counter() - begun
    record_property("seconds_96_bf16", seconds)
    sides = [found.shape[2:] for found in maps]
    assert sides == [(48, 48, 96), (24, 24, 48), (12, 12, 24), (6, 6, 12), (3, 3, 6)]
    assert all(bool(found.isfinite().all()) for found in maps)
