"""Inflated 3D ResNet-152 (Carreira and Zisserman 2017; layout of Merlin, Stanford MIMI Lab) as a medxfer encoder.

Volumes are (X, Y, Z), the published kernels (Z, X, Y). The stem turns its input, every stage works in the
kernels' order, and `as_map` turns maps back: views, no copies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from medxfer.plugin import Encoder, Normalise

__all__ = ["build_i3resnet152"]

_EXPANSION = 4


class Stem(nn.Module):
    """First convolution, stride 2 within the slice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, X, Y, Z)` to `(B, outputs, Z, ceil(X / 2), ceil(Y / 2))`."""
        return F.relu(self.norm(self.conv(x.permute(0, 1, 4, 2, 3))), inplace=True)


class Bottleneck(nn.Module):
    """1, 3 x 3 x 3, 1; the stride in the middle. Parts are named as in the published file."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, Z, X, Y)` to `(B, 4 * width, *ceil(size / stride))`."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class InflatedResNet(Encoder):
    """Five stages: stem, then the four layers, the first behind the max pooling.

    States between stages are `(B, C, Z, X, Y)`, maps `(B, C, X, Y, Z)`.

    Args:
        in_channels: Of the first convolution.
        layers: Blocks in each of the four layers.
        width: Channels of the stem.
    """

    def __init__(self, *, in_channels: int, layers: Sequence[int], width: int) -> None:
        super().__init__()
        self.spatial_dims = 3
        self.in_channels = in_channels
        self.channels = (width, *(width * _EXPANSION << level for level in range(4)))
        self.strides = ((2, 2, 1), *((4 << level, 4 << level, 2 << level) for level in range(4)))
        self.normalise = Normalise([0.0] * in_channels, [1.0] * in_channels)
        stages: list[nn.Module] = [Stem(in_channels, width)]
        inputs = width
        for level, count in enumerate(layers):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if level > 0 and index == 0 else 1
                blocks.append(Bottleneck(inputs, width << level, stride))
                inputs = (width << level) * _EXPANSION
            pool = [("pool", nn.MaxPool3d(3, 2, 1))] if level == 0 else []
            stages.append(nn.Sequential(OrderedDict([*pool, ("blocks", nn.Sequential(*blocks))])))
        self.stages = nn.ModuleList(stages)
        self.apply(_initialise)

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        """`(B, C, Z, X, Y)` as `(B, C, X, Y, Z)`."""
        del index, size  # every stage is turned alike
        return state.permute(0, 1, 3, 4, 2)


def _initialise(module: nn.Module) -> None:
    """He et al. 2015, by outputs, as torchvision's residual networks."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_i3resnet152(
    *, spatial_dims: int, in_channels: int, layers: Sequence[int] = (3, 8, 36, 3), width: int = 64
) -> Encoder:
    """Inflated ResNet-152; fewer `layers` or less `width` give a small one of the same make, without weights.

    Args:
        spatial_dims: 3.
        in_channels: Of the first convolution.
        layers: Blocks in each of the four layers.
        width: Channels of the stem.

    Raises:
        ValueError: Another number of dimensions, or layers and width that make no network.
    """
    if spatial_dims != 3:
        raise ValueError(f"spatial_dims is {spatial_dims}; I3ResNet is a 3D network")
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"layers is {list(layers)}; give four numbers above 0, such as [3, 8, 36, 3]")
    if width < 1:
        raise ValueError(f"width is {width}; give a number above 0, such as 64")
    return InflatedResNet(in_channels=in_channels, layers=layers, width=width)
