"""One look at each case: read through the gate, measured, and kept as a thumbnail and a few numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Picture
from torch.nn import functional

from ...errors import DataError
from ..case import Case
from ..formats.kinds import kind_of
from ..formats.private_tags import Tags, tags_of
from ..image import Refused, checked, shown
from ..mask_values import seg_values
from ..placed import Placed, placed
from ..presets import prepared
from ..readers import read_image
from ..regrid import called_box
from ..sampling import Reading, corner_distance, read_case
from ..steps.base import Step
from .suspects import Spread, spread_of, suspicions

if TYPE_CHECKING:  # pydicom is imported only where there is DICOM
    from ..series import Series

THUMB = {2: 64, 3: 32}  # side of what is kept of a picture, of a volume
PREVIEW = 112  # pixels of the longest side of what is shown to people
_GRID = 0.1  # voxels that corners of a mask may lie beside those of its image
_VALUES = 256  # different values of a mask that are kept
SPECK = 3  # voxels: pieces up to this size are slips of a brush, unless that is all there is
_BESIDE = 100  # times as large as that is the piece they lie beside
_APART = 8  # classes whose pieces are told apart; of more, numbered objects for instance, all are one


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What a mask holds."""

    values: tuple[float, ...]  # the first 256, sorted
    foreground: float  # share of voxels that are not 0
    specks: int = 0  # pieces of at most 3 voxels of a class that has a much larger one
    problem: str = ""  # against its image: another grid, values that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is kept of a case."""

    case: Case
    kind: str  # by content; `DICOM series` for a folder
    shape: tuple[int, ...]  # spatial, as read
    channels: int
    is_colour: bool
    spacing: tuple[float, ...] | None
    steps: tuple[float, ...]  # voxel size after the steps of the run, where they are known
    spread: Spread
    content: str  # hash of the values that duplicates are told by
    thumb: np.ndarray  # uint8, (64, 64) or (32, 32, 32)
    preview: bytes = field(repr=False)  # JPEG, longest side 112 pixels, for people
    remarks: tuple[str, ...]
    suspicions: frozenset[str]
    tags: Tags
    mask: Mask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is looked at: a case of the data set, or a file or series that belongs to none."""

    case: Case
    series: Series | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    image: Placed
    spacing: tuple[float, ...] | None
    is_colour: bool
    remarks: tuple[str, ...]


def look_at(item: Item, reading: Reading, steps: Sequence[Step] = ()) -> Look | Refused:
    """Read a case and measure it; a refusal is a value.

    Args:
        item: The case.
        reading: How a run would read it; slices are not cut.
        steps: Preprocessing of the run, if it is known: duplicates are told after it. Without, by what was read.
    """
    case = item.case
    try:
        read = _read(item, reading)
        basis = prepared(read.image, steps) if steps else read.image
        mask, measured = _mask_of(case, reading, read.image)
    except DataError as error:
        where = shown(case.images[0]) if error.where == "image" else error.where
        return Refused(case=case.id, where=where, seen=error.seen, accepted=error.accepted, todo=error.todo)
    array = read.image.values.numpy()
    spread = spread_of(array)
    kind = _kind(item)
    return Look(
        case=case,
        kind=kind,
        shape=read.image.shape,
        channels=array.shape[0],
        is_colour=read.is_colour,
        spacing=read.spacing,
        steps=basis.spacing,
        spread=spread,
        content=_content(basis, exact=bool(steps)),
        thumb=thumbnail(basis),
        preview=preview(read.image, is_colour=read.is_colour, mask=mask),
        remarks=read.remarks,
        suspicions=suspicions(array, spread, is_colour=read.is_colour),
        tags=tags_of(case.images[0], kind, () if item.series is None else item.series.files),
        mask=measured,
    )


def _read(item: Item, reading: Reading) -> _Read:
    """The whole case: one file or series, or several as channels."""
    case = item.case
    if len(case.images) > 1:
        parts = read_case(case, "", dataclasses.replace(reading, slices=None))
        image = parts.images[0].image
        return _Read(image=image, spacing=image.spacing, is_colour=False, remarks=parts.warnings)
    if item.series is not None:
        from ..series import read_series

        whole = read_series(item.series, reading.policy)
        whole = checked(case.images[0], whole, on_nonfinite=reading.policy.on_nonfinite)
    else:
        whole = read_image(case.images[0], policy=reading.policy)
    return _Read(
        image=placed(whole),
        spacing=whole.spacing,
        is_colour=whole.array.shape[0] == 3 and "three equal channels" not in whole.applied,
        remarks=whole.warnings,
    )


def _kind(item: Item) -> str:
    path = item.case.images[0]
    if item.series is not None or path.is_dir():
        return "DICOM series"
    try:
        with path.open("rb") as file:
            return kind_of(file.read(4096)) or "unknown"
    except OSError:
        return "unknown"


def _content(image: Placed, *, exact: bool) -> str:
    """Hash of the voxels; of what a run stores, where its steps are known. '' of one value: equal to nothing."""
    values = (image.values * 255).round().to(torch.uint8) if exact else image.values
    if bool((values == values.flatten()[0]).all()):
        return ""
    digest = hashlib.sha256(str(tuple(values.shape)).encode())
    digest.update(np.ascontiguousarray(values.numpy()).data)
    return digest.hexdigest()


def thumbnail(image: Placed) -> np.ndarray:
    """uint8 (64, 64) or (32, 32, 32): mean of the channels between its 0.5 and 99.5 percentiles, stretched."""
    grey = image.values.mean(dim=0, keepdim=True)[None]
    side = THUMB[grey.ndim - 2]
    if grey.ndim == 4:
        small = functional.interpolate(grey, size=(side, side), mode="bilinear", antialias=True)
    else:
        small = functional.adaptive_avg_pool3d(grey, side)
    return _windowed(small[0, 0].numpy())


def preview(image: Placed, *, is_colour: bool, mask: Placed | None = None) -> bytes:
    """A small JPEG at the image's own aspect ratio, a mask of the same grid in red.

    Of a volume always the middle axial slice, as radiologists see it (the patient's front up, right side left): one
    place for all, whichever axis of a volume happens to be short and wherever its mask lies.
    """
    plane, spacing = image.values, image.spacing
    marked = (mask.values != 0).any(dim=0).float() if mask is not None and mask.shape == image.shape else None
    if plane.ndim == 4:
        number = image.shape[2] // 2
        plane = plane[..., number].flip(1, 2).transpose(1, 2)
        marked = None if marked is None else marked[..., number].flip(0, 1).T
        spacing = (spacing[1], spacing[0])
    extent = plane.shape[1] * spacing[0], plane.shape[2] * spacing[1]
    size = tuple(max(1, round(side * PREVIEW / max(extent))) for side in extent)
    plane = plane if is_colour else plane.mean(dim=0, keepdim=True)
    values = _windowed(
        functional.interpolate(plane[None], size=size, mode="bilinear", antialias=True)[0].numpy()
    )
    if marked is not None:
        share = functional.interpolate(marked[None, None], size=size, mode="area")[0, 0].numpy()
        values = np.broadcast_to(values, (3, *size)) * np.stack(
            [1 - 0 * share, 1 - 0.5 * share, 1 - 0.5 * share]
        )
    buffer = io.BytesIO()
    planes = values.astype(np.uint8)
    Picture.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)).save(
        buffer, "JPEG", quality=85
    )
    return buffer.getvalue()


def _windowed(values: np.ndarray) -> np.ndarray:
    """Between the 0.5 and 99.5 percentiles, as uint8."""
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    return np.ascontiguousarray((scaled * 255).round().astype(np.uint8))


def _mask_of(case: Case, reading: Reading, image: Placed) -> tuple[Placed | None, Mask | None]:
    """The mask of a case and what it holds; DataError where it cannot be read.

    A DICOM SEG is laid on its image's grid by its reader, which refuses one of other images: it is measured only.
    """
    if not isinstance(case.label, Path):
        return None, None
    labels = seg_values(case.label, case.images[0])
    if labels is not None:
        return None, _measured(labels[None], "")
    mask = read_image(case.label, policy=reading.policy)
    lying = placed(mask)
    problem = _grid_problem(lying, image, is_known=mask.spacing is not None)
    return lying, _measured(mask.array, problem or _channel_problem(mask.array))


def _measured(array: np.ndarray, problem: str) -> Mask:
    values = np.unique(array)
    return Mask(
        values=tuple(float(value) for value in values[:_VALUES]),
        foreground=float((array != 0).mean()),
        specks=_specks(array, values[values != 0]) if not problem else 0,
        problem=problem or _value_problem(values),
    )


def _specks(array: np.ndarray, values: np.ndarray) -> int:
    """Pieces of a few voxels, corners touching, beside a large one of the same class."""
    from scipy import ndimage

    mask = array[0]
    mask = mask[called_box(mask != 0)]
    found = 0
    for region in [mask == value for value in values] if len(values) <= _APART else [mask != 0]:
        pieces, count = ndimage.label(region, np.ones((3,) * mask.ndim))
        if count > 1:
            sizes = np.bincount(pieces.ravel())[1:]
            found += int((sizes <= SPECK).sum()) if sizes.max() >= _BESIDE * SPECK else 0
    return found


def _grid_problem(mask: Placed, image: Placed, *, is_known: bool) -> str:
    if mask.shape != image.shape:
        sizes = [" x ".join(map(str, one.shape)) for one in (mask, image)]
        return f"the mask has {sizes[0]} {_voxels(mask)}, the image {sizes[1]}"
    distance = corner_distance(mask, image)
    if is_known and distance > _GRID * min(image.spacing):
        return f"the mask lies up to {distance:.3g} mm beside the image"
    return ""


def _channel_problem(array: np.ndarray) -> str:
    return f"the mask has {len(array)} channels" if len(array) != 1 else ""


def _value_problem(values: np.ndarray) -> str:
    odd = values[(values != np.round(values)) | (values < 0)]
    return f"the mask holds {odd[0]:.6g}, which is no class" if len(odd) else ""


def _voxels(image: Placed) -> str:
    return "pixels" if len(image.shape) == 2 else "voxels"
