"""Encoder and head as one module."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from ..encoders.contract import require_claimed
from ..plugin import Encoder


class Head(Protocol):
    """What turns maps into logits: a part without parameters that can be cached, and the rest."""

    def reduce(self, maps: list[Tensor], images: Tensor) -> Any:
        """What the head needs of the maps and the images, without parameters."""

    def standardise(self, features: Any) -> None:
        """Take statistics from reduced training maps, before training."""

    def __call__(self, features: Any) -> Tensor:
        """Logits of reduced maps."""


class Network(nn.Module):
    """`head(head.reduce(encoder(x)))`.

    Frozen stages stay in evaluation mode whatever `train()` says: batch-norm would move its running mean even
    with `requires_grad` off. So does every batch-norm of the encoder while `keeps_statistics`.
    """

    encoder: Encoder
    head: nn.Module

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.frozen: frozenset[int] = frozenset()
        self.keeps_statistics = False

    def train(self, mode: bool = True) -> Network:
        """Switch to training, frozen stages apart."""
        super().train(mode)
        for index in self.frozen:
            self.encoder.stages[index].eval()
        if self.keeps_statistics:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """What the head needs of images `(B, C, *spatial)` in [0, 1].

        Raises:
            PluginError: The encoder's maps are not those that it claims.
        """
        maps = self.encoder(x)
        require_claimed(self.encoder, maps)
        reduced: Tensor = self.head.reduce(maps, x)  # type: ignore[operator]  # Head, see the protocol
        return reduced

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images `(B, C, *spatial)` in [0, 1]."""
        logits: Tensor = self.head(self.features(x))
        return logits
