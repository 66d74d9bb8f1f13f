"""Where voxels lie: affines from voxel index to millimetres in RAS (to the right, anterior, superior)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..image import limit, shown

SHEAR_TOLERANCE = (
    0.1  # degrees from a right angle that rounding of positions explains (gantry tilt, sheared sform)
)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def spacing_of(affine: np.ndarray) -> tuple[float, ...]:
    """Voxel size along each array axis.

    Args:
        affine: (4, 4), voxel indices to mm in RAS.

    Returns:
        mm per voxel, in array axis order.
    """
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def lps_to_ras(affine: np.ndarray) -> np.ndarray:
    """The same affine with the first two patient axes turned round; its own inverse.

    Args:
        affine: (4, 4), voxel indices to mm in LPS, as DICOM, NRRD and MetaImage count.
    """
    return _LPS_TO_RAS @ np.asarray(affine, dtype=np.float64)


def picture_affine(
    position: Sequence[float] | None, orientation: Sequence[float] | None, spacing: Sequence[float] | None
) -> np.ndarray | None:
    """The place of a single slice in the patient.

    Args:
        position: mm in LPS of the first pixel (ImagePositionPatient).
        orientation: Direction of a row, then of a column, in LPS (ImageOrientationPatient).
        spacing: mm from row to row, from column to column.

    Returns:
        (4, 4), index of (row, column, slice) to mm in RAS, the step to another slice 1 mm along the normal; None where
        one of these is unknown or the directions are none.
    """
    if position is None or orientation is None or spacing is None:
        return None
    numbers = np.array([*position, *orientation, *spacing], dtype=np.float64)
    along_row, along_column = numbers[3:6], numbers[6:9]
    unit = np.abs([along_row @ along_row - 1, along_column @ along_column - 1, along_row @ along_column])
    if not (np.isfinite(numbers).all() and unit.max() < 1e-2):
        return None
    affine = np.eye(4)
    affine[:3, 0] = along_column * spacing[0]  # the next row lies along a column
    affine[:3, 1] = along_row * spacing[1]
    affine[:3, 2] = np.cross(along_row, along_column)
    affine[:3, 3] = position
    return lps_to_ras(affine)


def axis_codes(affine: np.ndarray) -> str:
    """Where each array axis points most, for example LPS."""
    return "".join("RAS"[axis] if sign > 0 else "LPI"[axis] for axis, sign in _closest_axes(affine))


def to_closest_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume so that its axes run to the right, anterior and superior as nearly as swaps and flips allow.

    No voxel changes its value or its place in the patient; the same turn as nibabel's `as_closest_canonical`.

    Args:
        array: (C, X, Y, Z).
        affine: (4, 4), voxel indices of `array` to mm in RAS.

    Returns:
        A view of the array, and its affine.
    """
    axes = _closest_axes(affine)
    order = [next(i for i, (axis, _) in enumerate(axes) if axis == wanted) for wanted in range(3)]
    turned = np.transpose(array, (0, *(index + 1 for index in order)))
    back = np.zeros((4, 4))  # new voxel index to old one
    back[3, 3] = 1
    for new, old in enumerate(order):
        back[old, new] = axes[old][1]
        if axes[old][1] < 0:
            turned = np.flip(turned, new + 1)
            back[old, 3] = array.shape[old + 1] - 1
    return turned, affine @ back


