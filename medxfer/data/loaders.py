"""Batches of cases, in an order and with an augmentation that the run's seed decides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .augment import Augment
from .cache import Arrays
from .patches import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some cases, on the training device.

    Attributes:
        images: (B, C, *spatial) float32 in [0, 1]; or cached features, a tensor or a list of maps.
        targets: (B, ...) as the task reads labels; maps are (B, *spatial) uint8.
        index: (B,) int64, rows of the arrays.
        ids: Case ids, for messages.
    """

    images: Any
    targets: Tensor
    index: Tensor
    ids: tuple[str, ...]


class Batches:
    """Every chosen row an epoch, as often as the samples say.

    Args:
        arrays: Where ids and content come from.
        samples: Images and targets of rows.
        rows: Which rows.
        batch: Samples a batch and process; the last one may be smaller.
        seed: With the epoch, gives the order; with the epoch and a file's content, patches and augmentation. Neither
            depends on the number of processes or on the order of files.
        augment: Changes whole batches on the device; None: images as they are.
        device: Where batches go.
        memory_format: Of the images.
        shuffle: Otherwise the rows' own order.
        rank: This process.
        world: Processes; each takes every `world`-th sample, some twice when they do not divide.
    """

    def __init__(
        self,
        arrays: Arrays,
        samples: Samples,
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
        self.rows = tuple(row for row in rows for _ in range(samples.count))
        self._turns = tuple(turn for _ in rows for turn in range(samples.count))
        self._arrays, self._samples, self._batch = arrays, samples, batch
        self._seed, self._augment, self._shuffle = seed, augment, shuffle
        self._device, self._format = device, memory_format
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.rows) / self._world) / self._batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of epoch `number`, the same at every call."""
        order = np.arange(len(self.rows))
        if self._shuffle:
            order = np.random.default_rng([self._seed, number]).permutation(order)
        padded = np.resize(order, math.ceil(len(order) / self._world) * self._world)
        own = padded[self._rank :: self._world]
        for begin in range(0, len(own), self._batch):
            yield self._batch_of(own[begin : begin + self._batch], number)

    def _batch_of(self, numbers: np.ndarray, epoch: int) -> Batch:
        rows = np.array([self.rows[one] for one in numbers], dtype=np.int64)
        seeds = [self._seed_of(self.rows[one], self._turns[one], epoch) for one in numbers]
        images, targets = self._samples.take(rows, seeds)
        images, targets = images.to(self._device), targets.to(self._device)
        if self._augment is not None:
            images, maps = self._augment(images, seeds, targets if self._samples.moves else None)
            targets = targets if maps is None else maps
        return Batch(
            images=images.contiguous(memory_format=self._format),
            targets=targets,
            index=torch.from_numpy(rows),
            ids=tuple(self._arrays.cases[row].id for row in rows),
        )

    def _seed_of(self, row: int, turn: int, epoch: int) -> int:
        content = int(self._arrays.sha256[row][:12], 16)
        return (content * 1_000_003 + self._seed * 10_007 + epoch + turn * 7_919_000_003) % 2**62
