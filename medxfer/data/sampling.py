"""From a case to what steps work on: its files read, several joined as channels, volumes cut into slices."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bundle.schema import DataSpec, SliceSpec
from ..errors import DataError
from ..files import AT_ONCE, read_small, sha256_of
from .case import Case
from .image import Image, shown
from .mask_file import read_mask
from .placed import Placed, placed
from .planes import as_picture
from .policy import STRICT, ReadPolicy
from .readers import decode, load_bytes, read_image

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a volume in RAS
_SAME_MM = 0.01  # corners of two images on one grid lie no farther apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files become images: the policy of the readers, and what is cut from a volume."""

    policy: ReadPolicy = STRICT
    slices: SliceSpec | None = None

    def plain(self) -> dict[str, Any]:
        """For the key of the cache."""
        return dataclasses.asdict(self)


def reading_of(data: DataSpec) -> Reading:
    """What a bundle says about reading."""
    policy = ReadPolicy(
        on_geometry=data.on_geometry,
        on_nonfinite=data.on_nonfinite,
        series=dict(data.series),
        select=dict(data.select),
        volume=data.volume,
        frames=data.frames,
    )
    return Reading(policy=policy, slices=data.slices)


@dataclass(frozen=True, slots=True)
class Part:
    """One image of a case: the whole, or a slice with its name and, where the slice decides it, its label."""

    image: Placed
    suffix: str = ""
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What one case gave."""

    images: list[Part]
    warnings: tuple[str, ...]


def digest_of(case: Case) -> str:
    """Content of all files of a case, its mask among them; `unreadable` where one cannot be read."""
    return digests_of(case)[0]


def digests_of(case: Case) -> tuple[str, str]:
    """`digest_of`, and the same of the images alone: whatever mask they come with, they are the same images."""
    images = [_digest(path) for path in case.images]
    masks = [_digest(case.label)] if isinstance(case.label, Path) else []
    return _as_one([*images, *masks]), _as_one(images)


def _as_one(found: Sequence[str]) -> str:
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        mode = status.st_mode
        if stat.S_ISREG(mode) and status.st_size <= AT_ONCE:
            return hashlib.sha256(read_small(path, status.st_size)[0]).hexdigest()
        if stat.S_ISDIR(mode):
            inside = sorted(one for one in path.rglob("*") if one.is_file())
            return hashlib.sha256(" ".join(sorted(map(sha256_of, inside))).encode()).hexdigest()
        # Opening a pipe would wait for ever; the reader names what it is.
        return sha256_of(path) if stat.S_ISREG(mode) else "unreadable"
    except (OSError, ValueError):
        return "unreadable"


def read_case(case: Case, digest: str, reading: Reading, *, as_stored: bool = False) -> Parts:
    """Read the files of a case.

    Args:
        case: Its images are one file or series, or several that become channels.
        digest: What `digest_of` said; a file that changed since is refused.
        reading: Policy and slices.
        as_stored: The one picture of a case is given as uint8 where it has 8 bits, for `prepared_together`.

    Raises:
        DataError: A file that cannot be read, or files that lie on different grids.
    """
    is_own = len(case.images) == 1 and not isinstance(case.label, Path)  # else it is of several files
    as_stored = as_stored and len(case.images) == 1 and reading.slices is None
    images = [_image(path, digest if is_own else None, reading.policy, as_stored) for path in case.images]
    return parts_of(case, images, reading)


def parts_of(case: Case, images: Sequence[Image], reading: Reading) -> Parts:
    """What the images of a case are to a network: joined as channels, or cut into slices.

    Raises:
        DataError: They lie on different grids, or cannot be cut.
    """
    whole = placed(images[0]) if len(images) == 1 else _joined(case, images)
    warnings = tuple(dict.fromkeys(remark for image in images for remark in image.warnings))
    parts = [Part(whole)] if reading.slices is None else cut(case, whole, reading.slices, reading.policy)
    return Parts(parts, warnings)


def _image(path: Path, digest: str | None, policy: ReadPolicy, as_stored: bool) -> Image:
    if digest is None or path.is_dir():
        return read_image(path, policy=policy)
    content = load_bytes(path)
    if hashlib.sha256(content).hexdigest() != digest:
        seen, todo = "it changed while it was read", "wait until it is written, then run again"
        raise DataError(shown(path), seen, "a file at rest", todo)
    return decode(path, content, policy=policy, as_stored=as_stored)


def _joined(case: Case, images: Sequence[Image]) -> Placed:
    """Several images of one case as channels.

    Raises:
        DataError: They do not lie on one grid.
    """
    first, *others = [placed(image) for image in images]
    for path, other in zip(case.images[1:], others, strict=True):
        if other.shape != first.shape or corner_distance(first, other) > _SAME_MM:
            seen = (
                f"{shown(path)} has shape {other.shape} and spacing {_short(other.spacing)}, "
                f"{shown(case.images[0].name)} {first.shape} and {_short(first.spacing)}"
            )
            raise DataError(
                case.id, seen, "files of one case on one grid", "resample them onto one grid first"
            )
    return first.with_values(torch.cat([first.values, *[other.values for other in others]]))


def corner_distance(one: Placed, other: Placed) -> float:
    """Largest distance of corresponding corners, in the affines' units."""
    grid = np.stack(np.meshgrid(*[(0, n - 1) for n in one.shape], indexing="ij"), -1).reshape(
        -1, len(one.shape)
    )
    corners = np.c_[grid, np.ones(len(grid))].T
    return float(np.abs((one.affine - other.affine) @ corners).max())


