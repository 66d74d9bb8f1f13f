"""MONAI's residual networks cut into stages, 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import PluginError
from ...plugin import Encoder
from .layers import halving, typical


class ZeroPadShortcut(nn.Module):
    """Shortcut A of He et al. 2016: every stride-th pixel, new channels zero.

    MONAI's own detaches its input, so that no gradient passes where the resolution changes.

    Args:
        channels: After it.
        stride: On every axis.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, *spatial)` to `(B, channels, *ceil(spatial / stride))`."""
        axes = x.ndim - 2
        thinned = x[(slice(None), slice(None), *[slice(None, None, self.stride)] * axes)]
        return F.pad(thinned, (*[0, 0] * axes, 0, self.channels - x.shape[1]))

    def extra_repr(self) -> str:
        """Shown when a network is printed."""
        return f"{self.channels}, stride={self.stride}"


class ResNetEncoder(Encoder):
    """Five stages: stem (stride 2), then the four layers, the first behind the max pooling.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        block: `basic` or `bottleneck`.
        layers: Blocks in each of the four layers.
        shortcut: Where a shortcut changes shape: `B`, a convolution, or `A`, without parameters.
        bias_downsample: Whether the convolution of shortcut B has a bias.

    Raises:
        PluginError: Another shortcut, or a bias that is not true or false.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        block: str,
        layers: Sequence[int],
        shortcut: str = "B",
        bias_downsample: bool = False,
    ) -> None:
        from monai.networks.nets.resnet import ResNet, get_inplanes

        super().__init__()
        _check_options(shortcut, bias_downsample)
        # Stride 2 in the stem, no bias in the shortcuts: not MONAI's defaults, but what publishers use.
        net = ResNet(
            block=block,
            layers=list(layers),
            block_inplanes=get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type=shortcut,
            bias_downsample=bias_downsample,
            feed_forward=False,
        )
        expansion = 4 if block == "bottleneck" else 1
        if shortcut == "A":
            _enliven(net, expansion)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = (64, *(width * expansion for width in get_inplanes()))
        self.strides = halving(spatial_dims, 5)
        self.normalise = typical(in_channels)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(OrderedDict(conv1=net.conv1, bn1=net.bn1, act=net.act)),
                nn.Sequential(OrderedDict(maxpool=net.maxpool, layer1=net.layer1)),
                nn.Sequential(OrderedDict(layer2=net.layer2)),
                nn.Sequential(OrderedDict(layer3=net.layer3)),
                nn.Sequential(OrderedDict(layer4=net.layer4)),
            ]
        )


def _check_options(shortcut: object, bias_downsample: object) -> None:
    """Refuse what MONAI would take for something else, or not at all."""
    if shortcut not in ("A", "B"):
        raise PluginError("encoder.options.shortcut", repr(shortcut), "A or B", "leave it out for B")
    if not isinstance(bias_downsample, bool):
        todo = "leave it out for false"
        raise PluginError("encoder.options.bias_downsample", repr(bias_downsample), "true or false", todo)


def _enliven(net: nn.Module, expansion: int) -> None:
    """Put our shortcut in place of MONAI's detaching one."""
    from monai.networks.nets.resnet import get_inplanes

    for index, width in enumerate(get_inplanes()):
        first = net.get_submodule(f"layer{index + 1}.0")
        if first.downsample is not None:
            first.downsample = ZeroPadShortcut(width * expansion, stride=1 if index == 0 else 2)


# Kind of block, and blocks in each of the four layers.
_DEPTHS: Mapping[int, tuple[str, tuple[int, ...]]] = {
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def _of_depth(
    depth: int, spatial_dims: int, in_channels: int, shortcut: str, bias_downsample: bool
) -> Encoder:
    block, layers = _DEPTHS[depth]
    return ResNetEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        block=block,
        layers=layers,
        shortcut=shortcut,
        bias_downsample=bias_downsample,
    )


def build_resnet10(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-10, the smallest of MedicalNet's (Chen et al. 2019)."""
    return _of_depth(10, spatial_dims, in_channels, shortcut, bias_downsample)


def build_resnet18(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-18 (He et al. 2016)."""
    return _of_depth(18, spatial_dims, in_channels, shortcut, bias_downsample)


def build_resnet34(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-34 (He et al. 2016)."""
    return _of_depth(34, spatial_dims, in_channels, shortcut, bias_downsample)


def build_resnet50(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-50 (He et al. 2016)."""
    return _of_depth(50, spatial_dims, in_channels, shortcut, bias_downsample)


def build_resnet101(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-101 (He et al. 2016)."""
    return _of_depth(101, spatial_dims, in_channels, shortcut, bias_downsample)


def build_resnet152(
    *, spatial_dims: int, in_channels: int, shortcut: str = "B", bias_downsample: bool = False
) -> Encoder:
    """ResNet-152 (He et al. 2016)."""
    return _of_depth(152, spatial_dims, in_channels, shortcut, bias_downsample)
