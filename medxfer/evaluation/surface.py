"""Distances between the surfaces of two masks: 95th percentile Hausdorff distance and normalised surface Dice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_CLOSE = 1e-6  # a distance that rounding lifts above the tolerance still counts


def box_of(*masks: Mask) -> tuple[slice, ...] | None:
    """The smallest box around all that is true in any mask; None where nothing is."""
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(one for one in range(masks[0].ndim) if one != axis)
        where = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not len(where):
            return None
        box.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(box)


def boundary_points(mask: Mask, spacing: Sequence[float]) -> Floats:
    """Centres of the voxels that have a face neighbour outside of the mask; the image's edge is outside.

    Args:
        mask: (X, Y, Z) or (rows, columns).
        spacing: mm along each axis.

    Returns:
        (N, D), mm.
    """
    from scipy import ndimage

    places = np.argwhere(mask & ~ndimage.binary_erosion(mask)).astype(np.float64)
    return places * np.asarray(spacing, dtype=np.float64)


def surface_elements(mask: Mask, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Surface elements of Nikolov et al. 2018 (arXiv:1809.04430, and DeepMind's `surface-distance`).

    An element sits at a corner shared by 2x2x2 voxels (2x2 pixels) that are not all alike; its weight is the area
    (length) of the marching-cubes surface through them. The image's edge is outside of the mask.

    Args:
        mask: (X, Y, Z) or (rows, columns).
        spacing: mm along each axis.

    Returns:
        Points (N, D) in mm, counted from half a voxel before the first; weights (N,) in mm2 (mm).
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    code = np.zeros([length - 1 for length in padded.shape], dtype=np.uint8)
    count = 2**mask.ndim
    for number in range(count):
        starts = [number >> (mask.ndim - 1 - axis) & 1 for axis in range(mask.ndim)]
        cut = tuple(slice(start, start + length) for start, length in zip(starts, code.shape, strict=True))
        code += padded[cut] << (count - 1 - number)
    places = np.argwhere((code != 0) & (code != 2**count - 1))
    weights = _areas(tuple(float(one) for one in spacing))[code[tuple(places.T)]]
    return places.astype(np.float64) * np.asarray(spacing, dtype=np.float64), weights


@lru_cache(maxsize=64)
def _areas(spacing: tuple[float, ...]) -> Floats:
    """Area (length) of the surface inside a corner's 2x2x2 voxels (2x2 pixels), by their code; MONAI's table."""
    from monai.metrics.utils import get_code_to_measure_table

    table = get_code_to_measure_table(spacing)[0]
    return np.asarray(table, dtype=np.float64).ravel()


def hausdorff_95(one: Mask, other: Mask, spacing: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles of distances between boundary voxels, in mm.

    MONAI's `compute_hausdorff_distance(..., percentile=95)`. Other programs pool both directions (medpy) or weigh
    by area (DeepMind): their figures differ.

    Args:
        one: (X, Y, Z) or (rows, columns), with something in it.
        other: As `one`.
        spacing: mm along each axis.
    """
    from scipy.spatial import cKDTree

    first, second = boundary_points(one, spacing), boundary_points(other, spacing)
    there = cKDTree(second).query(first)[0]
    back = cKDTree(first).query(second)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_dice(one: Mask, other: Mask, spacing: Sequence[float], tolerance: float) -> float:
    """Share of both surfaces, by area, that lies within a tolerance of the other (Nikolov et al. 2018).

    MONAI's `compute_surface_dice(..., use_subvoxels=True)`.

    Args:
        one: (X, Y, Z) or (rows, columns), with something in it.
        other: As `one`.
        spacing: mm along each axis.
        tolerance: mm; a distance equal to it is within.
    """
    from scipy.spatial import cKDTree

    first, first_areas = surface_elements(one, spacing)
    second, second_areas = surface_elements(other, spacing)
    reach = tolerance * (1 + _CLOSE) + _CLOSE
    near = first_areas[np.isfinite(cKDTree(second).query(first, distance_upper_bound=reach)[0])].sum()
    near += second_areas[np.isfinite(cKDTree(first).query(second, distance_upper_bound=reach)[0])].sum()
    return float(near / (first_areas.sum() + second_areas.sum()))
