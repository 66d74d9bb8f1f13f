"""A trained network as the start of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.errors import ConfigError, WeightsError
from medxfer.networks.network import Network
from medxfer.networks.starting import start_from
from medxfer.tasks.segmentation import Segmentation


def network(classes: int, seed: int, encoder: str = "unet", **options: object) -> Network:
    torch.manual_seed(seed)
    made, _ = create_encoder(EncoderSpec(id=encoder, options=options), spatial_dims=2)
    task = Segmentation([f"c{number}" for number in range(classes)], decoder={"width": 8})
    return Network(made, task.head(made))


def test_encoder_and_decoder_are_taken_and_only_the_last_layer_begins_anew_with_other_classes() -> None:
    trained, other = network(3, 1, width=8), network(1, 2, width=8)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}

    started = start_from(other, trained, "runs/one")

    assert set(started.fresh) == {name for name in before if name.startswith("head.outputs.")}
    for name, tensor in other.state_dict().items():
        expected = before[name] if name in started.fresh else trained.state_dict()[name]
        assert torch.equal(tensor, expected), name
    assert "shape" in next(iter(started.fresh.values()))
    assert "runs/one" in started.table()
    assert started.to_json()["fresh"] == dict(started.fresh)


def test_the_same_question_starts_with_every_tensor() -> None:
    trained, other = network(2, 1, width=8), network(2, 2, width=8)

    started = start_from(other, trained, "runs/one")

    assert not started.fresh
    assert not started.unused
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(other.eval()(x), trained.eval()(x))


def test_another_encoder_is_refused_and_nothing_is_changed() -> None:
    other = network(2, 2, width=16)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}

    with pytest.raises(WeightsError, match="counterpart"):
        start_from(other, network(2, 1, width=8), "runs/one")

    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_start_beside_encoder_weights_is_refused(tmp_path: Path) -> None:
    bundle = Path(__file__).parents[2] / "bundles" / "lung_xray_seg"

    with pytest.raises(ConfigError, match="one of both"):
        load_bundle(bundle, overrides=[f"start={tmp_path}"])