def _closest_axes(affine: np.ndarray) -> list[tuple[int, int]]:
    """For each array axis the patient axis (0, 1, 2) it follows and its sign; each patient axis once.

    The rotation nearest to the affine (polar decomposition) decides, its strongest axis first, as in nibabel.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    left, _, right = np.linalg.svd(columns / np.linalg.norm(columns, axis=0))
    rotation = left @ right
    strongest = np.argsort(-np.max(rotation**2, axis=0), kind="stable")
    axes: dict[int, tuple[int, int]] = {}
    for index in strongest:
        axis = int(np.argmax(np.abs(rotation[:, index])))
        axes[int(index)] = (axis, 1 if rotation[axis, index] > 0 else -1)
        rotation[axis, :] = 0
    return [axes[index] for index in range(3)]


def refuse_impossible(path: Path, affine: np.ndarray, todo: str) -> None:
    """Refuse an affine that places no volume in space.

    Raises:
        DataError: NaN, an axis of no length, or axes in one plane.
    """
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    seen = ""
    if not np.isfinite(affine).all():
        seen = f"NaN or infinite numbers in the affine {as_text(affine)}"
    elif not (lengths > 1e-6).all():
        seen = f"voxels of size {tuple(float(f'{length:.4g}') for length in lengths)} mm"
    elif (lengths > 1e4).any() or abs(affine[:3, 3]).max() > 1e6:
        seen = f"voxels of size {tuple(float(f'{length:.4g}') for length in lengths)} mm, affine {as_text(affine)}"
    elif abs(np.linalg.det(columns / lengths)) < 1e-3:
        seen = f"three axes that lie in one plane, affine {as_text(affine)}"
    if seen:
        raise DataError(shown(path), seen, "three axes that span a volume, in mm", todo)


def as_text(affine: np.ndarray) -> str:
    """Three rows on one line."""
    return "[" + "; ".join(" ".join(f"{float(value):.6g}" for value in row) for row in affine[:3]) + "]"


def shear_of(affine: np.ndarray) -> float:
    """The largest departure of two axes from a right angle, in degrees; the tilt of a tilted gantry."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = columns.T @ columns
    return max(abs(90 - math.degrees(math.acos(np.clip(cosines[i, j], -1, 1)))) for i, j in _PAIRS)


_PAIRS = ((0, 1), (0, 2), (1, 2))


def unsheared(
    array: np.ndarray, affine: np.ndarray, *, nearest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a sheared volume onto a grid with right angles.

    The two axes nearest to a right angle keep their direction; the third becomes their normal and keeps the distance
    between slices. The grid holds the whole old volume; outside of it stands the lowest value.

    Args:
        array: (C, X, Y, Z) float32.
        affine: (4, 4), voxel indices to mm.
        nearest: Take the nearest voxel (labels) in place of the linear mean.

    Returns:
        The new array and its affine.

    Raises:
        DataError: The new grid is larger than MEDXFER_MAX_DECODED_BYTES.
    """
    from scipy import ndimage

    columns = affine[:3, :3]
    unit = columns / np.linalg.norm(columns, axis=0)
    first, second = min(_PAIRS, key=lambda pair: abs(float(unit[:, pair[0]] @ unit[:, pair[1]])))
    third = 3 - first - second
    grid = columns.copy()
    grid[:, second] -= (columns[:, second] @ unit[:, first]) * unit[:, first]
    grid[:, second] *= np.linalg.norm(columns[:, second]) / np.linalg.norm(grid[:, second])
    normal = np.cross(grid[:, first], grid[:, second])
    normal /= np.linalg.norm(normal)
    grid[:, third] = normal * (columns[:, third] @ normal)  # the sign keeps the direction of the slices
    to_new = np.linalg.inv(grid) @ columns
    last = np.array(array.shape[1:], dtype=np.float64) - 1
    corners = np.array(np.meshgrid(*([0.0, end] for end in last), indexing="ij")).reshape(3, -1)
    spread = to_new @ corners
    low = np.floor(spread.min(axis=1) + 1e-3)
    shape = tuple(int(length) for length in np.ceil(spread.max(axis=1) - 1e-3) - low + 1)
    if math.prod(shape) * array.shape[0] * 4 > limit("DECODED_BYTES"):
        seen = f"{' x '.join(map(str, shape))} voxels after undoing the shear"
        raise DataError("on_geometry: resample", seen, "less", "raise MEDXFER_MAX_DECODED_BYTES")
    to_old = np.linalg.inv(columns) @ grid
    planes = [
        ndimage.affine_transform(
            channel,
            to_old,
            to_old @ low,
            shape,
            order=0 if nearest else 1,
            mode="grid-constant",
            cval=channel.min(),
        )
        for channel in array
    ]
    straight = np.eye(4)
    straight[:3, :3] = grid
    straight[:3, 3] = affine[:3, 3] + grid @ low
    return np.stack(planes).astype(np.float32, copy=False), straight


def largest_distance(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """How far two affines place the same corner of a volume apart, in mm."""
    ends = [[0.0, float(length - 1)] for length in shape]
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
