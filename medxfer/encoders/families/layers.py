"""What the families share: torch's layers by number of spatial dimensions, usual strides and constants."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...plugin import Normalise

CONVOLUTION: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: Mapping[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: Mapping[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOL: Mapping[int, type[nn.AdaptiveAvgPool2d] | type[nn.AdaptiveAvgPool3d]] = {
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}


def halving(spatial_dims: int, stages: int) -> tuple[tuple[int, ...], ...]:
    """Cumulative strides 2, 4, 8, ... on every axis."""
    return tuple((2 << index,) * spatial_dims for index in range(stages))


def typical(in_channels: int) -> Normalise:
    """Mean and deviation of a typical image in [0, 1], for random weights; pretrained ones bring their own."""
    return Normalise([0.5] * in_channels, [0.25] * in_channels)
