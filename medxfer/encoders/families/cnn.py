"""A plain convolutional network without shortcuts: what transfer has to beat when trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...errors import PluginError
from ...plugin import Encoder
from .layers import BATCH_NORM, CONVOLUTION, MAX_POOL, halving, typical


class PlainEncoder(Encoder):
    """Blocks of convolution, batch normalisation and ReLU, each ended by max pooling that halves the sides.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        widths: Channels of each block.
        convolutions: In each block.
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, widths: Sequence[int], convolutions: int
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(widths)
        self.strides = halving(spatial_dims, len(widths))
        self.normalise = typical(in_channels)
        inputs = [in_channels, *widths[:-1]]
        self.stages = nn.ModuleList(
            [_block(spatial_dims, *pair, convolutions) for pair in zip(inputs, widths, strict=True)]
        )


def _block(spatial_dims: int, inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    block = nn.Sequential()
    for index in range(convolutions):
        convolution = CONVOLUTION[spatial_dims](
            outputs if index else inputs, outputs, kernel_size=3, padding=1, bias=False
        )
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        block.add_module(f"conv{index + 1}", convolution)
        block.add_module(f"bn{index + 1}", BATCH_NORM[spatial_dims](outputs))
        block.add_module(f"relu{index + 1}", nn.ReLU(inplace=True))
    block.add_module("pool", MAX_POOL[spatial_dims](kernel_size=2))
    return block


def build_cnn(*, spatial_dims: int, in_channels: int, convolutions: int = 2) -> Encoder:
    """Four blocks of 32 to 256 channels.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the images.
        convolutions: In each block, 1 to 4.

    Raises:
        PluginError: Another number of convolutions.
    """
    if isinstance(convolutions, bool) or convolutions not in (1, 2, 3, 4):
        raise PluginError(
            "encoder.options.convolutions", repr(convolutions), "1, 2, 3 or 4", "leave it out for 2"
        )
    return PlainEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        widths=(32, 64, 128, 256),
        convolutions=convolutions,
    )
