"""Images with maps in memory, and the patches that an epoch takes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from medxfer.bundle.schema import ImagesSpec, PatchSpec
from medxfer.data.cache import Arrays
from medxfer.data.case import Case
from medxfer.data.loaders import Batches
from medxfer.data.patches import samples_of
from medxfer.data.ragged import rows_of

from .phantom import hand


def arrays_of(
    images: Sequence[np.ndarray], maps: Sequence[np.ndarray], order: Sequence[int] | None = None
) -> Arrays:
    """Arrays of uint8 images (*spatial) and their maps, sizes may differ."""
    order = list(range(len(images))) if order is None else list(order)
    chosen = [images[row][None] for row in order]
    shown = [maps[row] for row in order]
    return Arrays(
        images=rows_of(np.concatenate([one.ravel() for one in chosen]), [one.shape for one in chosen]),
        maps=rows_of(np.concatenate([one.ravel() for one in shown]), [one.shape for one in shown]),
        cases=tuple(Case(id=f"c{row}", images=(Path(f"c{row}"),), patient=f"p{row}") for row in order),
        sha256=tuple(f"{(row + 7) * 2654435761:064x}" for row in order),
        affines=np.stack([np.eye(4)] * len(order)),
    )


def marked(shape: tuple[int, ...] = (14, 11, 9)) -> np.ndarray:
    """An image in which no value is 0 and neighbours differ."""
    return (np.arange(np.prod(shape)).reshape(shape) % 250 + 1).astype(np.uint8)


def hands() -> Arrays:
    small = hand()[1:12, 1:10, 1:8]
    return arrays_of([marked(), marked(small.shape)], [hand(), small])


CUBES = ImagesSpec(dims=3, size=(8, 8, 8), patches=PatchSpec(count=4))


def batches_of(arrays: Arrays, *, spec: ImagesSpec = CUBES, **options: object) -> Batches:
    chosen: dict[str, object] = {
        "rows": range(len(arrays.cases)), "batch": 3, "seed": 5, "augment": None, "device": torch.device("cpu"),
        "memory_format": torch.contiguous_format, "shuffle": True, **options,
    }  # fmt: skip
    return Batches(arrays, samples_of(arrays, None, spec), **chosen)  # type: ignore[arg-type]


def by_case(batches: Batches, epoch: int) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for batch in batches.epoch(epoch):
        for name, image, label in zip(batch.ids, batch.images, batch.targets, strict=True):
            found.setdefault(name, []).append(image.numpy().tobytes() + label.numpy().tobytes())
    return {name: sorted(parts) for name, parts in found.items()}


def digest(batches: Batches, epoch: int) -> str:
    """Of all patches of an epoch."""
    return hashlib.sha256(repr(sorted(by_case(batches, epoch).items())).encode()).hexdigest()
