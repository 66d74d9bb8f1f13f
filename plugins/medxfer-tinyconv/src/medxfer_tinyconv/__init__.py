"""Tinyconv: three strided convolutions as a medxfer encoder, in two and in three dimensions."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from medxfer.plugin import Encoder, Normalise

__all__ = ["build"]


class Tinyconv(Encoder):
    """Stages at strides 2, 4 and 8, each twice as wide as the one before."""

    def __init__(self, *, spatial_dims: int, in_channels: int, width: int) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = (width, 2 * width, 4 * width)
        self.strides = tuple((2 << i,) * spatial_dims for i in range(3))
        self.normalise = Normalise([0.5] * in_channels, [0.25] * in_channels)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU())
            for before, after in pairwise((in_channels, *self.channels))
        )


def build(*, spatial_dims: int, in_channels: int, width: int = 16) -> Encoder:
    """Build it with random weights; `width` is the number of channels of the first stage, a multiple of 4."""
    return Tinyconv(spatial_dims=spatial_dims, in_channels=in_channels, width=width)
