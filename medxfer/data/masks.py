"""Masks: read with their place, checked against their image, and brought onto the grid that the network sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .case import Case
from .formats.grids import SourceGrid, grid_of_series, source_grid
from .image import shown
from .mask_file import one_channel, read_mask
from .placed import Placed, placed
from .policy import ReadPolicy
from .regrid import onto_grid
from .sampling import corner_distance

if TYPE_CHECKING:  # pydicom is imported only where there is DICOM
    from .series import Series

IGNORED = 255  # class number of voxels that count on neither side
_ASTRAY = 0.1  # voxels by which the corners of a mask may lie beside its image's: rounding of headers
_WHOLE = 1e-6  # a value that lies farther from a whole number was interpolated
_ROUNDED = 0.001  # voxels beside it that are not worth a word
_AT_ONCE = 2**22  # voxels of a mask that are looked at together
_MOST_VALUES = 2**20  # between the least and the largest: more is no mask
_NAMED = 5  # values named in a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRule:
    """How the values of mask files become class numbers 0 (background) to K.

    Attributes:
        classes: K.
        values: Value of the file -> class number; None: the values are the numbers.
        nonzero: Everything above 0 is class 1, instance numbers for example.
        ignore: Value of voxels that count on neither side.
    """

    classes: int
    values: Mapping[int, int] | None = None
    nonzero: bool = False
    ignore: int | None = None

    def plain(self) -> dict[str, Any]:
        """For the key of the cache."""
        return dataclasses.asdict(self)

    def numbers(self, labels: np.ndarray, where: str) -> np.ndarray:
        """Class numbers of a mask, uint8; `IGNORED` where it is not to count.

        Args:
            labels: Values as read, any shape.
            where: Name of the file, for messages.

        Raises:
            DataError: A value that is not whole, or stands for no class.
        """
        if labels.flags.f_contiguous and not labels.flags.c_contiguous:
            return self.numbers(labels.T, where).T  # pieces of the first axis would be strewn over memory
        low, high = float(labels.min()), float(labels.max())
        if not high - low < _MOST_VALUES:
            seen = f"values from {low:g} to {high:g}"
            raise DataError(where, seen, self._accepted(), "name the mask of the image, not another image")
        first = round(low)
        counts = np.zeros(round(high) - first + 1, np.int64)
        parts = _parts(labels)
        # One after the other: whole volumes of int64 and float64 would be many times the mask.
        for part in parts:
            whole = np.rint(labels[part]).astype(np.int64)
            broken = np.abs(labels[part] - whole) > _WHOLE
            if broken.any():
                seen = f"the value {labels[part][broken][0]!s} in a mask"
                todo = "masks must not be interpolated: write them again by nearest neighbour"
                raise DataError(where, seen, "whole numbers", todo)
            counts += np.bincount(whole.ravel() - first, minlength=len(counts))
        numbers = self._table(counts, first, where)
        found: np.ndarray = np.empty(labels.shape, np.uint8)
        for part in parts:
            found[part] = numbers[np.rint(labels[part]).astype(np.int64) - first]
        return found

    def _table(self, counts: np.ndarray, first: int, where: str) -> np.ndarray:
        """Class number of each value from `first` on, uint8.

        Raises:
            DataError: A value that is there stands for no class.
        """
        table = {value + first: self._number(value + first) for value in np.flatnonzero(counts).tolist()}
        unknown = [value for value, number in table.items() if number is None]
        if unknown:
            voxels = sum(int(counts[value - first]) for value in unknown)
            named = ", ".join(map(str, unknown[:_NAMED])) + (" ..." if len(unknown) > _NAMED else "")
            todo = "correct the mask, or task.classes and task.values; task.ignore leaves one value out"
            seen = f"unknown label value {named} in {voxels} voxels"
            raise DataError(where, seen, self._accepted(), todo)
        numbers: np.ndarray = np.zeros(len(counts), np.uint8)
        for value, number in table.items():
            numbers[value - first] = number or 0
        return numbers

    def _number(self, value: int) -> int | None:
        if value == self.ignore:
            return IGNORED
        if value == 0:
            return 0
        if self.nonzero:
            return 1 if value > 0 else None
        if self.values is not None:
            return self.values.get(value)
        return value if 0 < value <= self.classes else None

    def _accepted(self) -> str:
        if self.nonzero:
            known = "0 and above"
        else:
            known = ", ".join(map(str, [0, *(self.values or range(1, self.classes + 1))]))
        return known if self.ignore is None else f"{known}, {self.ignore} (ignored)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an image that a network saw came from: what brings an answer back to the file.

    Attributes:
        case: With its mask, where it has one.
        affine: Of the grid that the network saw, to the reader's space.
        policy: As the file was read.
        series: The one that it is, of a folder of several.
    """

    case: Case
    affine: np.ndarray
    policy: ReadPolicy
    series: Series | None = field(default=None, repr=False)

    def grid(self) -> SourceGrid:
        """Shape and place of the voxels of the (first) file as it stores them, read again.

        Raises:
            DataError: It is no longer what it was.
        """
        if self.series is not None:
            return grid_of_series(self.series, self.policy)
        return source_grid(self.case.images[0], policy=self.policy)


