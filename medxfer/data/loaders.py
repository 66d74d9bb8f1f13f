"""Batches of cases, in an order and with an augmentation that the run's seed decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augment import Augment
from .cache import Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some cases, on the training device.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1]; or cached features (B, F).
        targets: (B, ...) as the task reads labels.
        index: (B,) int64, rows of the arrays.
        ids: Case ids, for messages.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    ids: tuple[str, ...]


class Batches:
    """Every chosen row once an epoch.

    Args:
        arrays: The cached images.
        targets: One per row of the arrays.
        rows: Which rows.
        batch: Cases a batch and process; the last one may be smaller.
        seed: With the epoch, gives the order; with the epoch and a file's content, its augmentation. Neither
            depends on the number of processes or on the order of files.
        augment: Changes whole batches on the device; None: images as they are.
        device: Where batches go.
        memory_format: Of the images.
        shuffle: Otherwise the rows' own order.
        rank: This process.
        world: Processes; each takes every `world`-th case, some twice when they do not divide.
    """

    def __init__(
        self,
        arrays: Arrays,
        targets: Tensor,
        rows: Sequence[int],
        batch: int,
        *,
        seed: int,
        augment: Augment | None,
        device: torch.device,
        memory_format: torch.memory_format,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows = tuple(rows)
        self._arrays, self._targets, self._batch = arrays, targets, batch
        self._seed, self._augment, self._shuffle = seed, augment, shuffle
        self._device, self._format = device, memory_format
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.rows) / self._world) / self._batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of epoch `number`, the same at every call."""
        order = np.array(self.rows, dtype=np.int64)
        if self._shuffle:
            order = np.random.default_rng([self._seed, number]).permutation(order)
        padded = np.resize(order, math.ceil(len(order) / self._world) * self._world)
        own = padded[self._rank :: self._world]
        for begin in range(0, len(own), self._batch):
            yield self._batch_of(own[begin : begin + self._batch], number)

    def _batch_of(self, rows: np.ndarray, epoch: int) -> Batch:
        images = self._arrays.batch(rows).to(self._device)
        if self._augment is not None:
            images, _ = self._augment(images, [self._case_seed(row, epoch) for row in rows])
        return Batch(
            images=images.contiguous(memory_format=self._format),
            targets=self._targets[torch.from_numpy(rows)].to(self._device),
            index=torch.from_numpy(rows),
            ids=tuple(self._arrays.cases[row].id for row in rows),
        )

    def _case_seed(self, row: int, epoch: int) -> int:
        content = int(self._arrays.sha256[row][:12], 16)
        return (content * 1_000_003 + self._seed * 10_007 + epoch) % 2**62
