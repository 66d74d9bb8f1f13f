"""A decoder needs nothing of an encoder but its channels and strides."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor
from torch.nn import functional

from medxfer.networks.decoder import Decoder, levels_of
from medxfer.networks.network import Network
from medxfer.plugin import Encoder, Normalise


class Chain(Encoder):
    """Strided convolutions with any strides."""

    def __init__(self, steps: list[tuple[int, ...]], channels: tuple[int, ...]) -> None:
        super().__init__()
        dims = len(steps[0])
        layer = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
        self.spatial_dims, self.in_channels, self.channels = dims, 1, channels
        strides = [steps[0]]
        for step in steps[1:]:
            strides.append(tuple(a * b for a, b in zip(strides[-1], step, strict=True)))
        self.strides = tuple(strides)
        before = [1, *channels[:-1]]
        self.stages = torch.nn.ModuleList(
            layer(a, b, 3, stride=step, padding=1) for a, b, step in zip(before, channels, steps, strict=True)
        )
        self.normalise = Normalise([0.5], [0.25])


STEPS = {
    "first stride 1": [(1, 1), (2, 2), (2, 2)],
    "first stride 4": [(4, 4), (2, 2)],
    "equal strides": [(16, 16), (1, 1), (1, 1)],
    "strides by axis": [(2, 2, 1), (2, 2, 2), (2, 2, 2)],
    "volumes": [(2, 2, 2), (2, 2, 2)],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("attention", [False, True])
def test_logits_have_the_images_size(steps: list[tuple[int, ...]], attention: bool) -> None:
    encoder = Chain(steps, (8, 24, 40)[: len(steps)])
    network = Network(
        encoder, Decoder(encoder.channels, encoder.strides, 1, 3, attention=attention, deep_supervision=True)
    )

    for size in ((64, 48, 32), (37, 51, 29)):
        x = torch.rand(2, 1, *size[: encoder.spatial_dims])
        finest, *coarser = network.train()(x)
        assert finest.shape == (2, 3, *x.shape[2:])
        assert all(one.shape[1] == 3 for one in coarser)
        assert network.eval()(x).shape == finest.shape


@given(
    some.lists(
        some.tuples(some.sampled_from([1, 2, 4]), some.sampled_from([1, 2, 4])), min_size=1, max_size=5
    )
)
def test_no_two_levels_are_more_than_two_fold_apart(steps: list[tuple[int, int]]) -> None:
    strides = [
        tuple(math.prod(step[axis] for step in steps[: i + 1]) for axis in (0, 1)) for i in range(len(steps))
    ]

    levels = levels_of(strides)

    assert set(strides) <= set(levels)
    assert levels[-1] == (1, 1)
    for coarse, fine in itertools.pairwise(levels):
        assert coarse != fine
        assert all(b <= a <= 2 * b for a, b in zip(coarse, fine, strict=True))


def disc(count: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centres = torch.rand(count, 2, generator=random) * 16 + 8
    masks = (rows - centres[:, 0, None, None]).square() + (columns - centres[:, 1, None, None]).square() < 36
    return (masks + 0.5 * torch.rand(count, 32, 32, generator=random))[:, None], masks.long()


def test_it_learns_where_a_disc_is() -> None:
    torch.manual_seed(0)
    encoder = Chain([(2, 2), (2, 2)], (8, 16))
    network = Network(encoder, Decoder(encoder.channels, encoder.strides, 1, 2, width=8)).train()
    images, masks = disc(16)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)

    for _ in range(40):
        loss = functional.cross_entropy(network(images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    said = network.eval()(images).argmax(1)
    assert float(((said == 1) & (masks == 1)).sum() * 2 / ((said == 1).sum() + (masks == 1).sum())) > 0.95


def test_every_parameter_of_it_gets_a_gradient() -> None:
    encoder = Chain(STEPS["strides by axis"], (8, 16, 24))
    head = Decoder(encoder.channels, encoder.strides, 1, 2, attention=True, deep_supervision=True)
    network = Network(encoder, head).train()

    sum(one.square().mean() for one in network(torch.rand(1, 1, 16, 16, 8))).backward()  # type: ignore[union-attr]

    assert all(parameter.grad is not None for parameter in head.parameters())