def _parts(labels: np.ndarray) -> list[slice]:
    """Pieces of the first axis of a few million voxels each."""
    step = max(1, _AT_ONCE * len(labels) // labels.size)
    return [slice(begin, begin + step) for begin in range(0, len(labels), step)]


def map_on_grid(
    case: Case,
    whole: Placed,
    shape: Sequence[int],
    affine: np.ndarray,
    rule: MaskRule,
    policy: ReadPolicy,
    *,
    remarks: list[str] | None = None,
) -> np.ndarray:
    """Class numbers of a case on the grid of its preprocessed image.

    Args:
        case: Its label is the path of a mask.
        whole: The image as read.
        shape: Of the preprocessed image.
        affine: Of the preprocessed image.
        rule: What values mean.
        policy: As for the image.
        remarks: Sentences on what was accepted are added here.

    Returns:
        (*shape) uint8, by nearest neighbour; background where the grid is larger than the mask.

    Raises:
        DataError: No mask, one that cannot be read, lies elsewhere than its image, or holds unknown values.
    """
    path = _mask_path(case)
    if _is_seg(path):
        grid = source_grid(case.images[0], policy=policy)
        labels = onto_grid(*_even(_read_seg(path, grid), grid, whole), _grid(whole.shape, whole.affine))
    else:
        labels = _values(path, placed(read_mask(path, policy=policy)), whole, remarks)
    numbers = rule.numbers(labels, shown(path))
    if tuple(shape) == whole.shape and np.array_equal(affine, whole.affine):
        return numbers
    return np.ascontiguousarray(onto_grid(numbers, whole.affine, _grid(shape, affine)))


def truth_on_file(case: Case, grid: SourceGrid, rule: MaskRule, policy: ReadPolicy) -> np.ndarray:
    """Class numbers of a case's mask on the grid of its image's file, uint8.

    Raises:
        DataError: As `map_on_grid`.
    """
    path = _mask_path(case)
    if _is_seg(path):
        return rule.numbers(_read_seg(path, grid), shown(path))
    mask = placed(read_mask(path, policy=policy))
    numbers = rule.numbers(one_channel(path, mask.values.numpy()), shown(path))
    return numbers if len(grid.shape) == 2 else onto_grid(numbers, mask.affine, grid)


def _mask_path(case: Case) -> Path:
    if isinstance(case.label, Path):
        return case.label
    todo = "name masks in the label table, or put them into a folder beside the images"
    raise DataError(case.id, "no mask", "a mask for each case", todo)


def _values(path: Path, mask: Placed, whole: Placed, remarks: list[str] | None) -> np.ndarray:
    """Values of a mask that lies on its image's grid."""
    values = one_channel(path, mask.values.numpy())
    differs = mask.shape != whole.shape
    if not differs and len(whole.shape) == 3:  # of pictures the spacing is often unknown to one of both
        astray = corner_distance(mask, whole) / min(whole.spacing)
        differs = astray > _ASTRAY
        if remarks is not None and _ROUNDED < astray <= _ASTRAY:
            remarks.append(
                f"the mask lies beside its image by less than {_ASTRAY:g} voxels: taken for rounding"
            )
    if differs:
        todo = (
            "export image and mask from one series, or resample the mask onto the image by nearest neighbour"
        )
        raise DataError(shown(path), f"a mask of {_told(mask)}", f"that of its image, {_told(whole)}", todo)
    return values


def _even(labels: np.ndarray, grid: SourceGrid, whole: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Slices at uneven places on the even steps that the reader made of them, each the nearest one; and the affine."""
    if grid.origins is None:
        return labels, grid.affine
    along = grid.origins[-1] - grid.origins[0]
    along = along / np.linalg.norm(along)
    heights = along @ whole.affine[:3, :3]  # of a step along each axis of the image
    axis = int(np.argmax(np.abs(heights)))
    affine = grid.affine.copy()
    affine[:3, 2] = whole.affine[:3, axis] * np.sign(heights[axis])
    places = np.arange(whole.shape[axis]) * abs(heights[axis])
    nearest = np.abs(places[:, None] - (grid.origins - grid.origins[0]) @ along).argmin(axis=1)
    return labels[..., nearest], affine


def _told(one: Placed) -> str:
    """Shape and place in words."""
    shape = " x ".join(map(str, one.shape))
    if len(one.shape) == 2:
        return f"{shape} pixels"
    rows = "; ".join(" ".join(f"{value:.6g}" for value in row) for row in one.affine[:3])
    return f"{shape} voxels with the affine [{rows}]"


def _grid(shape: Sequence[int], affine: np.ndarray) -> SourceGrid:
    """Any grid as the target of `onto_grid`."""
    return SourceGrid(path=Path(), kind="NIfTI", shape=tuple(shape), affine=affine)


def _is_seg(path: Path) -> bool:
    """Whether a mask is a DICOM SEG: told by its class, as the readers see only pixels."""
    from .formats.dicom_seg import is_seg

    return path.is_file() and is_seg(path)


def _read_seg(path: Path, grid: SourceGrid) -> np.ndarray:
    from .formats.dicom_seg import read_seg

    if grid.kind != "DICOM":
        raise DataError(
            shown(path), "a DICOM SEG for an image that is not DICOM", "a mask of its kind", "use NIfTI"
        )
    labels, _ = read_seg(path, grid)
    if labels.dtype == bool:
        seen = f"{len(labels)} segments that overlap"
        raise DataError(shown(path), seen, "one value a voxel", "write segments that do not overlap")
    return labels
