"""EfficientNet-Lite1 and Lite2, other tables of the class that test_lite0 puts through the kit."""

from __future__ import annotations

import math

import pytest
import torch
from skimage import data
from torch.nn import functional

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import build, card_of
from medxfer.encoders.sources import on_this_machine
from medxfer.encoders.weights import read_tensors, require

BOTH = pytest.mark.parametrize("encoder_id", ["efficientnet_lite1", "efficientnet_lite2"])


@BOTH
@pytest.mark.parametrize("dims", [2, 3])
def test_card_tells_what_is_built(encoder_id: str, dims: int) -> None:
    card = card_of(encoder_id)

    encoder = build(encoder_id, spatial_dims=dims, in_channels=3)

    assert card.channels == encoder.channels
    assert encoder.strides == tuple((stride,) * dims for stride in (2, 4, 8, 16, 32))
    assert card.parameters[dims] == sum(parameter.numel() for parameter in encoder.parameters())


@BOTH
def test_weights_recognise_cat_and_coffee(encoder_id: str) -> None:
    weights = card_of(encoder_id).weights[0]
    if not on_this_machine(weights):
        pytest.skip(f"the package with the weights of {encoder_id} is not installed")
    encoder, receipt = create_encoder(EncoderSpec(id=encoder_id, weights="imagenet", in_channels=3))
    tensors, _ = read_tensors(require(weights, encoder_id))
    norm = [tensors[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]

    best = []
    with torch.no_grad():
        for image in (data.chelsea(), data.coffee()):
            x = torch.from_numpy(image[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
            scale = 272 / min(x.shape[2:])
            size = [round(n * scale) for n in x.shape[2:]]
            x = functional.interpolate(x, size=size, mode="bilinear", antialias=True)
            top, left = ((n - 240) // 2 for n in size)
            last = encoder.eval()(x[:, :, top : top + 240, left : left + 240])[-1]
            last = functional.conv2d(last, tensors["_conv_head.weight"])
            last = functional.relu6(functional.batch_norm(last, *norm, eps=1e-3)).mean((2, 3))
            best.append(int(functional.linear(last, tensors["_fc.weight"], tensors["_fc.bias"]).argmax()))

    assert receipt.coverage == 1.0
    assert {row.name for row in receipt.of("loaded")} == set(encoder.state_dict())
    assert len(receipt.of("loaded")) - 2 + len(receipt.of("unused")) == len(tensors) == 386
    assert best[0] in {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert best[1] == 967  # espresso


@BOTH
def test_padding_is_that_of_tensorflow(encoder_id: str) -> None:
    encoder = build(encoder_id, spatial_dims=2, in_channels=1).eval()

    with torch.no_grad():
        maps = encoder(torch.rand(1, 1, 33, 33))

    assert [found.shape[-1] for found in maps] == [math.ceil(33 / stride) for stride in (2, 4, 8, 16, 32)]
