"""Squeeze-and-excitation networks (Hu et al. 2018) in 2D and 3D, with the names of the published files.

Own blocks: MONAI's hold the squeeze as linear layers under other names, so that no published file fits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from ...plugin import Encoder
from .layers import BATCH_NORM, CONVOLUTION, MAX_POOL, MEAN_POOL, halving, typical

_EXPANSION = 4
_REDUCTION = 16
_WIDTHS = (64, 128, 256, 512)


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what all channels hold on average.

    Args:
        dims: Spatial dimensions.
        channels: In and out.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.pool = MEAN_POOL[dims](1)
        self.fc1 = CONVOLUTION[dims](channels, channels // _REDUCTION, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = CONVOLUTION[dims](channels // _REDUCTION, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, *spatial)` to the same shape."""
        weights: Tensor = self.fc2(self.relu(self.fc1(self.pool(x))))
        return x * weights.sigmoid()


class Bottleneck(nn.Module):
    """Narrow, filter in groups, widen, weigh the channels; plus the shortcut.

    Args:
        dims: Spatial dimensions.
        inputs: Channels before it.
        inner: Channels before and after the grouped convolution.
        outputs: Channels after it.
        groups: Of the middle convolution.
        stride: Of the middle convolution and the shortcut.
        shortcut: Kernel of the shortcut's convolution, used where the shape changes.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        inner: tuple[int, int],
        outputs: int,
        *,
        groups: int,
        stride: int,
        shortcut: int,
    ) -> None:
        super().__init__()
        conv, norm = CONVOLUTION[dims], BATCH_NORM[dims]
        first, second = inner
        self.conv1 = conv(inputs, first, kernel_size=1, bias=False)
        self.bn1 = norm(first)
        self.conv2 = conv(first, second, kernel_size=3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = norm(second)
        self.conv3 = conv(second, outputs, kernel_size=1, bias=False)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.se_module = SqueezeExcitation(dims, outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            across = conv(inputs, outputs, shortcut, stride=stride, padding=shortcut // 2, bias=False)
            self.downsample = nn.Sequential(across, norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, *spatial)` to `(B, outputs, *ceil(spatial / stride))`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.se_module(self.bn3(self.conv3(y)))
        total: Tensor = self.relu(y + self.downsample(x))
        return total


class SENetEncoder(Encoder):
    """Five stages: stem (stride 2), then the four layers, the first behind the max pooling.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        layers: Blocks in each of the four layers.
        inner: Channels around the grouped convolution of the first layer; doubled from layer to layer.
        groups: Of the grouped convolutions.
        deep: SENet-154's stem of three 3x3 convolutions and 3x3 shortcuts, instead of one 7x7 and 1x1.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        layers: Sequence[int],
        inner: tuple[int, int],
        groups: int,
        deep: bool,
    ) -> None:
        super().__init__()
        dims = spatial_dims
        stem = [(64, 3, 2), (64, 3, 1), (128, 3, 1)] if deep else [(64, 7, 2)]
        width = stem[-1][0]
        self.spatial_dims = dims
        self.in_channels = in_channels
        self.channels = (width, *(base * _EXPANSION for base in _WIDTHS))
        self.strides = halving(dims, 5)
        self.normalise = typical(in_channels)
        stages = [nn.Sequential(OrderedDict(layer0=_stem(dims, in_channels, stem)))]
        for index, count in enumerate(layers):
            outputs = self.channels[index + 1]
            blocks = nn.Sequential()
            for number in range(count):
                block = Bottleneck(
                    dims,
                    width,
                    (inner[0] << index, inner[1] << index),
                    outputs,
                    groups=groups,
                    stride=2 if index > 0 and number == 0 else 1,
                    shortcut=3 if deep and index > 0 else 1,
                )
                # All branches of a layer together weigh as much as its shortcut: without, random weights make the
                # 36 blocks of SENet-154 so steep that rounding alone changes their maps.
                nn.init.constant_(block.bn3.weight, count**-0.5)
                blocks.append(block)
                width = outputs
            stages.append(nn.Sequential(OrderedDict({f"layer{index + 1}": blocks})))
        # Without padding, rounded up: as published.
        pool = MAX_POOL[dims](kernel_size=3, stride=2, ceil_mode=True)
        stages[1] = nn.Sequential(OrderedDict(pool=pool, layer1=stages[1][0]))
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight)  # those with a bias, the squeezes, stay as torch's


def _stem(dims: int, in_channels: int, convolutions: Sequence[tuple[int, int, int]]) -> nn.Sequential:
    """Convolutions of (outputs, kernel, stride), numbered from 1 as in the published files."""
    stem = nn.Sequential()
    inputs = in_channels
    for number, (outputs, kernel, stride) in enumerate(convolutions, start=1):
        conv = CONVOLUTION[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        stem.add_module(f"conv{number}", conv)
        stem.add_module(f"bn{number}", BATCH_NORM[dims](outputs))
        stem.add_module(f"relu{number}", nn.ReLU(inplace=True))
        inputs = outputs
    return stem


def build_se_resnext50(*, spatial_dims: int, in_channels: int) -> Encoder:
    """SE-ResNeXt-50, 32 groups of 4."""
    return SENetEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        layers=(3, 4, 6, 3),
        inner=(128, 128),
        groups=32,
        deep=False,
    )


def build_senet154(*, spatial_dims: int, in_channels: int) -> Encoder:
    """SENet-154."""
    return SENetEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        layers=(3, 8, 36, 3),
        inner=(128, 256),
        groups=64,
        deep=True,
    )
