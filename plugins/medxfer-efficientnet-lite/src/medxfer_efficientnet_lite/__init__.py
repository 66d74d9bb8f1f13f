"""EfficientNet-Lite (Tan and Le 2019, the variant without squeeze-and-excitation) as a medxfer encoder, in 2D and 3D.

Padding, batch normalisation and activation are those of the TensorFlow networks that the published weights
come from: "same" padding that depends on the size, eps 1e-3, ReLU6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from medxfer.plugin import Encoder, Normalise

__all__ = ["build_lite0", "build_lite1", "build_lite2"]

# Blocks, kernel, stride, expansion, output channels of each group, and the stage that it belongs to.
_LITE0 = (
    (1, 3, 1, 1, 16, 0),
    (2, 3, 2, 6, 24, 1),
    (2, 5, 2, 6, 40, 2),
    (3, 3, 2, 6, 80, 3),
    (3, 5, 1, 6, 112, 3),
    (4, 5, 2, 6, 192, 4),
    (1, 3, 1, 6, 320, 4),
)
# Lite1 is deeper; Lite2 also wider, by 1.1, to the nearest multiple of 8. Stem, first and last group keep their depth.
_LITE1 = (
    (1, 3, 1, 1, 16, 0),
    (3, 3, 2, 6, 24, 1),
    (3, 5, 2, 6, 40, 2),
    (4, 3, 2, 6, 80, 3),
    (4, 5, 1, 6, 112, 3),
    (5, 5, 2, 6, 192, 4),
    (1, 3, 1, 6, 320, 4),
)
_LITE2 = (
    (1, 3, 1, 1, 16, 0),
    (3, 3, 2, 6, 24, 1),
    (3, 5, 2, 6, 48, 2),
    (4, 3, 2, 6, 88, 3),
    (4, 5, 1, 6, 120, 3),
    (5, 5, 2, 6, 208, 4),
    (1, 3, 1, 6, 352, 4),
)
_STEM = 32
_NORM: Mapping[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_Convolution = nn.Conv2d | nn.Conv3d


def _padded(x: Tensor, convolution: _Convolution) -> Tensor:
    """TensorFlow's "same" padding: size ceil(input / stride) comes out, an odd voxel goes last.

    With stride 1 the convolution's own padding is already that.
    """
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    if stride == 1:
        return x
    sides: list[int] = []
    for length in reversed(x.shape[2:]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class SameConv2d(nn.Conv2d):
    """Convolution of pictures with TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, ceil(H / stride), ceil(W / stride))`."""
        return super().forward(_padded(x, self))


class SameConv3d(nn.Conv3d):
    """Convolution of volumes with TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, X, Y, Z)` to `(B, outputs, *ceil(sizes / stride))`."""
        return super().forward(_padded(x, self))


_CONVOLUTION: Mapping[int, type[SameConv2d] | type[SameConv3d]] = {2: SameConv2d, 3: SameConv3d}


def _conv(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    padding = kernel // 2 if stride == 1 else 0
    return _CONVOLUTION[dims](inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=False)


def _norm(dims: int, channels: int) -> nn.Module:
    return _NORM[dims](channels, eps=1e-3, momentum=0.01)  # momentum 0.99 in TensorFlow's terms


class Stem(nn.Module):
    """First convolution, stride 2."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _conv(dims, inputs, outputs, 3, 2)
        self.norm = _norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, *spatial)` to `(B, outputs, *ceil(spatial / 2))`."""
        return F.relu6(self.norm(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Inverted residual: widen, filter each channel by itself, narrow; plus its input where shapes allow."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds_input = stride == 1 and inputs == outputs
        self.expand = _conv(dims, inputs, inner, 1) if expansion > 1 else None
        self.expand_norm = _norm(dims, inner) if expansion > 1 else None
        self.depthwise = _conv(dims, inner, inner, kernel, stride, groups=inner)
        self.depthwise_norm = _norm(dims, inner)
        self.project = _conv(dims, inner, outputs, 1)
        self.project_norm = _norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, *spatial)` to `(B, outputs, *ceil(spatial / stride))`."""
        inner = x
        if self.expand is not None and self.expand_norm is not None:
            inner = F.relu6(self.expand_norm(self.expand(inner)), inplace=True)
        inner = F.relu6(self.depthwise_norm(self.depthwise(inner)), inplace=True)
        y: Tensor = self.project_norm(self.project(inner))
        return x + y if self.adds_input else y


class EfficientNetLite(Encoder):
    """Five stages at strides 2 to 32 on every axis; the top convolution and the classifier are left out.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        groups: Rows of the table above.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, groups: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        stages: list[list[nn.Module]] = [[Stem(spatial_dims, in_channels, _STEM)], [], [], [], []]
        width = _STEM
        channels = [0] * len(stages)
        for count, kernel, stride, expansion, outputs, stage in groups:
            for index in range(count):
                step = stride if index == 0 else 1
                block = Block(spatial_dims, width, outputs, kernel=kernel, stride=step, expansion=expansion)
                stages[stage].append(block)
                width = outputs
            channels[stage] = outputs
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = tuple((2 << i,) * spatial_dims for i in range(len(stages)))
        self.normalise = Normalise([0.5] * in_channels, [0.5] * in_channels)
        self.stages = nn.ModuleList([nn.Sequential(*modules) for modules in stages])
        self.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    """Normal, by outputs of each filter group, as in the TensorFlow reference (`conv_kernel_initializer`)."""
    if isinstance(module, _Convolution):
        outputs = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / outputs))


def build_lite0(*, spatial_dims: int, in_channels: int) -> Encoder:
    """EfficientNet-Lite0."""
    return EfficientNetLite(spatial_dims=spatial_dims, in_channels=in_channels, groups=_LITE0)


def build_lite1(*, spatial_dims: int, in_channels: int) -> Encoder:
    """EfficientNet-Lite1."""
    return EfficientNetLite(spatial_dims=spatial_dims, in_channels=in_channels, groups=_LITE1)


def build_lite2(*, spatial_dims: int, in_channels: int) -> Encoder:
    """EfficientNet-Lite2."""
    return EfficientNetLite(spatial_dims=spatial_dims, in_channels=in_channels, groups=_LITE2)
