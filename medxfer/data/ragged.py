"""Arrays of different sizes, one after the other in one memory-mapped file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np


class Ragged:
    """Rows of one type and number of axes, each of its own shape.

    Args:
        flat: (total,), all values in the order of the rows; mostly memory-mapped.
        shapes: Of each row.

    Raises:
        ValueError: The shapes do not add up to the values.
    """

    def __init__(self, flat: np.ndarray, shapes: Sequence[Sequence[int]]) -> None:
        self._flat = flat
        self.shapes = tuple(tuple(int(side) for side in shape) for shape in shapes)
        self._starts = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)])
        if self._starts[-1] != flat.size:
            raise ValueError(f"{flat.size} values for shapes of {self._starts[-1]}")

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of every value."""
        return self._flat.dtype

    @property
    def ndim(self) -> int:
        """Axes of the rows and one more, as an array of equal rows would have."""
        return 1 + len(self.shapes[0]) if self.shapes else 0

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> np.ndarray:
        """A view of a row."""
        begin, end = self._starts[row], self._starts[row + 1]
        view: np.ndarray = self._flat[begin:end].reshape(self.shapes[row])
        return view

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


Rows = np.ndarray | Ragged


def rows_of(flat: np.ndarray, shapes: Sequence[Sequence[int]]) -> Rows:
    """One array where all shapes are equal, else `Ragged`.

    Raises:
        ValueError: The shapes do not add up to the values.
    """
    if len({tuple(shape) for shape in shapes}) == 1:
        return flat.reshape(len(shapes), *shapes[0])
    return Ragged(flat, shapes)
