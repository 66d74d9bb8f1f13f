"""ImageNet weights of the 2D networks in volumes."""

from __future__ import annotations

import pytest
import torch

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import card_of
from medxfer.encoders.sources import on_this_machine

IDS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def spec_of(encoder_id: str) -> EncoderSpec:
    if not on_this_machine(card_of(encoder_id).weights[0]):
        pytest.skip(f"the package with the weights of {encoder_id} is not installed")
    return EncoderSpec(id=encoder_id, weights="imagenet", in_channels=1)


@pytest.mark.parametrize("encoder_id", IDS)
def test_receipt_says_which_kernels_were_inflated(encoder_id: str) -> None:
    encoder, receipt = create_encoder(spec_of(encoder_id), spatial_dims=3)

    converted = {row.name: row.steps for row in receipt.of("converted")}
    kernels = {name for name, value in encoder.state_dict().items() if value.ndim == 5}
    assert receipt.coverage == 1.0
    assert not receipt.of("re-initialised")
    assert set(converted) == kernels
    assert converted["stages.0.0.conv.weight"] == ("2D kernel put into the middle of 3",)
    assert {row.name for row in receipt.of("loaded")} == set(encoder.state_dict()) - kernels


def test_volume_of_equal_slices_is_answered_as_its_slice() -> None:
    flat, _ = create_encoder(spec_of("efficientnet_lite0"))
    deep, _ = create_encoder(spec_of("efficientnet_lite0"), spatial_dims=3)
    image = torch.rand(1, 1, 64, 45, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        wanted = flat.eval()(image)
        seen = deep.eval()(image[..., None].expand(-1, -1, -1, -1, 34))

    for one, other in zip(seen, wanted, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(one / scale, (other[..., None] / scale).expand_as(one), rtol=0, atol=1e-5)
