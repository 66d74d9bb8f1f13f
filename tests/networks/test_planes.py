"""A 2D network that is asked about volumes: plane by plane, as MONAI's inferer asks it."""

from __future__ import annotations

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from medxfer.data.planes import picture_of
from medxfer.encoders.families.unet import UNetEncoder
from medxfer.networks.decoder import Decoder
from medxfer.networks.network import Network
from medxfer.networks.windows import predict_windows


def network_of(window: tuple[int, ...], *, channels: int = 1, flips: tuple[int, ...] = ()) -> Network:
    torch.manual_seed(0)
    encoder = UNetEncoder(spatial_dims=2, in_channels=channels, widths=(8, 16))
    return Network(
        encoder,
        Decoder(encoder.channels, encoder.strides, channels, 3, width=8),
        window=window,
        flips=flips,
    ).eval()


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_every_plane_is_answered_as_its_picture(thin: int) -> None:
    shape = [16, 18, 20]
    window = [*shape]
    window[thin] = 1
    network, images = network_of(tuple(window), channels=2), torch.rand(2, 2, *shape)

    with torch.no_grad():
        found = predict_windows(network, images, network.window, overlap=0.25)

    assert found.shape == (2, 3, *shape)
    for number in range(shape[thin]):
        with torch.no_grad():
            own = network(picture_of(images.narrow(thin + 2, number, 1), thin))
        torch.testing.assert_close(
            picture_of(found.narrow(thin + 2, number, 1), thin), own, atol=1e-4, rtol=1e-3
        )


def test_planes_smaller_and_larger_than_the_window_are_monais() -> None:
    network, images = network_of((16, 8, 1)), torch.rand(1, 1, 11, 21, 5)

    with torch.no_grad():
        found = predict_windows(network, images, network.window, overlap=0.4)
        theirs = sliding_window_inference(images, (16, 8, 1), 7, network, overlap=0.4, mode="gaussian")

    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-3)


def test_planes_go_through_the_network_many_at_a_time_and_each_once() -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.counts = list[int]()

        def forward(self, x: Tensor) -> Tensor:
            self.counts.append(len(x))
            return x

    network, images = Seen(), torch.rand(1, 1, 128, 128, 70)

    found = predict_windows(network, images, (128, 128, 1), overlap=0.5)

    assert network.counts == [32, 32, 6]
    torch.testing.assert_close(found, images)


def test_flips_are_those_of_the_volumes_axes() -> None:
    network, plain = network_of((16, 1, 12), flips=(0, 2)), network_of((16, 1, 12))
    images = torch.rand(1, 1, 16, 4, 12)

    with torch.no_grad():
        found = predict_windows(network, images, network.window, overlap=0.25)
        turned = [
            predict_windows(plain, images.flip(axes), plain.window, overlap=0.25).flip(axes)
            for axes in ([], [2], [4], [2, 4])
        ]

    torch.testing.assert_close(found, torch.stack(turned).mean(0), atol=1e-4, rtol=1e-3)
