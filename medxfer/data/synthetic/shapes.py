"""Building blocks of synthetic pictures and volumes of any size: smooth noise, grids, grey scales.

The chest generator has faster ones of its own, tied to its 256 x 256 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
AnyFloat = NDArray[np.floating[Any]]  # what an expression of arrays is to the type checker


def noise(rng: np.random.Generator, shape: Sequence[int], cells: int | Sequence[int]) -> Array:
    """Noise of mean 0 and deviation near 1.

    Args:
        rng: Random numbers.
        shape: Of the result, any number of axes.
        cells: How many lumps lie along each axis, or along every one.
    """
    counts = [cells] * len(shape) if isinstance(cells, int) else list(cells)
    field: AnyFloat = rng.standard_normal(counts, dtype=np.float32)
    for axis, (count, size) in enumerate(zip(counts, shape, strict=True)):
        field = np.moveaxis(np.tensordot(_upsampler(count, size), field, (1, axis)), 0, axis)
    return np.asarray(field, np.float32)


@cache
def _upsampler(cells: int, size: int) -> Array:
    matrix = ndimage.zoom(np.eye(cells), (size / cells, 1), order=3, mode="nearest", grid_mode=True)
    return np.asarray(matrix, np.float32)


def grid(shape: Sequence[int], step: Sequence[float] | float = 1.0) -> tuple[Array, ...]:
    """Coordinates along each axis, from the middle of the array, in units of `step`; shapes that broadcast."""
    steps = [step] * len(shape) if isinstance(step, int | float) else list(step)
    lines = []
    for axis, (size, length) in enumerate(zip(shape, steps, strict=True)):
        line = ((np.arange(size) - (size - 1) / 2) * length).astype(np.float32)
        lines.append(line.reshape([-1 if other == axis else 1 for other in range(len(shape))]))
    return tuple(lines)


def picture_grid(shape: tuple[int, int], *, width: float = 1.0, height: float = 1.0) -> tuple[Array, Array]:
    """Coordinates x to the right, y downward, from -`width` to `width` and -`height` to `height`, as whole pictures."""
    down, right = grid(shape, (2 * height / shape[0], 2 * width / shape[1]))
    return np.ascontiguousarray(np.broadcast_to(right, shape)), np.ascontiguousarray(
        np.broadcast_to(down, shape)
    )


def turned(x: AnyFloat, y: AnyFloat, angle: float) -> tuple[Array, Array]:
    """Coordinates in a system turned by `angle` (radians)."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.asarray(x * cosine + y * sine, np.float32), np.asarray(y * cosine - x * sine, np.float32)


def edge(value: AnyFloat, softness: float) -> Array:
    """0 far below 0, 1 far above, through a slope `softness` wide."""
    return np.asarray(0.5 + 0.5 * np.tanh(value * np.float32(0.5 / softness)), np.float32)


def blob(x: AnyFloat, y: AnyFloat, softness: float) -> Array:
    """A disc of radius 1 with a soft border."""
    return edge(1 - np.sqrt(x * x + y * y), softness)


def ball(x: AnyFloat, y: AnyFloat) -> Array:
    """Thickness of a ball of radius 1 seen from the front."""
    return np.asarray(np.sqrt(np.maximum(1 - x * x - y * y, 0)), np.float32)


def blurred(values: AnyFloat, sigma: float | Sequence[float]) -> Array:
    """Gaussian blur."""
    return np.asarray(ndimage.gaussian_filter(values.astype(np.float32), sigma, mode="nearest"), np.float32)


def retoned(
    image: AnyFloat, wanted: Sequence[float] | AnyFloat, share: float, inside: NDArray[np.bool_] | None = None
) -> Array:
    """Move a picture's grey values towards a given distribution, as a technician's choice of window and curve does.

    What is seen stays; how many pixels are bright says less and less about it as `share` goes to 1.

    Args:
        image: Any grey values, any shape.
        wanted: The quantiles to reach, rising, evenly spaced from the least to the greatest grey value.
        share: 0 leaves the picture, 1 gives it exactly those quantiles.
        inside: Where; pixels elsewhere are left. None: everywhere.
    """
    values = image if inside is None else image[inside]
    ranks = np.linspace(0, 1, 128)
    some = values.ravel()[:: max(1, values.size // 16384)]
    own = np.quantile(some, ranks)
    target = np.interp(ranks, np.linspace(0, 1, len(wanted)), wanted)
    low, high = own[0], own[-1]
    scaled = wanted[0] + (own - low) / max(high - low, 1e-6) * (wanted[-1] - wanted[0])
    moved = np.asarray(np.interp(values, own, (1 - share) * scaled + share * target), np.float32)
    if inside is None:
        return moved
    result: Array = image.astype(np.float32)
    result[inside] = moved
    return result


def to_bytes(image: AnyFloat) -> NDArray[np.uint8]:
    """0 to 1 as 0 to 255, rounded, cut off outside."""
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)
