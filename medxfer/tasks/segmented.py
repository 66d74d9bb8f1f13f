"""What is kept of a case that a network has segmented: small, so that hundreds fit into memory."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..data.masks import Origin
from ..evaluation.segmentation import Measures


@dataclass(frozen=True, slots=True)
class Packed:
    """An array of few values, compressed."""

    content: bytes
    shape: tuple[int, ...]
    dtype: str
    is_turned: bool  # the first axis lies closest in memory

    @classmethod
    def of(cls, array: np.ndarray) -> Packed:
        """Compress; the array's order in memory is kept where it is Fortran's."""
        is_turned = array.flags.f_contiguous and not array.flags.c_contiguous
        flat = array.tobytes("F" if is_turned else "C")
        return cls(zlib.compress(flat, 1), array.shape, str(array.dtype), is_turned)

    def unpacked(self) -> np.ndarray:
        """The array again."""
        flat = np.frombuffer(zlib.decompress(self.content), dtype=self.dtype)
        return flat.reshape(self.shape, order="F" if self.is_turned else "C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """One case.

    Attributes:
        origin: Where it came from.
        mask: On the grid of the file: class numbers, or a boolean stack (K, ...) of overlapping classes.
        seen: The same on the grid that the network saw, for pictures.
        true: Truth on that grid; None where it is unknown.
        sizes: ml (cm2, pixels) by class, as columns of a table.
        measures: Against the truth, by class; None where it is unknown.
        trivial: Of the trivial rule; None where that is unknown.
    """

    origin: Origin
    mask: Packed
    seen: Packed
    true: Packed | None
    sizes: Mapping[str, float]
    measures: Mapping[str, Measures] | None
    trivial: Mapping[str, Measures] | None
