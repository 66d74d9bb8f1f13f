"""The encoder of the plain convolutional U-Net, 2D and 3D: what segmentation from random weights starts with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...errors import PluginError
from ...plugin import Encoder
from .layers import CONVOLUTION, typical

_GROUPS = 8  # of the group normalisation
_SLOPE = 0.01  # of LeakyReLU below 0
_WIDEST = 320  # channels; nnU-Net's limit in 3D
_STAGES = range(3, 7)


class UNetEncoder(Encoder):
    """Stages of two 3 x 3 (x 3) convolutions; the first at full size, each further one begins with stride 2.

    As nnU-Net's PlainConvEncoder (Isensee et al. 2021) but for the normalisation, GroupNorm with 8 groups (Wu and He
    2018): InstanceNorm refuses to train on a map of one voxel, and it sets the mean of each channel to the same number
    in every image, so that a classifier on mean maps would see little of them.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        widths: Channels of each stage, multiples of 8.
    """

    def __init__(self, *, spatial_dims: int, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(widths)
        self.strides = tuple((1 << index,) * spatial_dims for index in range(len(widths)))
        self.normalise = typical(in_channels)
        inputs = [in_channels, *widths[:-1]]
        self.stages = nn.ModuleList(
            [
                _stage(spatial_dims, *pair, stride=2 if index else 1)
                for index, pair in enumerate(zip(inputs, widths, strict=True))
            ]
        )


def _stage(spatial_dims: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    stage = nn.Sequential()
    for index in (1, 2):
        convolution = CONVOLUTION[spatial_dims](
            inputs if index == 1 else outputs,
            outputs,
            kernel_size=3,
            stride=stride if index == 1 else 1,
            padding=1,
            bias=False,  # the normalisation behind it has one
        )
        nn.init.kaiming_normal_(convolution.weight, a=_SLOPE)
        stage.add_module(f"conv{index}", convolution)
        stage.add_module(f"norm{index}", nn.GroupNorm(_GROUPS, outputs))
        stage.add_module(f"relu{index}", nn.LeakyReLU(_SLOPE, inplace=True))
    return stage


def build_unet(*, spatial_dims: int, in_channels: int, width: int = 16, stages: int = 4) -> Encoder:
    """Stages at stride 1, 2, 4, ... of `width` channels, doubled by each further one up to 320.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the images.
        width: Channels of the first stage, a multiple of 8 up to 320.
        stages: 3 to 6.

    Raises:
        PluginError: Another width or number of stages.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width % _GROUPS or not 0 < width <= _WIDEST:
        accepted = f"a multiple of {_GROUPS} up to {_WIDEST}"
        raise PluginError("encoder.options.width", repr(width), accepted, "leave it out for 16")
    if isinstance(stages, bool) or stages not in _STAGES:
        accepted = f"{_STAGES[0]} to {_STAGES[-1]}"
        raise PluginError("encoder.options.stages", repr(stages), accepted, "leave it out for 4")
    return UNetEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        widths=[min(width << index, _WIDEST) for index in range(stages)],
    )
