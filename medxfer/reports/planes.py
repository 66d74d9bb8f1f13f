"""The planes in which a case is shown: a picture as it is, a volume as radiologists look at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.figures import CasePicture

_CONTEXT = 4  # times the longest side of what is outlined that a volume shows at least...
_SHARE = 1 / 3  # ... and this share of its own longest side
_NAMES = {2: "axial", 1: "coronal", 0: "sagittal"}  # by the axis of RAS that the plane cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One cut through an image.

    Attributes:
        name: `axial`, `coronal`, `sagittal`; empty for a picture.
        axis: Of the volume, that is cut; None for a picture.
        place: Voxel along it.
        window: Of a volume, the part of each axis that is shown; empty: all.
        size: Rows and columns in units of `unit`, so that their ratio is that of the body.
        longest: The longest side of all planes of the image, in the same unit.
    """

    name: str = ""
    axis: int | None = None
    place: int = 0
    window: tuple[slice, ...] = ()
    size: tuple[float, float]
    longest: float

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """(C, *spatial) to (C, rows, columns).

        Superior or anterior is on top and the patient's right on the left; anterior in a sagittal plane.
        """
        if self.axis is None:
            return image
        plane: NDArray[Any] = np.take(image, self.place, axis=self.axis + 1)
        if self.window:
            plane = plane[:, *(one for axis, one in enumerate(self.window) if axis != self.axis)]
        return np.flip(plane, (1, 2)).transpose(0, 2, 1)

    def is_part_of(self, shape: Sequence[int]) -> bool:
        """Whether it leaves something of its volume out."""
        return any(part != slice(0, length) for part, length in zip(self.window, shape, strict=True))

    def shown_as(self, side: int, most: int) -> tuple[int, int]:
        """Rows and columns in pixels, all planes of an image on one scale.

        Args:
            side: Pixels that the longest side has at least; voxels are enlarged by a whole number, if they are cubes.
            most: Pixels that no side exceeds.
        """
        scale = min(float(-(-side // self.longest)), most / self.longest) if self.longest else 1.0
        rows, columns = (max(1, round(length * scale)) for length in self.size)
        return rows, columns


def planes_of(one: CasePicture) -> list[Plane]:
    """The picture itself; of a volume (X, Y, Z) in RAS the axial, coronal and sagittal plane.

    They go through the largest cross-section of what is outlined, true masks first; else through the strongest
    evidence; else through the middle. About outlines that are small in their volume only a part of it is shown.
    """
    shape = one.image.shape[1:]
    spacing = np.asarray(one.spacing or (1.0,) * len(shape), dtype=np.float64)
    steps = spacing / spacing.min()
    if len(shape) == 2:
        rows, columns = (float(length) for length in np.asarray(shape) * steps)
        return [Plane(size=(rows, columns), longest=max(rows, columns))]
    places, window = _places(one, shape), _window(one, shape, steps)
    lengths = np.array([part.stop - part.start for part in window]) * steps
    planes = []
    for axis in (2, 1, 0):
        columns, rows = (float(length) for other, length in enumerate(lengths) if other != axis)
        planes.append(
            Plane(
                name=_NAMES[axis],
                axis=axis,
                place=places[axis],
                window=window,
                size=(rows, columns),
                longest=float(lengths.max()),
            )
        )
    return planes


def _places(one: CasePicture, shape: Sequence[int]) -> tuple[int, ...]:
    for kind in ("true", "predicted"):
        region = np.zeros(shape, dtype=bool)
        for line in one.outlines:
            if line.kind == kind:
                region |= line.mask
        if region.any():
            return tuple(_largest_cut(region, axis) for axis in range(3))
    if one.heat is not None:
        return tuple(int(place) for place in np.unravel_index(int(one.heat.argmax()), shape))
    return tuple(length // 2 for length in shape)


def _window(one: CasePicture, shape: Sequence[int], steps: NDArray[np.float64]) -> tuple[slice, ...]:
    """A cube about everything outlined, as far as the volume reaches."""
    corners = [corner for line in one.outlines if line.mask.any() for corner in _corners(line.mask)]
    if not corners:
        return tuple(slice(0, length) for length in shape)
    low, high = np.min(corners, axis=0), np.max(corners, axis=0) + 1
    side = max(_CONTEXT * ((high - low) * steps).max(), _SHARE * (np.asarray(shape) * steps).max())
    start = np.maximum(0, np.floor((low + high) / 2 - side / steps / 2)).astype(int)
    stop = np.minimum(shape, np.ceil((low + high) / 2 + side / steps / 2)).astype(int)
    return tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))


def _corners(mask: NDArray[np.bool_]) -> Iterator[list[int]]:
    """First and last voxel of a region along each axis."""
    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append((int(there[0]), int(there[-1])))
    yield [first for first, _ in spans]
    yield [last for _, last in spans]


def _largest_cut(region: NDArray[np.bool_], axis: int) -> int:
    """Where the most of a region lies in one plane; the middle one of several alike."""
    areas = np.count_nonzero(region, axis=tuple(other for other in range(3) if other != axis))
    alike = np.flatnonzero(areas == areas.max())
    return int(alike[len(alike) // 2])
