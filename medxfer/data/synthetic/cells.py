"""Cells seen under a microscope: where their nuclei lie, how they are shaped, and what each pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .shapes import Array, edge, noise

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuclei:
    """Nuclei of one picture, each argument one number a nucleus, (n,) or (n, 2).

    Args:
        place: Row and column, px.
        radius: Mean of the two half axes, px.
        stretch: Long half axis / mean.
        angle: Of the long axis, radians.
        uneven: How far the outline departs from an ellipse, share of the radius.
        dark: How much stain it takes, about 1.
    """

    place: Points
    radius: Points
    stretch: Points
    angle: Points
    uneven: Points
    dark: Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What each pixel belongs to, all (rows, columns).

    Args:
        share: Of the pixel that a nucleus covers, 0 to 1.
        inward: Distance from the middle of the nearest nucleus, 1 at its outline.
        owner: Number of the nearest nucleus.
        border: Distance to the border between two cells, px.
    """

    share: Array
    inward: Array
    owner: NDArray[np.int64]
    border: Array


def scattered(
    shape: tuple[int, int], spacing: float, jitter: float, rng: np.random.Generator, *, drop: float = 0.0
) -> Points:
    """Places on a shaken hexagonal grid, (n, 2); a share `drop` of them is left out."""
    rows = np.arange(-spacing, shape[0] + spacing, spacing * 0.87)
    columns = np.arange(-spacing, shape[1] + spacing, spacing)
    place = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    place[1::2, :, 1] += spacing / 2
    place = (
        place.reshape(-1, 2)
        + rng.uniform(0, spacing, 2)
        + rng.normal(0, jitter * spacing, (place.size // 2, 2))
    )
    kept = rng.random(len(place)) >= drop
    kept[rng.integers(len(kept))] = True  # a picture without any cell has no nearest one
    return np.asarray(place[kept])


def at(field: Array, place: Points) -> Array:
    """A field's values where the points are, the nearest pixel's for those outside."""
    rows = np.clip(place[:, 0].astype(int), 0, field.shape[0] - 1)
    columns = np.clip(place[:, 1].astype(int), 0, field.shape[1] - 1)
    return np.asarray(field[rows, columns], np.float32)


def cells_of(shape: tuple[int, int], nuclei: Nuclei, rng: np.random.Generator) -> Cells:
    """Give each pixel to its nearest nucleus; nuclei that would overlap meet at a straight border."""
    pixels = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"), -1).reshape(-1, 2)
    count = min(2, len(nuclei.place))
    distance, number = cKDTree(nuclei.place).query(pixels, k=count)
    distance, number = distance.reshape(len(pixels), -1), number.reshape(len(pixels), -1)
    owner = number[:, 0]
    away = pixels - nuclei.place[owner]
    angle = np.arctan2(away[:, 0], away[:, 1]) - nuclei.angle[owner]
    radius, stretch = nuclei.radius[owner], nuclei.stretch[owner]
    along = distance[:, 0] * np.cos(angle) / (radius * stretch)
    beside = distance[:, 0] * np.sin(angle) / (radius / stretch)
    phase = rng.uniform(0, 2 * np.pi, (3, len(nuclei.place)))
    waves = sum(np.sin((k + 2) * angle + phase[k, owner]) / (k + 1) for k in range(3))
    inward = np.hypot(along, beside) / np.maximum(1 + nuclei.uneven[owner] * waves, 0.4)
    soft = np.minimum(0.6 / np.maximum(radius, 1), 0.3)
    share = 1 / (1 + np.exp(np.clip((inward - 1) / (0.5 * soft), -30, 30)))
    gap = distance[:, -1] - distance[:, 0]
    return Cells(
        share=np.asarray(share.reshape(shape), np.float32),
        inward=np.asarray(inward.reshape(shape), np.float32),
        owner=np.asarray(owner.reshape(shape), np.int64),
        border=np.asarray(gap.reshape(shape) / 2, np.float32),
    )


def chromatin(cells: Cells, nuclei: Nuclei, rng: np.random.Generator, *, clumps: float, rim: float) -> Array:
    """Stain inside the nuclei: clumped, with a darker rim, (rows, columns), 0 outside."""
    shape = cells.share.shape
    cell_count = int(max(shape) / max(1.5, 0.35 * float(np.median(nuclei.radius))))
    texture = 1 + np.float32(clumps) * noise(rng, shape, max(cell_count, 4))
    ring = np.exp(-(((cells.inward - 0.88) / 0.14) ** 2))
    dark = nuclei.dark[cells.owner]
    return np.asarray(cells.share * dark * np.clip(texture + rim * ring, 0.25, 2), np.float32)


def nucleoli(cells: Cells, nuclei: Nuclei, share: float, rng: np.random.Generator) -> Array:
    """A dark dot in some of the nuclei, (rows, columns)."""
    has = rng.random(len(nuclei.place)) < share
    shift = rng.uniform(0, 0.4, len(nuclei.place))
    dot = edge(0.24 - np.abs(cells.inward - shift[cells.owner] * 0.3), 0.06)
    return np.asarray(dot * has[cells.owner] * cells.share, np.float32)
