"""Predictions brought from the grid of the network back to the grid of the file, a slice at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .formats.grids import SourceGrid

_ALONG = 0.01  # voxels: two grids whose axes stray less over their whole length are parallel
_ROUNDING = 1e-6  # voxels: what lies in the middle of two voxels is told whatever the rounding


@dataclass(frozen=True, slots=True)
class _Way:
    """From indices of the file's grid to those of the prediction, both with three axes."""

    shape: tuple[int, int, int]  # of the file
    matrix: np.ndarray  # (3, 3)
    offsets: np.ndarray  # (slices, 3), of the first voxel of each slice of the file's last axis
    order: (
        tuple[int, int, int] | None
    )  # axis of the prediction that each axis of the file follows; None: aslant


def onto_grid(labels: np.ndarray, affine: np.ndarray, grid: SourceGrid) -> np.ndarray:
    """Class numbers on the file's grid: of each of its voxels that of the nearest one of the prediction.

    Where several are equally near, as at exactly half the resolution, it is the number that most of them have: always
    the upper one would move a whole mask by half a voxel against its image.

    Args:
        labels: (X, Y, Z) or (rows, columns), whole numbers or booleans; or a stack (K, ...) of such.
        affine: `Placed.affine` of the labels.
        grid: Where they go.

    Returns:
        The same kind of numbers, of `grid.shape` (a stack: (K, *grid.shape)); 0 outside of the prediction. In memory
        the first axis of the grid lies closest.

    Raises:
        ValueError: Another number of axes than the grid's.
    """
    dims = len(grid.shape)
    if labels.ndim == dims + 1:
        return np.stack([onto_grid(one, affine, grid) for one in labels])
    volume = _three_axes(labels, affine, grid)
    way = _way(affine, grid)
    out: np.ndarray = np.zeros(way.shape, labels.dtype, order="F")
    if way.order is None:
        for number in range(way.shape[2]):
            index = np.floor(_coordinates(way, number) + 0.5 + _ROUNDING).astype(np.int64)
            limits = np.array(volume.shape).reshape(3, 1, 1)
            inside = ((index >= 0) & (index < limits)).all(axis=0)
            out[..., number][inside] = volume[tuple(index[:, inside])]
        return out.reshape(grid.shape, order="F")
    turned = _first_axis_closest(volume.transpose(way.order))
    near = [_nearest(way, axis, turned.shape[axis]) for axis in range(3)]
    box = tuple(_span(one) for one, _ in near)
    equal = itertools.product(*(ways for _, ways in near))
    out[box] = _most_common([_picked(turned, indices) for indices in equal])
    return out.reshape(grid.shape, order="F")


def _picked(volume: np.ndarray, indices: Sequence[np.ndarray]) -> np.ndarray:
    """Some rows, columns and slices of a volume; the first axis of the result lies closest in memory."""
    rows, columns, slices = indices
    out: np.ndarray = np.empty((len(rows), len(columns), len(slices)), volume.dtype, order="F")
    for number, source in enumerate(slices):
        out[..., number] = _taken(_taken(volume[:, :, source], rows, 0), columns, 1)
    return out


def _most_common(found: Sequence[np.ndarray]) -> np.ndarray:
    """Voxel by voxel what most of some volumes hold; where several are as many, what the first of them has."""
    most = found[0]
    differs = np.zeros(most.shape, dtype=bool, order="F")
    for one in found[1:]:
        differs |= one != most
    if differs.any():  # at borders of structures, hence few
        held = np.stack([one[differs] for one in found])
        votes = np.stack([(held == one).sum(axis=0) for one in held])
        most[differs] = np.take_along_axis(held, votes.argmax(axis=0)[None], axis=0)[0]
    return most


def planes_on_grid(probabilities: np.ndarray, affine: np.ndarray, grid: SourceGrid) -> Iterator[np.ndarray]:
    """Probabilities on the file's grid, linear between the prediction's voxels, slice by slice of its last axis.

    Args:
        probabilities: (K, X, Y, Z) or (K, rows, columns), float.
        affine: `Placed.affine` of the probabilities.
        grid: Where they go.

    Yields:
        (K, first, second) float32; 0 more than half a voxel outside of the prediction. Of a picture one.
    """
    way = _way(affine, grid)
    for rows, columns, slab in _slabs(probabilities, affine, grid):
        plane = np.zeros((len(probabilities), *way.shape[:2]), np.float32)
        plane[:, rows, columns] = slab
        yield plane


