"""EfficientNet-Lite0: the contract, the published weights, and what they recognise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from medxfer_efficientnet_lite import build_lite0
from skimage import data
from torch.nn import functional

from medxfer.bundle.schema import EncoderSpec
from medxfer.cards import EncoderCard
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import card_of
from medxfer.encoders.weights import read_tensors, require
from medxfer.testing import Check, encoder_checks


@encoder_checks("efficientnet_lite0")
def test_conformance(check: Check) -> None:
    check()


@pytest.fixture(scope="module")
def card() -> EncoderCard:
    return card_of("efficientnet_lite0")


def classify(image: np.ndarray, card: EncoderCard) -> torch.Tensor:
    """Probabilities of the 1000 classes, with the published file's own top put on the last stage."""
    encoder, _ = create_encoder(EncoderSpec(id=card.id, weights="imagenet", in_channels=3))
    tensors, _ = read_tensors(require(card.weights[0], card.id))
    x = torch.from_numpy(image[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
    rows, columns = x.shape[2:]
    scale = 256 / min(rows, columns)
    x = functional.interpolate(
        x, size=(round(rows * scale), round(columns * scale)), mode="bilinear", antialias=True
    )
    top, left = ((n - 224) // 2 for n in x.shape[2:])
    with torch.no_grad():
        last = encoder.eval()(x[:, :, top : top + 224, left : left + 224])[-1]
        last = functional.conv2d(last, tensors["_conv_head.weight"])
        norm = [tensors[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        last = functional.relu6(functional.batch_norm(last, *norm, eps=1e-3))
        return functional.linear(last.mean((2, 3)), tensors["_fc.weight"], tensors["_fc.bias"]).softmax(1)[0]


def test_cat_is_recognised(card: EncoderCard) -> None:
    best = classify(data.chelsea(), card).topk(3).indices.tolist()

    assert set(best) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_coffee_is_recognised(card: EncoderCard) -> None:
    probabilities = classify(data.coffee(), card)

    assert int(probabilities.argmax()) == 967  # espresso
    assert probabilities[967] > 0.9


def test_receipt_accounts_for_all_of_the_file(card: EncoderCard) -> None:
    encoder, receipt = create_encoder(EncoderSpec(id=card.id, weights="imagenet", in_channels=1))

    unused = {row.name for row in receipt.of("unused")}
    assert receipt.coverage == 1.0
    assert unused == {
        "_conv_head.weight",
        *(f"_bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        "_fc.weight",
        "_fc.bias",
    }
    assert not receipt.of("re-initialised")
    assert {row.name for row in receipt.of("loaded")} == set(encoder.state_dict())
    assert len(receipt.of("loaded")) - 2 + len(unused) == 296  # two are mean and std, from the card


def test_grey_image_gives_what_its_colour_copy_gives(card: EncoderCard) -> None:
    grey, _ = create_encoder(EncoderSpec(id=card.id, weights="imagenet", in_channels=1))
    colour, _ = create_encoder(EncoderSpec(id=card.id, weights="imagenet", in_channels=3))
    image = torch.rand(2, 1, 70, 93, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        pairs = zip(grey.eval()(image), colour.eval()(image.expand(-1, 3, -1, -1)), strict=True)

        for one, other in pairs:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 65])
def test_padding_is_that_of_tensorflow(size: int, dims: int) -> None:
    encoder = build_lite0(spatial_dims=dims, in_channels=1).eval()

    with torch.no_grad():
        maps = encoder(torch.rand(1, 1, *[size] * (dims - 1), 3))

    lengths = [size]
    for _ in maps:
        lengths.append(math.ceil(lengths[-1] / 2))
    assert [found.shape[2] for found in maps] == lengths[1:]
    assert [found.shape[-1] for found in maps] == [2, 1, 1, 1, 1]


def test_even_size_pads_after_the_image_only() -> None:
    stem = build_lite0(spatial_dims=2, in_channels=1).stages[0][0]
    image = torch.rand(1, 1, 8, 8)

    seen = stem.conv(image)

    wanted = functional.conv2d(functional.pad(image, (0, 1, 0, 1)), stem.conv.weight, stride=2)
    torch.testing.assert_close(seen, wanted)


def test_each_axis_of_a_volume_is_padded_by_what_its_length_needs() -> None:
    stem = build_lite0(spatial_dims=3, in_channels=1).stages[0][0]
    volume = torch.rand(1, 1, 8, 7, 6)

    seen = stem.conv(volume)

    wanted = functional.conv3d(functional.pad(volume, (0, 1, 1, 1, 0, 1)), stem.conv.weight, stride=2)
    torch.testing.assert_close(seen, wanted)
