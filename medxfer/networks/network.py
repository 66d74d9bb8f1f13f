"""Encoder and head as one module."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data.planes import picture_of, volume_of
from ..encoders.contract import require_claimed
from ..plugin import Encoder


class Head(Protocol):
    """What turns maps into logits: a part without parameters that can be cached, and the rest."""

    def reduce(self, maps: list[Tensor], images: Tensor) -> Any:
        """What the head needs of the maps and the images, without parameters."""

    def standardise(self, features: Iterable[Any]) -> None:
        """Take statistics from reduced training maps, batch by batch, before training."""

    def __call__(self, features: Any) -> Tensor:
        """Logits of reduced maps."""


class Network(nn.Module):
    """`head(head.reduce(encoder(x)))`.

    Args:
        encoder: From images to maps.
        head: From maps to logits.
        window: Size of what it is trained on, where images may be larger. One voxel thick along one of three axes with
            a 2D encoder: volumes of that size go through it as pictures.
        flips: Axes, 0 the first spatial one; in evaluation the logits of all mirrored images are averaged. Only for
            heads that answer for each voxel.

    Frozen stages stay in evaluation mode whatever `train()` says: batch-norm would move its running mean even
    with `requires_grad` off. So does every batch-norm of the encoder while `keeps_statistics`.
    """

    encoder: Encoder
    head: nn.Module

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        *,
        window: Sequence[int] | None = None,
        flips: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.window = None if window is None else tuple(window)
        is_thin = self.window is not None and len(self.window) == 3 and encoder.spatial_dims == 2
        self._thin = self.window.index(1) if self.window is not None and is_thin else None
        self.flips = tuple(flips)
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

    @contextlib.contextmanager
    def without_flips(self) -> Iterator[None]:
        """Ask about images as they are only."""
        flips, self.flips = self.flips, ()
        try:
            yield
        finally:
            self.flips = flips

    def features(self, x: Tensor) -> Any:
        """What the head needs of images `(B, C, *spatial)` in [0, 1].

        Raises:
            PluginError: The encoder's maps are not those that it claims.
        """
        maps = self.encoder(x)
        require_claimed(self.encoder, maps)
        return self.head.reduce(maps, x)  # type: ignore[operator]  # Head, see the protocol

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images `(B, C, *spatial)` in [0, 1]; of volumes one voxel thick, or of pictures of them."""
        logits = self._logits(x)
        if self.training or not self.flips:
            return logits
        axes = [axis + 2 for axis in self.flips]
        mirrored = [
            turned for count in range(1, len(axes) + 1) for turned in itertools.combinations(axes, count)
        ]
        others = [self._logits(x.flip(turned)).flip(turned) for turned in mirrored]
        return torch.stack([logits, *others]).mean(0)

    def _logits(self, x: Tensor) -> Tensor:
        if self._thin is None or x.ndim == 4:
            logits: Tensor = self.head(self.features(x))
            return logits
        return volume_of(self.head(self.features(picture_of(x, self._thin))), self._thin)