def _slabs(
    probabilities: np.ndarray, affine: np.ndarray, grid: SourceGrid
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The part of each plane of `planes_on_grid` that lies in the prediction, and where; the rest is 0."""
    volume = (
        probabilities
        if _three_axes(probabilities[0], affine, grid).ndim == probabilities.ndim - 1
        else (probabilities[..., None])
    )
    way = _way(affine, grid)
    if way.order is None:
        for plane in _planes_aslant(volume, way):
            yield slice(None), slice(None), plane
        return
    turned = volume.transpose(0, *(axis + 1 for axis in way.order))
    weighed = [_linear(way, axis, turned.shape[axis + 1]) for axis in range(3)]
    (first, low_row, high_row, row), (second, low_column, high_column, column), third = weighed
    across = dict(zip(third[0].tolist(), range(len(third[0])), strict=True))
    nothing = np.zeros((len(turned), 0, 0), np.float32)
    for number in range(way.shape[2]):
        if number not in across:
            yield slice(0, 0), slice(0, 0), nothing
            continue
        place = across[number]
        low, high = turned[..., third[1][place]], turned[..., third[2][place]]
        slab = _between(low, high, third[3][place])
        slab = _between(slab[:, low_row], slab[:, high_row], row[:, None])
        slab = _between(slab[:, :, low_column], slab[:, :, high_column], column)
        yield _span(first), _span(second), slab


def decided_on_grid(
    probabilities: np.ndarray, affine: np.ndarray, grid: SourceGrid, *, threshold: float | None = None
) -> np.ndarray:
    """Resample probabilities, then decide: finer at the edges than `onto_grid` of a decision on a coarse grid.

    Memory beside the result is that of a few slices.

    Args:
        probabilities: (K, X, Y, Z) or (K, rows, columns), float; without a threshold the first is the background.
        affine: `Placed.affine` of the probabilities.
        grid: Where they go.
        threshold: Classes may overlap, and each is called from this probability; None: the most probable one.

    Returns:
        `grid.shape` uint8, class numbers, 0 outside of the prediction; with a threshold (K, *grid.shape) bool.
    """
    count = len(probabilities)
    shape = _way(affine, grid).shape
    slabs = enumerate(_slabs(probabilities, affine, grid))
    if threshold is not None:
        called: np.ndarray = np.zeros((count, *shape), dtype=bool)
        for number, (rows, columns, slab) in slabs:
            called[:, rows, columns, number] = slab >= threshold
        return called.reshape(count, *grid.shape)
    out: np.ndarray = np.zeros(shape, np.uint8, order="F")
    for number, (rows, columns, slab) in slabs:
        best, winner = slab[0], np.zeros(slab.shape[1:], np.uint8)
        for one in range(1, count):
            winner[slab[one] > best] = one
            best = np.maximum(best, slab[one])
        out[rows, columns, number] = winner
    return out.reshape(grid.shape, order="F")


def called_box(called: np.ndarray) -> tuple[slice, ...]:
    """The box about all that is called, one voxel wider where there is more.

    Between voxels that are all background nothing else wins, so what is outside of this box is background on the file's
    grid too: probabilities of the box alone, with `affine_of_box`, give the same mask.

    Args:
        called: (*spatial) bool, whether something but background was called.
    """
    box = []
    for axis, side in enumerate(called.shape):
        found = np.flatnonzero(called.any(axis=tuple(other for other in range(called.ndim) if other != axis)))
        if not len(found):
            return (slice(0, 1),) * called.ndim
        box.append(slice(max(0, int(found[0]) - 1), min(side, int(found[-1]) + 2)))
    return tuple(box)


def affine_of_box(affine: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """The affine of a part of a grid whose first voxel is where the box begins."""
    matrix = np.eye(len(box) + 1)
    matrix[:-1, -1] = [part.start for part in box]
    moved: np.ndarray = affine @ matrix
    return moved


def _three_axes(values: np.ndarray, affine: np.ndarray, grid: SourceGrid) -> np.ndarray:
    if values.ndim != len(grid.shape) or affine.shape != grid.affine.shape:
        raise ValueError(
            f"a prediction of shape {values.shape} (affine {affine.shape}) for a grid of {grid.shape}"
        )
    return values if values.ndim == 3 else values[..., None]


def _as_volume(affine: np.ndarray) -> np.ndarray:
    """The affine of a picture with a third axis."""
    if affine.shape == (4, 4):
        return np.asarray(affine, dtype=np.float64)
    volume = np.eye(4)
    volume[:2, :2], volume[:2, 3] = affine[:2, :2], affine[:2, 2]
    return volume


def _way(affine: np.ndarray, grid: SourceGrid) -> _Way:
    shape = (grid.shape[0], grid.shape[1], grid.shape[2] if len(grid.shape) == 3 else 1)
    back, there = np.linalg.inv(_as_volume(affine)), _as_volume(grid.affine)
    matrix = back @ there
    offsets = matrix[:3, 3] + np.arange(shape[2])[:, None] * matrix[:3, 2]
    if grid.origins is not None:
        offsets = grid.origins @ back[:3, :3].T + back[:3, 3]
    order = tuple(int(axis) for axis in np.argmax(np.abs(matrix[:3, :3]), axis=0))
    astray = np.abs(matrix[:3, :3]) * (np.array(shape) - 1)
    astray[order, range(3)] = 0.0
    aside = offsets - offsets[0]
    aside[:, order[2]] = 0.0
    parallel = len(set(order)) == 3 and astray.max() < _ALONG and np.abs(aside).max() < _ALONG
    return _Way(shape, matrix[:3, :3], offsets, (order[0], order[1], order[2]) if parallel else None)


def _coordinates(way: _Way, number: int) -> np.ndarray:
    """(3, first, second), where a slice of the file's grid lies in the prediction."""
    first, second = (np.arange(length, dtype=np.float64) for length in way.shape[:2])
    one, other, offset = (
        part.reshape(3, 1, 1) for part in (way.matrix[:, 0], way.matrix[:, 1], way.offsets[number])
    )
    coordinates: np.ndarray = offset + one * first[:, None] + other * second[None, :]
    return coordinates


def _along(way: _Way, axis: int) -> np.ndarray:
    """Of parallel grids: where each index of an axis of the file lies along the prediction's axis."""
    assert way.order is not None
    own = way.order[axis]
    if axis == 2:
        return way.offsets[:, own]
    places: np.ndarray = way.offsets[0, own] + way.matrix[own, axis] * np.arange(way.shape[axis])
    return places


def _nearest(way: _Way, axis: int, length: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Indices of the file that lie in the prediction, and the nearest index there of each: one way or two.

    In the middle of two the first way has the lower and the upper one in turn, the second the other of both. Where
    the grids have equal steps there is one way, the upper one: turns would double one voxel and drop the next.
    """
    places = _along(way, axis)
    index = np.floor(places + 0.5 + _ROUNDING).astype(np.int64)
    inside = np.flatnonzero((index >= 0) & (index < length))
    upper = index[inside]
    tied = np.flatnonzero((np.abs(upper - places[inside] - 0.5) < 2 * _ROUNDING) & (upper > 0))
    if not len(tied) or (len(places) > 1 and abs(abs(places[1] - places[0]) - 1) < _ALONG):
        return inside, [upper]
    first, second = upper.copy(), upper.copy()
    first[tied[::2]] -= 1
    second[tied[1::2]] -= 1
    return inside, [first, second]


def _linear(way: _Way, axis: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the file that lie in the prediction, their two neighbours there, and the share of the upper one."""
    inside, _ = _nearest(way, axis, length)
    places = np.clip(_along(way, axis)[inside], 0, length - 1)
    low = np.floor(places).astype(np.int64)
    return inside, low, np.minimum(low + 1, length - 1), (places - low).astype(np.float32)


def _between(low: np.ndarray, high: np.ndarray, share: np.ndarray | np.float32) -> np.ndarray:
    out: np.ndarray = low + (high - low) * share
    return out


def _first_axis_closest(volume: np.ndarray) -> np.ndarray:
    """A copy whose first axis lies closest in memory, plane by plane so that each stays in the processor's cache."""
    out: np.ndarray = np.empty(volume.shape, volume.dtype, order="F")
    closest = int(np.argmin(np.abs(volume.strides)))
    along = 3 - closest if closest else 2
    for number in range(volume.shape[along]):
        plane = (slice(None),) * along + (number,)
        out[plane] = volume[plane]
    return out


def _span(indices: np.ndarray) -> slice:
    """Indices inside a box follow each other."""
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def _taken(plane: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """Rows or columns of a plane; without a copy where they follow each other."""
    if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return plane[_span(indices)] if axis == 0 else plane[:, _span(indices)]
    return np.take(plane, indices, axis=axis)


def _planes_aslant(volume: np.ndarray, way: _Way) -> Iterator[np.ndarray]:
    from scipy import ndimage

    limits = np.array(volume.shape[1:]).reshape(3, 1, 1)
    for number in range(way.shape[2]):
        places = _coordinates(way, number)
        index = np.floor(places + 0.5 + _ROUNDING)
        inside = ((index >= 0) & (index < limits)).all(axis=0)
        plane = np.zeros((len(volume), *way.shape[:2]), np.float32)
        for one, values in enumerate(volume):
            plane[one][inside] = ndimage.map_coordinates(values, places[:, inside], order=1, mode="nearest")
        yield plane
