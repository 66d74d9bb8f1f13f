"""Adaptation to other images is exact, borders included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medxfer.encoders.adapt import ExpandChannels, inflate_centre, spread_channels
from medxfer.plugin import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_grey_expanded_then_normalised_equals_its_colour_copy_at_borders() -> None:
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    grey = torch.rand(2, 1, 9, 7)

    seen = convolution(nn.Sequential(ExpandChannels(1, 3), Normalise(MEAN, STD))(grey))

    wanted = convolution(Normalise(MEAN, STD)(grey.expand(-1, 3, -1, -1)))
    assert torch.equal(seen, wanted)


def test_two_channels_take_turns() -> None:
    images = torch.rand(2, 2, 5, 5)

    seen = ExpandChannels(2, 3)(images)

    assert torch.equal(seen, images[:, [0, 1, 0]])


@pytest.mark.parametrize(("trained", "channels"), [(3, 4), (1, 3), (3, 7)])
def test_spread_convolution_keeps_its_response(trained: int, channels: int) -> None:
    weight = torch.rand(4, trained, 3, 3)
    images = torch.rand(2, trained, 8, 8)

    seen = nn.functional.conv2d(
        images[:, torch.arange(channels) % trained], spread_channels(weight, channels)
    )

    torch.testing.assert_close(seen, nn.functional.conv2d(images, weight))


def test_inflated_convolution_keeps_its_response_in_every_slice() -> None:
    weight = torch.rand(4, 2, 3, 3)
    image = torch.rand(1, 2, 8, 8)

    seen = nn.functional.conv3d(
        image[..., None].expand(-1, -1, -1, -1, 5), inflate_centre(weight, 3), padding=1
    )

    wanted = nn.functional.conv2d(image, weight, padding=1)[..., None].expand_as(seen)
    torch.testing.assert_close(seen, wanted)
