"""All that a third party imports to ship an encoder: the contract and its cards.

An encoder is a list of stages. Freezing, layer-wise rates, cached prefixes, decoders and explanations follow
from that with no code in the plugin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .cards import EncoderCard, WeightsCard

__all__ = ["Encoder", "EncoderCard", "Normalise", "WeightsCard"]


class Normalise(nn.Module):
    """`(x - mean) / std`, both buffers, so that no exported model can forget them.

    Args:
        mean: One number per input channel, for inputs in [0, 1].
        std: The same, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, *spatial)` channel by channel."""
        shape = (1, -1, *([1] * (x.ndim - 2)))
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Encoder(nn.Module):
    """A pretrained backbone as a list of stages.

    Input `(B, in_channels, *spatial)`, float, in [0, 1]. Output: one map a stage, finest first,
    `(B, channels[i], *spatial / strides[i])`, rounded up or down. Every parameter is in exactly one stage.
    """

    spatial_dims: int
    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    stages: nn.ModuleList
    normalise: nn.Module

    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        """Outputs of stages [start, stop); from `start` > 0, `x` is what stage `start - 1` gave."""
        states: list[Tensor] = []
        state = self.normalise(x) if start == 0 else x
        for stage in list(self.stages)[start:stop]:
            state = stage(state)
            states.append(state)
        return states

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        """A stage's output as `(B, C, *spatial)`; `size` is the input's. Token networks override this."""
        return state

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map a stage, finest first."""
        size = tuple(x.shape[2:])
        return [self.as_map(i, state, size) for i, state in enumerate(self.forward_features(x))]
