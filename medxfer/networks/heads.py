"""From an encoder's maps to logits of the whole image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """The mean of every stage's map, concatenated, standardised, then dropout and a linear layer.

    Early stages carry texture that the last one has given up: on frozen ImageNet features all stages together
    beat the last one alone on every set tried. `mean` and `spread` are buffers, set once from training features
    (`standardise`), so that one learning rate fits stages whose activations differ by orders of magnitude.

    Args:
        channels: Per stage of the encoder.
        outputs: Number of logits.
        dropout: Share of pooled features set to zero while training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, channels: Sequence[int], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        features = sum(channels)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)
        # A zero start gives every class the same chance and makes the first steps independent of the seed.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def reduce(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """What the head needs of the maps, without parameters: `(B, sum(channels))`, so that it can be cached."""
        return torch.cat([one.flatten(2).mean(2) for one in maps], dim=1)

    def standardise(self, features: Iterable[Tensor]) -> None:
        """Take mean and spread from training features, batches of `(B, sum(channels))`."""
        all_of_them = torch.cat([batch.float() for batch in features])
        self.mean.copy_(all_of_them.mean(0))
        self.spread.copy_(all_of_them.std(0).clamp_min(1e-3 * float(all_of_them.std()) + 1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, outputs)` of reduced maps, in fp32."""
        with torch.autocast(features.device.type, enabled=False):
            standard = (features.float() - self.mean) / self.spread
            logits: Tensor = self.linear(self.dropout(standard))
        return logits
