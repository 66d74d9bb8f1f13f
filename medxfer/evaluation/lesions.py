"""Lesions counted one by one: how many of the true ones are found, and how many of those called are true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionRule:
    """When a lesion counts as found.

    Attributes:
        match: `overlap`: a true lesion is found where called voxels cover more than `least` of it, a called one is
            right where true voxels cover more than `least` of it; one may serve several. `iou`: true and called
            lesions pair off one to one, the largest intersection over union first, down to `least`.
        least: The share. 0 with `overlap`: a single common voxel will do (as in ISLES 2022).
        least_ml: Smaller lesions are not counted on either side (ml; cm2 of pictures, voxels without a spacing).
        corners: Voxels that touch by a corner or an edge are one lesion; else only by a face.
    """

    match: Literal["overlap", "iou"] = "overlap"
    least: float = 0.0
    least_ml: float = 0.0
    corners: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionCounts:
    """Lesions of one class in one case."""

    true: int
    called: int
    found: int  # of the true ones
    right: int  # of those called

    @property
    def precision(self) -> float:
        """Share of the called lesions that are true; NaN where none is called."""
        return self.right / self.called if self.called else math.nan

    @property
    def recall(self) -> float:
        """Share of the true lesions that are found; NaN where there is none."""
        return self.found / self.true if self.true else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where one side has none, NaN where neither has any."""
        if not self.true and not self.called:
            return math.nan
        precision, recall = self.right / max(self.called, 1), self.found / max(self.true, 1)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def count_lesions(called: Mask, true: Mask, rule: LesionRule, *, voxel: float = 1.0) -> LesionCounts:
    """Count connected components and match them.

    Args:
        called: (X, Y, Z) or (rows, columns).
        true: As `called`.
        rule: When a lesion is found.
        voxel: Size of a voxel in the unit of `rule.least_ml`.
    """
    least = rule.least_ml / voxel
    (called_parts, called_sizes), (true_parts, true_sizes) = (
        _components(mask, least, corners=rule.corners) for mask in (called, true)
    )
    both = (called_parts > 0) & (true_parts > 0)
    pairs, common = np.unique(
        np.stack([called_parts[both], true_parts[both]]), axis=1, return_counts=True
    )  # what lies together, and in how many voxels
    if rule.match == "iou":
        found = right = _paired(pairs, common, called_sizes, true_sizes, rule.least)
    else:
        right = _covered(pairs[0], common, called_sizes, rule.least)
        found = _covered(pairs[1], common, true_sizes, rule.least)
    return LesionCounts(
        true=int((true_sizes[1:] > 0).sum()),
        called=int((called_sizes[1:] > 0).sum()),
        found=found,
        right=right,
    )


def _components(mask: Mask, least: float, *, corners: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbered components and the size of each (0: too small, taken out)."""
    from scipy import ndimage

    links = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    parts, count = ndimage.label(mask, structure=links, output=np.int32)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    small = sizes < least
    small[0] = False
    if small.any():
        parts[small[parts]] = 0
        sizes[small] = 0
    return parts, sizes


def _covered(
    numbers: NDArray[np.int32], common: NDArray[np.int64], sizes: NDArray[np.int64], least: float
) -> int:
    """Components of which more than a share lies in the other mask."""
    covered = np.bincount(numbers, weights=common, minlength=len(sizes))[1:]
    return int((covered > least * sizes[1:])[sizes[1:] > 0].sum())


def _paired(
    pairs: NDArray[np.int32],
    common: NDArray[np.int64],
    called_sizes: NDArray[np.int64],
    true_sizes: NDArray[np.int64],
    least: float,
) -> int:
    """Pairs, each component in one at most, best first."""
    shares = common / (called_sizes[pairs[0]] + true_sizes[pairs[1]] - common)
    taken: tuple[set[int], set[int]] = (set(), set())
    for index in np.argsort(-shares, kind="stable"):
        one, other = int(pairs[0, index]), int(pairs[1, index])
        if shares[index] >= least and one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
    return len(taken[0])


def total_of(counts: Sequence[LesionCounts]) -> LesionCounts:
    """All lesions of several cases together."""
    return LesionCounts(
        **{name: sum(getattr(one, name) for one in counts) for name in ("true", "called", "found", "right")}
    )
