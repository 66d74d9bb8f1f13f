"""What a frozen encoder says of each image, computed once and reused every epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.loaders import Batch, Batches
from ..networks.network import Network
from ..progress import Progress
from .precision import Precision

Features = Tensor | list[Tensor]  # of some cases: one tensor, or a map for each stage
_MOST_BYTES = 6 * 2**30  # of features kept in memory; MEDXFER_FEATURE_BYTES replaces it


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Features of all rows, seen once.

    Attributes:
        features: (N, F) float32; or a list of maps (N, C, *spatial) in the precision of training.
        targets: (N, ...), moved with the images where they are maps.
    """

    features: Features
    targets: Tensor


@torch.no_grad()
def compute_features(
    network: Network, batches: Batches, precision: Precision, say: Progress, *, view: int
) -> View:
    """Reduced maps of every row of `batches`, in the order of its rows, on the CPU.

    Args:
        network: Its encoder is frozen.
        batches: Unshuffled.
        precision: As in training.
        say: Shows a bar.
        view: Number of the view: what patches and augmentation go by.
    """
    network.eval()
    features: list[Features] = []
    targets: list[Tensor] = []
    with say.bar("features of the frozen encoder", len(batches)) as advance:
        for batch in batches.epoch(view):
            features.append(_features_of(network, batch.images, precision))
            targets.append(batch.targets.cpu())
            advance()
    return View(features=_joined(features), targets=torch.cat(targets))


@torch.no_grad()
def fits_in_memory(network: Network, batches: Batches, precision: Precision, *, views: int) -> bool:
    """Whether the features of all rows can be kept, judged by the first batch."""
    network.eval()
    first = next(batches.epoch(0))
    parts = _features_of(network, first.images, precision)
    parts = [parts] if isinstance(parts, Tensor) else parts
    each = sum(part.numel() * part.element_size() for part in parts) / len(first.ids)
    return each * len(batches.rows) * views <= int(os.environ.get("MEDXFER_FEATURE_BYTES", _MOST_BYTES))


def _features_of(network: Network, images: Tensor, precision: Precision) -> Features:
    with precision.autocast():
        found: Any = network.features(images)
    return found.float().cpu() if isinstance(found, Tensor) else [part.cpu() for part in found]


def _joined(parts: Sequence[Features]) -> Features:
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return [torch.cat(list(stage)) for stage in zip(*parts, strict=True)]


class FeatureBatches:
    """Batches of cached features: the same interface as `Batches`, an epoch in milliseconds.

    Args:
        views: Each epoch takes one of them for each case, by the epoch's seed.
        rows: (N,) row of each in the arrays.
        ids: Case id per row.
        batch: Cases a batch and process.
        seed: With the epoch, gives the order.
    """

    def __init__(
        self,
        views: Sequence[View],
        rows: Sequence[int],
        ids: Sequence[str],
        batch: int,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._views = views
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
        chosen = random.integers(len(self._views), size=len(order))
        padded = np.resize(order, -(-len(order) // self._world) * self._world)
        own = padded[self._rank :: self._world]
        for begin in range(0, len(own), self._batch):
            pick = own[begin : begin + self._batch]
            views = [self._views[chosen[i]] for i in pick]
            yield Batch(
                images=self._stacked(views, pick),
                targets=torch.stack([view.targets[i] for view, i in zip(views, pick, strict=True)]).to(
                    self._device
                ),
                index=torch.tensor([self._rows[i] for i in pick]),
                ids=tuple(self._ids[i] for i in pick),
            )

    def _stacked(self, views: Sequence[View], pick: np.ndarray) -> Features:
        if isinstance(views[0].features, Tensor):
            return torch.stack([view.features[i] for view, i in zip(views, pick, strict=True)]).to(
                self._device
            )
        stages = range(len(views[0].features))
        return [
            torch.stack([view.features[stage][i] for view, i in zip(views, pick, strict=True)]).to(
                self._device
            )
            for stage in stages
        ]
