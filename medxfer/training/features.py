"""What a frozen encoder says of each image, computed once and reused every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.loaders import Batch, Batches
from ..networks.network import Network
from ..progress import Progress
from .precision import Precision


@torch.no_grad()
def compute_features(
    network: Network, batches: Batches, precision: Precision, say: Progress, *, view: int
) -> Tensor:
    """Reduced maps of every row of `batches`, in the order of its rows, fp32 on the CPU.

    Args:
        network: Its encoder is frozen.
        batches: Unshuffled.
        precision: As in training.
        say: Shows a bar.
        view: Number of the augmented view; with `batches` that do not augment it makes no difference.
    """
    network.eval()
    parts: list[Tensor] = []
    with say.bar("features of the frozen encoder", len(batches)) as advance:
        for batch in batches.epoch(view):
            with precision.autocast():
                parts.append(network.features(batch.images).float().cpu())
            advance()
    return torch.cat(parts)


class FeatureBatches:
    """Batches of cached features: the same interface as `Batches`, an epoch in milliseconds.

    Args:
        features: One tensor (N, F) a view; each epoch takes a view for each case by the epoch's seed.
        targets: (N, ...).
        rows: (N,) row of each in the arrays.
        ids: Case id per row.
        batch: Cases a batch and process.
        seed: With the epoch, gives the order.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        targets: Tensor,
        rows: Sequence[int],
        ids: Sequence[str],
        batch: int,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._features, self._targets = features, targets
        self._rows, self._ids = list(rows), list(ids)
        self._batch, self._seed, self._device = batch, seed, device
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        per_process = -(-len(self._rows) // self._world)
        return -(-per_process // self._batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Every case once, in an order that seed and number decide."""
        random = np.random.default_rng([self._seed, number])
        order = random.permutation(len(self._rows))
        views = random.integers(len(self._features), size=len(order))
        padded = np.resize(order, -(-len(order) // self._world) * self._world)
        own = padded[self._rank :: self._world]
        for begin in range(0, len(own), self._batch):
            pick = own[begin : begin + self._batch]
            images = torch.stack([self._features[views[i]][i] for i in pick])
            yield Batch(
                images=images.to(self._device),
                targets=self._targets[torch.from_numpy(pick)].to(self._device),
                index=torch.tensor([self._rows[i] for i in pick]),
                ids=tuple(self._ids[i] for i in pick),
            )
