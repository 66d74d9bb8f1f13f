"""MONAI's densely connected networks cut into stages, 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ...plugin import Encoder
from .layers import halving, typical


class DenseNetEncoder(Encoder):
    """Five stages: stem (stride 2), then each dense block with the pooling or transition before it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        layers: Dense layers in each of the four blocks.
        width: Channels of the stem.
        growth: Channels that a dense layer adds.
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, layers: Sequence[int], width: int = 64, growth: int = 32
    ) -> None:
        from monai.networks.nets.densenet import DenseNet

        super().__init__()
        net = DenseNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=1,  # its classifier is not used
            init_features=width,
            growth_rate=growth,
            block_config=tuple(layers),
        ).features
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = _channels(layers, width, growth)
        self.strides = halving(spatial_dims, len(layers) + 1)
        self.normalise = typical(in_channels)
        cuts = [["conv0", "norm0", "relu0"], ["pool0", "denseblock1"]]
        cuts += [[f"transition{i}", f"denseblock{i + 1}"] for i in range(1, len(layers))]
        stages = [OrderedDict((name, net.get_submodule(name)) for name in names) for names in cuts]
        stages[-1].update(norm5=net.get_submodule("norm5"), relu5=nn.ReLU(inplace=True))
        self.stages = nn.ModuleList([nn.Sequential(stage) for stage in stages])


def _channels(layers: Sequence[int], width: int, growth: int) -> tuple[int, ...]:
    """Channels after the stem and after each dense block; a transition halves them."""
    channels = [width]
    for index, count in enumerate(layers):
        before = channels[-1] if index == 0 else channels[-1] // 2
        channels.append(before + count * growth)
    return tuple(channels)


def build_densenet121(*, spatial_dims: int, in_channels: int) -> Encoder:
    """DenseNet-121 (Huang et al. 2017)."""
    return DenseNetEncoder(spatial_dims=spatial_dims, in_channels=in_channels, layers=(6, 12, 24, 16))


def build_densenet169(*, spatial_dims: int, in_channels: int) -> Encoder:
    """DenseNet-169 (Huang et al. 2017)."""
    return DenseNetEncoder(spatial_dims=spatial_dims, in_channels=in_channels, layers=(6, 12, 32, 32))


def build_densenet201(*, spatial_dims: int, in_channels: int) -> Encoder:
    """DenseNet-201 (Huang et al. 2017)."""
    return DenseNetEncoder(spatial_dims=spatial_dims, in_channels=in_channels, layers=(6, 12, 48, 32))


def build_densenet264(*, spatial_dims: int, in_channels: int) -> Encoder:
    """DenseNet-264 (Huang et al. 2017)."""
    return DenseNetEncoder(spatial_dims=spatial_dims, in_channels=in_channels, layers=(6, 12, 64, 48))