def _short(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in np.round(numbers, 3))


def cut(case: Case, whole: Placed, slices: SliceSpec, policy: ReadPolicy) -> list[Part]:
    """Slices of a volume as pictures, named by their number along the axis.

    The picture's rows run from superior (or anterior, in axial slices) down, its columns from the patient's right
    to left, as radiologists see them. With `context` the neighbours are further channels; beyond the ends the last
    slice is repeated. With `lesion` the label is `lesion` where the mask has a voxel in the slice, else `none`.

    Raises:
        DataError: The case is no volume; or it has no mask, or one on another grid.
    """
    if whole.values.ndim != 4:
        raise DataError(case.id, "a picture", "a volume, to be cut into slices", "leave out data.slices")
    axis = AXES[slices.plane]
    mask = _mask_of(case, whole, policy) if slices.lesion else None
    count = whole.shape[axis]
    parts = []
    for number in range(0, count, slices.every):
        near = [min(max(number + step, 0), count - 1) for step in range(-slices.context, slices.context + 1)]
        picture = torch.cat([as_picture(whole.values.select(axis + 1, one)) for one in near]).contiguous()
        label = None
        if mask is not None:
            label = "lesion" if bool(mask.select(axis + 1, number).any()) else "none"
        spacing = [whole.spacing[one] for one in range(3) if one != axis]
        parts.append(
            Part(
                Placed(picture, np.diag([spacing[1], spacing[0], 1.0])),
                f"#{slices.plane}-{number:03d}",
                label,
            )
        )
    return parts


def _mask_of(case: Case, whole: Placed, policy: ReadPolicy) -> torch.Tensor:
    if not isinstance(case.label, Path):
        raise DataError(
            case.id, "no mask", "a mask for each case", "name masks in the label table, or leave out lesion"
        )
    mask = placed(read_mask(case.label, policy=policy))
    if mask.shape != whole.shape or corner_distance(mask, whole) > max(_SAME_MM, 0.1 * min(whole.spacing)):
        seen = f"mask {mask.shape} of spacing {_short(mask.spacing)}, image {whole.shape} of {_short(whole.spacing)}"
        raise DataError(case.id, seen, "a mask on the image's grid", "export both from one series")
    return mask.values > 0
