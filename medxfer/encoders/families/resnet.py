"""MONAI's residual networks cut into stages, 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ...plugin import Encoder, Normalise

# Mean and deviation of a typical image in [0, 1], for random weights; pretrained ones bring their own.
_MEAN, _STD = 0.5, 0.25


class ResNetEncoder(Encoder):
    """Five stages: stem (stride 2), then the four layers, the first behind the max pooling.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        block: `basic` or `bottleneck`.
        layers: Blocks in each of the four layers.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, block: str, layers: Sequence[int]) -> None:
        from monai.networks.nets.resnet import ResNet, get_inplanes

        super().__init__()
        # Stride 2 in the stem, no bias in the shortcuts: not MONAI's defaults, but what publishers use.
        net = ResNet(
            block=block,
            layers=list(layers),
            block_inplanes=get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type="B",  # A detaches its shortcut: no gradient through it
            bias_downsample=False,
            feed_forward=False,
        )
        expansion = 4 if block == "bottleneck" else 1
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = (64, *(width * expansion for width in get_inplanes()))
        self.strides = tuple((2 << i,) * spatial_dims for i in range(5))
        self.normalise = Normalise([_MEAN] * in_channels, [_STD] * in_channels)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(OrderedDict(conv1=net.conv1, bn1=net.bn1, act=net.act)),
                nn.Sequential(OrderedDict(maxpool=net.maxpool, layer1=net.layer1)),
                nn.Sequential(OrderedDict(layer2=net.layer2)),
                nn.Sequential(OrderedDict(layer3=net.layer3)),
                nn.Sequential(OrderedDict(layer4=net.layer4)),
            ]
        )


def build_resnet18(*, spatial_dims: int, in_channels: int) -> Encoder:
    """ResNet-18 (He et al. 2016)."""
    return ResNetEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, block="basic", layers=(2, 2, 2, 2)
    )
