"""What a row of the arrays gives to a batch: the whole image, or patches of it, the label beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..bundle.schema import ImagesSpec, PatchSpec
from .cache import Arrays
from .masks import IGNORED
from .planes import picture_of

_POSITIONS = 4096  # voxels of each class that patches may be centred on, an image


class Samples(Protocol):
    """Where batches come from.

    Attributes:
        count: Samples of each row, an epoch.
        moves: Whether targets are maps, which move with their images.
    """

    count: int
    moves: bool

    def take(self, rows: np.ndarray, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, *spatial) float32 in [0, 1] and targets; `seeds` decide what is drawn, one a sample."""


class WholeImages:
    """Each image as it is, with its number, numbers or map.

    Args:
        arrays: The cached images.
        targets: A label per row; None: the arrays' maps are the labels.
    """

    count = 1

    def __init__(self, arrays: Arrays, targets: Tensor | None) -> None:
        self._arrays, self._targets = arrays, targets
        self.moves = targets is None

    def take(self, rows: np.ndarray, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The rows; of ragged arrays only those of one size."""
        return self._arrays.batch(rows), targets_of(self._arrays, self._targets, rows)


class Patches:
    """Patches of one size; a share of them is centred on labelled voxels, each class alike.

    Images smaller than the patch are padded with 0 on both sides, as MONAI's sliding window does, and their maps with
    background.

    Args:
        arrays: Images with maps.
        size: Of a patch.
        spec: How many, and where.
        thin: Axis along which they are one voxel thick; they are given as pictures then, (B, C, rows, columns), so
            that augmentation stays in the plane.
    """

    moves = True

    def __init__(
        self, arrays: Arrays, size: Sequence[int], spec: PatchSpec, *, thin: int | None = None
    ) -> None:
        self._arrays, self._size, self._spec, self._thin = arrays, tuple(size), spec, thin
        self._positions: dict[int, list[np.ndarray]] = {}
        self.count = spec.count

    def take(self, rows: np.ndarray, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One patch a row, where its seed says."""
        images, maps = self._arrays.images, self._arrays.maps
        assert maps is not None
        dtype, channels = images.dtype, images[int(rows[0])].shape[0]
        pixels = np.zeros((len(rows), channels, *self._size), dtype)
        labels = np.zeros((len(rows), *self._size), np.uint8)
        for number, (row, seed) in enumerate(zip(rows.tolist(), seeds, strict=True)):
            image, label = images[row], maps[row]
            start = self._start(row, label, np.random.default_rng([seed, 1]))
            source, target = zip(
                *[
                    _overlap(first, side, want)
                    for first, side, want in zip(start, label.shape, self._size, strict=True)
                ],
                strict=True,
            )
            pixels[(number, slice(None), *target)] = image[(slice(None), *source)]
            labels[(number, *target)] = label[source]
        found = self._arrays.as_image(pixels), torch.from_numpy(labels)
        if self._thin is None:
            return found
        image, label = (picture_of(one, self._thin).contiguous() for one in found)
        return image, label

    def _start(self, row: int, label: np.ndarray, random: np.random.Generator) -> list[int]:
        """First voxel of a patch along each axis; negative where the image is smaller."""
        room = [side - want for side, want in zip(label.shape, self._size, strict=True)]
        drawn = [int(random.integers(max(0, free) + 1)) for free in room]
        if random.uniform() < self._spec.foreground and (groups := self._classes(row, label)):
            group = groups[int(random.integers(len(groups)))]
            centre = np.unravel_index(int(group[int(random.integers(len(group)))]), label.shape)
            drawn = [int(one) - want // 2 for one, want in zip(centre, self._size, strict=True)]
        return [
            -((-free) // 2) if free < 0 else min(max(one, 0), free)
            for one, free in zip(drawn, room, strict=True)
        ]

    def _classes(self, row: int, label: np.ndarray) -> list[np.ndarray]:
        """Flat indices of voxels of each class that is there; at most a few thousand, drawn once."""
        if row not in self._positions:
            flat = label.ravel()
            random = np.random.default_rng(int(self._arrays.sha256[row][:12], 16))
            groups = []
            for number in np.flatnonzero(counts_of(label)[1:IGNORED]) + 1:
                found = np.flatnonzero(flat == number)
                groups.append(
                    found if len(found) <= _POSITIONS else random.choice(found, _POSITIONS, replace=False)
                )
            self._positions[row] = groups
        return self._positions[row]


def counts_of(label: np.ndarray) -> np.ndarray:
    """Voxels of each class number, (256,); slice by slice, as `bincount` makes 8 bytes of each."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for part in label:
        counts += np.bincount(part.ravel(), minlength=IGNORED + 1)
    return counts


def samples_of(arrays: Arrays, targets: Tensor | None, images: ImagesSpec) -> Samples:
    """What training looks at, as the bundle says."""
    if images.patches is None:
        return WholeImages(arrays, targets)
    return Patches(arrays, images.shape, images.patches, thin=images.thin)


def targets_of(arrays: Arrays, targets: Tensor | None, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Labels of some rows: numbers, or maps (B, *spatial) uint8 of one size."""
    if targets is not None:
        return targets[torch.as_tensor(np.asarray(rows, dtype=np.int64))]
    assert arrays.maps is not None
    return torch.from_numpy(np.stack([arrays.maps[int(row)] for row in rows]))


def _overlap(start: int, side: int, want: int) -> tuple[slice, slice]:
    """Where a patch from `start` meets an image: the part of the image, and its place in the patch."""
    begin, end = max(start, 0), min(start + want, side)
    return slice(begin, end), slice(begin - start, end - start)
