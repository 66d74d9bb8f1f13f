"""EfficientNet (Tan and Le 2019) in 2D and 3D, with the publisher's names, padding and normalisation.

Own blocks: MONAI's pad for one fixed image size, wrong at every other.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import PluginError
from ...plugin import Encoder
from .layers import BATCH_NORM, CONVOLUTION, MEAN_POOL, halving, typical

# Blocks, kernel, stride, expansion, output channels of each group in B0, and the stage that it belongs to.
_GROUPS = (
    (1, 3, 1, 1, 16, 0),
    (2, 3, 2, 6, 24, 1),
    (2, 5, 2, 6, 40, 2),
    (3, 3, 2, 6, 80, 3),
    (3, 5, 1, 6, 112, 3),
    (4, 5, 2, 6, 192, 4),
    (1, 3, 1, 6, 320, 4),
)
_STEM = 32
_SQUEEZE = 4  # a block's input channels over those in the middle of its squeeze-and-excitation
_Convolution = nn.Conv2d | nn.Conv3d


def _convolution(
    dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> _Convolution:
    """Where the stride is above 1, `_padded` pads what the size needs."""
    padding = kernel // 2 if stride == 1 else 0
    return CONVOLUTION[dims](inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=bias)


def _padded(x: Tensor, convolution: _Convolution) -> Tensor:
    """TensorFlow's "same" padding: size ceil(input / stride) comes out, an odd pixel goes last."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    if stride == 1:
        return x
    sides: list[int] = []
    for length in reversed(x.shape[2:]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def _norm(dims: int, channels: int) -> nn.Module:
    return BATCH_NORM[dims](channels, eps=1e-3, momentum=0.01)  # momentum 0.99 in TensorFlow's terms


class Stem(nn.Module):
    """First convolution, stride 2."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self._conv_stem = _convolution(dims, inputs, outputs, 3, 2)
        self._bn0 = _norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, *spatial)` to `(B, outputs, *ceil(spatial / 2))`."""
        return F.silu(self._bn0(self._conv_stem(_padded(x, self._conv_stem))), inplace=True)


class Block(nn.Module):
    """Inverted residual: widen, filter each channel by itself, weigh the channels, narrow; plus its input.

    Its layers are named as in the published files.

    Args:
        dims: Spatial dimensions.
        inputs: Channels before it.
        outputs: Channels after it; the input is added where the shape stays.
        kernel: Of the filter.
        stride: Of the filter.
        expansion: Channels in the middle over those before it.
        drop: Share of the images of a batch whose block is skipped in training.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        middle = max(inputs // _SQUEEZE, 1)
        self.adds_input = stride == 1 and inputs == outputs
        self.drop = drop
        self._expand_conv = _convolution(dims, inputs, inner, 1) if expansion > 1 else None
        self._bn0 = _norm(dims, inner) if expansion > 1 else None
        self._depthwise_conv = _convolution(dims, inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(dims, inner)
        self._pool = MEAN_POOL[dims](1)
        self._se_reduce = _convolution(dims, inner, middle, 1, bias=True)
        self._se_expand = _convolution(dims, middle, inner, 1, bias=True)
        self._project_conv = _convolution(dims, inner, outputs, 1)
        self._bn2 = _norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, *spatial)` to `(B, outputs, *ceil(spatial / stride))`."""
        inner = x
        if self._expand_conv is not None and self._bn0 is not None:
            inner = F.silu(self._bn0(self._expand_conv(inner)), inplace=True)
        inner = self._depthwise_conv(_padded(inner, self._depthwise_conv))
        inner = F.silu(self._bn1(inner), inplace=True)
        weights = self._se_expand(F.silu(self._se_reduce(self._pool(inner)), inplace=True))
        y: Tensor = self._bn2(self._project_conv(weights.sigmoid() * inner))
        if not self.adds_input:
            return y
        return x + _dropped(y, self.drop) if self.training and self.drop else x + y


def _dropped(y: Tensor, share: float) -> Tensor:
    """Zero whole images with probability `share`, the others scaled up for it (stochastic depth)."""
    kept = torch.rand(y.shape[0], *[1] * (y.ndim - 1), device=y.device) >= share
    return y * (kept / (1 - share)).to(y.dtype)


class EfficientNetEncoder(Encoder):
    """Five stages at strides 2 to 32; the top convolution and the classifier are left out.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        width: Channels over those of B0.
        depth: Blocks over those of B0.
        drop_connect: Share of images that skip the last block in training, falling to 0 at the first.

    Raises:
        PluginError: `drop_connect` outside [0, 1).
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, width: float, depth: float, drop_connect: float
    ) -> None:
        super().__init__()
        if isinstance(drop_connect, bool) or not (
            isinstance(drop_connect, int | float) and 0 <= drop_connect < 1
        ):
            accepted, todo = "from 0 to below 1", "0.2 is the publisher's"
            raise PluginError("encoder.options.drop_connect", repr(drop_connect), accepted, todo)
        inputs = _channels(_STEM, width)
        parts: list[OrderedDict[str, nn.Module]] = [OrderedDict() for _ in range(5)]
        parts[0]["stem"] = Stem(spatial_dims, in_channels, inputs)
        channels = [0] * len(parts)
        total = sum(math.ceil(depth * count) for count, *_ in _GROUPS)
        number = 0  # counted through, as in the published files
        for count, kernel, stride, expansion, base, stage in _GROUPS:
            outputs = _channels(base, width)
            for index in range(math.ceil(depth * count)):
                drop = drop_connect * number / total
                step = stride if index == 0 else 1
                block = Block(spatial_dims, inputs, outputs, kernel, step, expansion, drop)
                parts[stage][f"block{number}"] = block
                inputs = outputs
                number += 1
            channels[stage] = outputs
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = halving(spatial_dims, len(parts))
        self.normalise = typical(in_channels)
        self.stages = nn.ModuleList([nn.Sequential(part) for part in parts])
        self.apply(_initialise)


def _channels(base: int, width: float) -> int:
    """Widened, rounded to a multiple of 8, by less than a tenth downwards."""
    wanted = base * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _initialise(module: nn.Module) -> None:
    """Normal, by outputs of each filter group, as in the TensorFlow reference (`conv_kernel_initializer`)."""
    if isinstance(module, _Convolution):
        outputs = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / outputs))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_b0(*, spatial_dims: int, in_channels: int, drop_connect: float = 0.0) -> Encoder:
    """EfficientNet-B0."""
    return EfficientNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=1.0, depth=1.0, drop_connect=drop_connect
    )


def build_b1(*, spatial_dims: int, in_channels: int, drop_connect: float = 0.0) -> Encoder:
    """EfficientNet-B1."""
    return EfficientNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=1.0, depth=1.1, drop_connect=drop_connect
    )


def build_b2(*, spatial_dims: int, in_channels: int, drop_connect: float = 0.0) -> Encoder:
    """EfficientNet-B2."""
    return EfficientNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=1.1, depth=1.2, drop_connect=drop_connect
    )


def build_b3(*, spatial_dims: int, in_channels: int, drop_connect: float = 0.0) -> Encoder:
    """EfficientNet-B3."""
    return EfficientNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=1.2, depth=1.4, drop_connect=drop_connect
    )


def build_b4(*, spatial_dims: int, in_channels: int, drop_connect: float = 0.0) -> Encoder:
    """EfficientNet-B4."""
    return EfficientNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=1.4, depth=1.8, drop_connect=drop_connect
    )
