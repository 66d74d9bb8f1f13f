from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medxfer.evaluation.explain import grad_cam
from medxfer.networks.heads import ClassificationHead
from medxfer.networks.network import Network
from medxfer.plugin import Encoder, Normalise


class Bright(Encoder):
    """Three stages that halve the image; the first channel is how bright a place is."""

    spatial_dims, in_channels, channels = 2, 1, (2, 2, 2)
    strides = ((2, 2), (4, 4), (8, 8))

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise([0.0], [1.0])
        first = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            first.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            first.bias.zero_()  # type: ignore[union-attr]
        pool = nn.AvgPool2d(2)
        self.stages = nn.ModuleList([nn.Sequential(first, nn.ReLU(), pool), nn.AvgPool2d(2), nn.AvgPool2d(2)])


class Tokens(Bright):
    """The same, but its last stage gives tokens (B, positions, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages[2] = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(2))

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return state if index < 2 else state.unflatten(2, (size[0] // 8, size[1] // 8))


def network(encoder: Encoder) -> Network:
    """Class 1 for what is bright, class 0 against it."""
    made = Network(encoder, ClassificationHead(encoder.channels, 2))
    with torch.no_grad():
        made.head.linear.weight.copy_(torch.tensor([[-1.0, 0.0] * 3, [1.0, 0.0] * 3]))
    return made


def spot(size: int = 64) -> Tensor:
    images = torch.zeros(2, 1, size, size)
    images[0, :, 40:56, 8:24] = 1.0
    return images


@pytest.mark.parametrize("encoder", [Bright, Tokens])
def test_the_map_is_where_the_evidence_is(encoder: type[Encoder]) -> None:
    cam, blank = grad_cam(network(encoder()), spot(), 1)

    assert cam is not None
    assert cam.shape == (64, 64)
    assert float(cam.max()) == 1.0
    assert float(cam.min()) >= 0.0
    row, column = divmod(int(cam.argmax()), 64)
    assert 40 <= row < 56
    assert 8 <= column < 24
    assert float(cam[:32].max()) == 0.0
    assert blank is None


def test_a_class_that_nothing_speaks_for_gives_a_blank_map() -> None:
    assert grad_cam(network(Bright()), spot(), 0) == [None, None]


def test_frozen_parameters_and_inference_mode_are_no_obstacle() -> None:
    frozen = network(Bright()).requires_grad_(False)

    with torch.inference_mode():
        images = spot()
        cam = grad_cam(frozen, images, 1)[0]

    assert cam is not None
    assert not cam.requires_grad
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_a_map_that_is_not_finite_is_none() -> None:
    images = spot()
    images[0, 0, 0, 0] = float("nan")

    assert grad_cam(network(Bright()), images, 1)[0] is None


def test_the_deepest_map_of_four_positions_is_used() -> None:
    # 24 pixels: maps of 12, 6 and 3, of which the second is the last that tells places apart
    images = torch.zeros(1, 1, 24, 24)
    images[0, 0, 0:4, 0:4] = 1.0

    (cam,) = grad_cam(network(Bright()), images, 1)

    assert cam is not None
    assert float(cam[:4, :4].mean()) > 0.5
    assert float(cam[12:, 12:].max()) == 0.0


def test_the_network_is_left_in_its_mode_and_without_gradients() -> None:
    made = network(Bright())
    made.train()

    grad_cam(made, spot(), 1)

    assert made.training
    assert all(parameter.grad is None for parameter in made.parameters())
