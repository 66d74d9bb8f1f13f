"""The encoder of MONAI's SegResNet cut into stages, 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from ...errors import PluginError
from ...plugin import Encoder, Normalise

# Mean and deviation of a typical image in [0, 1], for random weights; pretrained ones bring their own.
_MEAN, _STD = 0.5, 0.25
_BLOCKS = (1, 2, 2, 4)
_GROUPS = 8  # of the group normalisation


class SegResNetEncoder(Encoder):
    """Four stages: the first at full size, each further one behind a convolution of stride 2.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        init_filters: Channels of the first stage, a multiple of 8; doubled by each further one.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, init_filters: int = 16) -> None:
        from monai.networks.blocks.segresnet_block import ResBlock, get_conv_layer

        super().__init__()
        if init_filters < _GROUPS or init_filters % _GROUPS:
            where, todo = "encoder.options.init_filters", "8, 16 and 32 are usual"
            raise PluginError(where, str(init_filters), f"a multiple of {_GROUPS}", todo)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(init_filters << i for i in range(len(_BLOCKS)))
        self.strides = tuple((1 << i,) * spatial_dims for i in range(len(_BLOCKS)))
        self.normalise = Normalise([_MEAN] * in_channels, [_STD] * in_channels)
        stages: list[nn.Module] = []
        for width, count in zip(self.channels, _BLOCKS, strict=True):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            before: nn.Module = nn.Identity()
            if not stages:
                stage["convInit"] = get_conv_layer(spatial_dims, in_channels, width)
            else:
                before = get_conv_layer(spatial_dims, width // 2, width, stride=2)
            norm = ("group", {"num_groups": _GROUPS})
            blocks = (ResBlock(spatial_dims, width, norm=norm) for _ in range(count))
            stage["down_layer"] = nn.Sequential(before, *blocks)  # numbered as MONAI does
            stages.append(nn.Sequential(stage))
        self.stages = nn.ModuleList(stages)


def build_segresnet(*, spatial_dims: int, in_channels: int, init_filters: int = 16) -> Encoder:
    """SegResNet's encoder (Myronenko 2018); `init_filters` as in `SegResNetEncoder`."""
    return SegResNetEncoder(spatial_dims=spatial_dims, in_channels=in_channels, init_filters=init_filters)
