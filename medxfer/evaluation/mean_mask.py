"""The trivial rule of segmentation: what lies where in the training masks, by relative place, without a look."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .segmentation import Measures
from .surface import Mask

_SIDE = {2: 64, 3: 32}  # of the mean mask
_THRESHOLDS = np.arange(0.05, 1.0, 0.05)
RULE = "the mean training mask, stretched over each image, from the share that fits the training masks best"


@dataclass(frozen=True, slots=True)
class MeanMask:
    """Where each class mostly is: a boolean mask a class, (K, side, ...)."""

    called: np.ndarray

    @classmethod
    def of(cls, maps: Iterable[np.ndarray], members: Sequence[Sequence[int]]) -> MeanMask:
        """From class numbers (*spatial) of the training cases.

        Args:
            maps: Of any size.
            members: For each class the numbers that belong to it.
        """
        small = np.stack([_stacked(_resized(one, (_SIDE[one.ndim],) * one.ndim), members) for one in maps])
        share = small.mean(axis=0)
        called = np.zeros_like(small[0])
        for number in range(len(members)):
            true = small[:, number].reshape(len(small), -1).astype(np.float32)
            best = max(_THRESHOLDS, key=lambda limit: _mean_dice(share[number].ravel() >= limit, true))
            called[number] = share[number] >= best
        return cls(called)

    def measure(self, true: Mask, counted: Mask, *, classes: Sequence[str]) -> dict[str, Measures]:
        """Overlap with a true mask; distances are left out, as they take long and say little here.

        Args:
            true: Boolean stack (K, *spatial).
            counted: (*spatial), where voxels count.
            classes: K names.

        Returns:
            Measures by class, distance and surface Dice NaN.
        """
        measured = {}
        for name, own, called in zip(classes, true, self.called, strict=True):
            stretched = _resized(called, true.shape[1:]) & counted
            common, both = int(np.count_nonzero(stretched & own)), int(np.count_nonzero(stretched | own))
            measured[name] = Measures(
                dice=2 * common / (common + both) if both else math.nan,
                iou=common / both if both else math.nan,
                hd95=math.nan,
                surface_dice=math.nan,
                size=float(np.count_nonzero(stretched)),
                true_size=float(np.count_nonzero(own)),
                length_unit="voxels" if own.ndim == 3 else "pixels",
                size_unit="voxels" if own.ndim == 3 else "pixels",
            )
        return measured


def _stacked(numbers: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    return np.stack([np.isin(numbers, own) for own in members])


def _resized(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """By nearest neighbour, edges on edges."""
    places = [
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(mask.shape, size, strict=True)
    ]
    picked: np.ndarray = mask[np.ix_(*places)]
    return picked


def _mean_dice(called: np.ndarray, true: np.ndarray) -> float:
    """Mean Dice of one mask (V,) with many (N, V); cases without the class are left out."""
    there = true.sum(1)
    found = 2 * (true @ called.astype(np.float32)) / np.maximum(there + called.sum(), 1)
    return float(found[there > 0].mean()) if (there > 0).any() else 0.0
