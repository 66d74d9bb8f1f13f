"""An image with its place: values, and an affine that follows every step back to where the reader found them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .image import Image


@dataclass(frozen=True, slots=True)
class Placed:
    """What steps take and give.

    Attributes:
        values: (C, rows, columns) or (C, X, Y, Z), float32.
        affine: (D + 1, D + 1) float64, from this grid's indices to the reader's space: mm in RAS for volumes, mm down
            and right for pictures (pixels where the spacing is unknown). Masks are brought onto this grid, and
            predictions back from it, by this matrix alone.
    """

    values: Tensor
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return tuple(self.values.shape[1:])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size along each array axis, in the affine's units."""
        return tuple(float(one) for one in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    def with_values(self, values: Tensor) -> Placed:
        """Other values on the same grid."""
        return Placed(values, self.affine)

    def cut(self, values: Tensor, start: Sequence[int]) -> Placed:
        """Values of a crop (or padding, where `start` is negative) whose first voxel is the old `start`."""
        matrix = np.eye(len(start) + 1)
        matrix[:-1, -1] = start
        return Placed(values, self.affine @ matrix)

    def scaled(self, values: Tensor) -> Placed:
        """Values resized over the same extent, edges on edges."""
        matrix = np.eye(len(self.shape) + 1)
        for axis, (old, new) in enumerate(zip(self.shape, values.shape[1:], strict=True)):
            matrix[axis, axis] = old / new
            matrix[axis, -1] = 0.5 * (old / new) - 0.5
        return Placed(values, self.affine @ matrix)


def placed(image: Image) -> Placed:
    """What a reader returned, ready for steps."""
    values = torch.from_numpy(image.array)
    dims = values.ndim - 1
    if dims == 3 and image.affine is not None:
        return Placed(values, np.asarray(image.affine, dtype=np.float64))
    return Placed(values, _scaling(dims, tuple(image.spacing or ())))


@functools.lru_cache(maxsize=64)
def _scaling(dims: int, spacing: tuple[float, ...]) -> np.ndarray:
    """(D + 1, D + 1); one for all pictures of a spacing, so nobody may change it."""
    affine = np.eye(dims + 1)
    for axis, one in enumerate(spacing):
        affine[axis, axis] = one
    affine.setflags(write=False)
    return affine
