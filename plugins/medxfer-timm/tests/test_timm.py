"""timm's networks as encoders: the contract, the chain of stages, cards, refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from medxfer_timm import build, card
from medxfer_timm.building import build_with_names
from medxfer_timm.operators import import_timm

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.registry import build as build_by_id
from medxfer.encoders.registry import card_of, remarks
from medxfer.errors import PluginError
from medxfer.testing import Check, encoder_checks

# Channels and strides of every network that the README calls tested.
TESTED = {
    "vgg16": ((64, 128, 256, 512, 512), (1, 2, 4, 8, 16)),
    "inception_v3": ((64, 192, 288, 768, 2048), (2, 4, 8, 16, 32)),
    "legacy_xception": ((64, 128, 256, 728, 2048), (2, 4, 8, 16, 32)),
    "resnetv2_152": ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "resnet50": ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "densenet201": ((64, 256, 512, 1792, 1920), (2, 4, 8, 16, 32)),
    "mobilenetv2_100": ((16, 24, 32, 96, 320), (2, 4, 8, 16, 32)),
    "efficientnet_b0": ((16, 24, 40, 112, 320), (2, 4, 8, 16, 32)),
    "tf_efficientnet_lite0": ((16, 24, 40, 112, 320), (2, 4, 8, 16, 32)),
    "convnext_tiny": ((96, 192, 384, 768), (4, 8, 16, 32)),
    "vit_small_patch16_224": ((384,) * 4, (16,) * 4),
}


@encoder_checks("timm:mobilenetv2_100")
def test_conformance_of_a_convolutional_network(check: Check) -> None:
    check()


@encoder_checks("timm:test_vit")
def test_conformance_of_a_transformer(check: Check) -> None:
    check()


@pytest.mark.parametrize("name", TESTED)
def test_stages_are_a_chain_that_owns_every_parameter(name: str) -> None:
    # Building it has compared the stages with timm's own forward already, bit by bit but for rounding.
    encoder = build(name, spatial_dims=2, in_channels=1).eval()
    images = torch.rand(1, 1, 65, 79, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        states = encoder.forward_features(images)
        half = len(states) // 2
        first = encoder.forward_features(images, 0, half)
        rest = encoder.forward_features(first[-1], half)
        maps = encoder(images)

    assert (encoder.channels, tuple(rows for rows, _ in encoder.strides)) == TESTED[name]
    assert all(torch.equal(one, other) for one, other in zip(states, [*first, *rest], strict=True))
    for found, channels, (stride, _) in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert found.shape[1] == channels
        assert all(
            n // stride <= m <= -(-n // stride) for n, m in zip((65, 79), found.shape[2:], strict=True)
        )
    owners = [id(value) for stage in encoder.stages for value in stage.parameters()]
    assert sorted(owners) == sorted(id(value) for value in encoder.parameters())
    assert all(stage.state_dict() for stage in encoder.stages)


def test_vgg19_is_cut_as_vgg16() -> None:
    made, smaller = card("vgg19"), card("vgg16")  # built without numbers: its 139 M parameters take a second

    assert (made.channels, made.strides) == (smaller.channels, smaller.strides)
    assert made.parameters == {2: 20_024_384}


def test_every_tensor_has_its_timm_name() -> None:
    encoder, names = build_with_names("densenet201", 3)
    theirs = import_timm().create_model("densenet201", num_classes=0).state_dict()

    ours = encoder.state_dict()

    assert set(names.values()) == {name for name in ours if not name.startswith("normalise.")}
    assert all(theirs[name].shape == ours[names[name]].shape for name in names)


def test_card_is_timms_pretrained_configuration() -> None:
    made = card_of("timm:resnet50")

    assert made.id == "timm:resnet50"
    assert made.parameters == {2: 23_508_032}
    weights = made.weights_tagged("a1_in1k")
    assert weights == made.weights[0]  # timm's own choice
    assert weights.source == "hf:timm/resnet50.a1_in1k/model.safetensors"
    assert weights.licence == "Apache-2.0"
    assert weights.mean == (0.485, 0.456, 0.406)
    assert weights.trained_on == "1.28 million ImageNet photographs, 1000 classes; 224 x 224 pixels"
    assert weights.sha256 is None


def test_original_file_is_the_source_where_timms_hub_has_none() -> None:
    (weights,) = card("legacy_xception").weights

    assert weights.source.startswith("https://")
    assert weights.source.endswith("xception-43020ad28.pth")


def test_network_without_published_weights_has_a_card_without_weights() -> None:
    assert card("resnetv2_152").weights == ()


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match="timm:resnet50") as caught:
        build_by_id("timm:resnet5O", spatial_dims=2, in_channels=3)

    assert caught.value.exit_code == 3


def test_tag_in_the_name_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(PluginError, match="weights: a1_in1k"):
        card_of("timm:resnet50.a1_in1k")


def test_adapter_without_a_name_is_refused() -> None:
    with pytest.raises(PluginError, match="timm:NAME"):
        build_by_id("timm", spatial_dims=2, in_channels=3)


def test_three_dimensions_are_refused() -> None:
    with pytest.raises(PluginError, match="2D"):
        build_by_id("timm:resnet50", spatial_dims=3, in_channels=1)


def test_network_that_is_no_chain_is_refused_and_not_bent() -> None:
    with pytest.raises(PluginError, match="cannot be cut into stages"):
        build_by_id("timm:hrnet_w18_small", spatial_dims=2, in_channels=3)


def test_hub_name_is_refused_without_asking_the_network() -> None:
    with pytest.raises(PluginError, match="no such network"):
        build_by_id("timm:hf-hub:timm/resnet50", spatial_dims=2, in_channels=3)


def test_state_is_not_changed_by_the_next_stage() -> None:
    encoder = build("resnetv2_18", spatial_dims=2, in_channels=3).eval()
    images = torch.rand(1, 3, 64, 64)

    with torch.no_grad():
        together = encoder.forward_features(images)
        alone = encoder.forward_features(images, 0, 1)[0]

    torch.testing.assert_close(together[0], alone, rtol=0, atol=0)


def test_missing_operators_are_declared_only_where_the_import_fails() -> None:
    """In a fresh process: what is said agrees with what torchvision does without the plugin."""
    script = (
        "try:\n    import torchvision; plain = True\n"
        "except RuntimeError as error:\n    plain = False; assert 'torchvision::nms' in str(error)\n"
        "from medxfer_timm.operators import remarks\n"
        "assert (remarks() == []) is plain, remarks()\n"
    )

    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)

    assert all("torchvision" in one for one in remarks())


def test_weights_option_of_a_bundle_takes_the_adapters_tags() -> None:
    spec = EncoderSpec(id="timm:mobilenetv2_100", weights="ra_in1k")

    assert card_of(spec.id).weights_tagged(spec.weights) is not None
