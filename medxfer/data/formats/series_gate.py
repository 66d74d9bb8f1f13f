"""Whether images form one volume, and where it lies: every fault is named, nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import DataError
from ..image import shown
from ..policy import ReadPolicy
from .broken import refuse_broken
from .dicom_header import Header
from .geometry import SHEAR_TOLERANCE, lps_to_ras, refuse_impossible
from .series_volumes import (
    by_position,
    name_of,
    normal_of,
    numbers_as_text,
    one_a_position,
    place_of,
    selected,
)

_FAR_OFF, _FAR_APART = 1e6, 1e4  # mm
_UNIT = 1e-3  # of direction cosines: departure from unit length and from a right angle
_SAME_DIRECTION = 2e-3  # of direction cosines between images
_EVEN, _NEARLY_EVEN = 0.01, 0.05  # of the median step
_ROUNDING = 0.01  # mm
_TODO_GEOMETRY = "add what is missing, or set data.on_geometry to resample or warn"
_TODO_SERIES = "separate the files, or export the series again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Images in the order of their positions, checked."""

    images: tuple[Header, ...]
    affine: np.ndarray  # index of (column, row, slice) to mm in RAS; one image: as if alone
    distances: np.ndarray  # mm of each slice from the first, along the normal
    is_uneven: bool = False  # and to be put on an even grid
    is_sheared: bool = False  # and to be straightened
    applied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def stack_of(
    images: Sequence[Header], policy: ReadPolicy, same_pixels: Callable[[Header, Header], bool]
) -> Stack:
    """Order the images of one volume.

    Args:
        images: Of one series, or the frames of one file.
        policy: What to do with gaps, uneven steps and tilt; which of several volumes.
        same_pixels: Whether two images hold the same stored values.

    Raises:
        DataError: They form no volume: mixed sizes, patients, directions; no or absurd geometry; several volumes;
            other pixels at one position; by policy gaps, uneven steps and tilt.
    """
    applied: list[str] = []
    remarks: list[str] = []
    images = _without_localizers(images, remarks)
    images = selected(images, policy, applied, remarks)
    faults = [(image.path, image.fault) for image in images if image.fault is not None]
    refuse_broken(images[0].path.parent, faults)
    _refuse_mixture(images)
    _refuse_directions(images)
    images = one_a_position(by_position(images), same_pixels, remarks)
    affine = _affine_of(images)
    refuse_impossible(images[0].path, affine, "export the series again")
    distances = _distances(images)
    if len(images) == 1:
        return Stack(images=tuple(images), affine=affine, distances=distances, warnings=tuple(remarks))
    is_uneven = _check_steps(images, distances, policy, remarks)
    if policy.on_geometry == "warn":
        affine = _by_median_step(affine, distances, remarks)
    is_sheared = _check_tilt(images, distances, policy, remarks)
    _remark_units(images, applied, remarks)
    return Stack(
        images=tuple(images),
        affine=affine,
        distances=distances,
        is_uneven=is_uneven,
        is_sheared=is_sheared,
        applied=tuple(applied),
        warnings=tuple(remarks),
    )


def _without_localizers(images: Sequence[Header], remarks: list[str]) -> Sequence[Header]:
    kept = [image for image in images if not image.is_localizer]
    if not kept or len(kept) == len(images):
        return images
    first = next(image for image in images if image.is_localizer)
    remarks.append(f"{len(images) - len(kept)} localizer images set aside ({name_of(first)})")
    return kept


def _refuse_mixture(images: Sequence[Header]) -> None:
    """What must be one and the same in a volume."""
    mosaic = next((image for image in images if image.is_mosaic), None)
    if mosaic is not None:
        raise mosaic_refusal(mosaic)
    sizes = [f"{image.columns} x {image.rows} pixels" for image in images]
    _refuse_two(images, sizes, "images of one size")
    for tag, key in (
        ("PatientID", "patient"),
        ("StudyInstanceUID", "study"),
        ("FrameOfReferenceUID", "frame_of_reference"),
    ):
        found = {value: image for image in reversed(images) if (value := getattr(image, key))}
        if len(found) > 1:  # the values themselves are not for messages
            pair = [name_of(image) for image in found.values()]
            seen = f"{len(found)} values of {tag}: those of {pair[-1]} and {pair[-2]} differ"
            raise DataError(place_of(images), seen, f"one {tag} in a series", _TODO_SERIES)
    _refuse_two(images, [image.modality for image in images], "one Modality in a series")
    _refuse_two(images, [image.photometric for image in images], "one PhotometricInterpretation in a series")


def _refuse_two(images: Sequence[Header], values: Sequence[str], accepted: str) -> None:
    for image, value in zip(images, values, strict=True):
        if value != values[0]:
            seen = f"{shown(values[0])} ({name_of(images[0])}) and {shown(value)} ({name_of(image)})"
            raise DataError(place_of(images), seen, accepted, _TODO_SERIES)


def mosaic_refusal(image: Header) -> DataError:
    """The refusal of a picture that holds all slices of a volume as tiles."""
    seen = "a Siemens mosaic: one picture holds all slices as tiles (ImageType MOSAIC)"
    todo = "convert it with dcm2niix, and read the NIfTI file"
    return DataError(shown(image.path), seen, "one slice an image", todo)


def _refuse_directions(images: Sequence[Header]) -> None:
    """Position, direction and spacing are there, possible, and the same in all images where they must be."""
    for tag, key in (
        ("ImagePositionPatient", "position"),
        ("ImageOrientationPatient", "orientation"),
        ("PixelSpacing", "spacing"),
    ):
        lacking = [image for image in images if getattr(image, key) is None]
        if not lacking:
            continue
        if len(lacking) == len(images) and key == "position":
            seen = f"{len(images)} images without {tag}: pictures, no volume"
            raise DataError(place_of(images), seen, "slices with positions", "read each file by itself")
        seen = f"no {tag} in {len(lacking)} of {len(images)} images ({name_of(lacking[0])})"
        raise DataError(place_of(images), seen, f"{tag} in every slice", "export the series again")
    for image in images:
        if max(map(abs, image.position or ())) > _FAR_OFF:
            seen = f"ImagePositionPatient {numbers_as_text(image.position)} ({name_of(image)})"
            raise DataError(place_of(images), seen, "a place within a kilometre", _TODO_SERIES)
    directions: dict[tuple[float, ...], Header] = {}
    spacings: dict[tuple[float, ...], Header] = {}
    for image in images:
        directions.setdefault(image.orientation or (), image)
        spacings.setdefault(image.spacing or (), image)
    for values in directions:
        _refuse_cosines(images, values)
    for values in spacings:
        if min(values) <= 0 or max(values) > _FAR_APART:
            seen = f"PixelSpacing {numbers_as_text(values)}"
            raise DataError(
                place_of(images), seen, "two positive numbers, row and column in mm", _TODO_SERIES
            )
    _refuse_other(images, "ImageOrientationPatient", directions, absolute=_SAME_DIRECTION)
    _refuse_other(images, "PixelSpacing", spacings, relative=_UNIT)


def _refuse_other(
    images: Sequence[Header],
    tag: str,
    found: dict[tuple[float, ...], Header],
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
) -> None:
    """Numbers that are to be the same in all images; `found` holds each with the first image that has it."""
    first, *others = found
    for values in others:
        if not np.allclose(values, first, rtol=relative, atol=absolute):
            one, other = (f"{numbers_as_text(which)} ({name_of(found[which])})" for which in (first, values))
            raise DataError(
                place_of(images), f"{tag} {one} and {other}", f"one {tag} in a volume", _TODO_SERIES
            )


def _refuse_cosines(images: Sequence[Header], orientation: tuple[float, ...]) -> None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    product = float(row @ column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(product)) > _UNIT:
        seen = (
            f"ImageOrientationPatient {numbers_as_text(orientation)}: lengths {lengths[0]:.4g} and {lengths[1]:.4g}, "
            f"dot product {product:.4g}"
        )
        accepted = "two directions of length 1 at a right angle (within 0.001)"
        raise DataError(place_of(images), seen, accepted, "export the series again")


def _affine_of(images: Sequence[Header]) -> np.ndarray:
    """Index of (column, row, slice) to mm in RAS."""
    first, last = images[0], images[-1]
    assert first.orientation is not None
    assert first.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 3] = first.position
    if len(images) > 1:
        affine[:3, 2] = (np.subtract(last.position or (), affine[:3, 3])) / (len(images) - 1)
    else:
        affine[:3, 2] = normal_of(first)
    return lps_to_ras(affine)


def _distances(images: Sequence[Header]) -> np.ndarray:
    places = np.array([image.position for image in images]) @ normal_of(images[0])
    distances: np.ndarray = places - places[0]
    return distances


def _check_steps(
    images: Sequence[Header], distances: np.ndarray, policy: ReadPolicy, remarks: list[str]
) -> bool:
    """Whether slices are to be put on an even grid; uneven ones are refused or remarked, as the policy says."""
    steps = np.diff(distances)
    median = float(np.median(steps))
    off = float(np.abs(steps - median).max())
    if off <= max(_ROUNDING, _EVEN * median):
        return False
    uneven = f"steps of {steps.min():.4g} to {steps.max():.4g} mm, up to {off / median:.1%} off the median {median:.4g}"
    if off <= _NEARLY_EVEN * median:
        remarks.append(f"slightly uneven {uneven}")
        return False
    step = _middle_step(distances)
    widest = int(np.argmax(steps))
    missing = steps[widest] / step - 1
    if round(missing) >= 1 and abs(missing - round(missing)) < _NEARLY_EVEN * (round(missing) + 1):
        before, after = images[widest], images[widest + 1]
        gaps = int(np.sum(steps > 1.5 * step))
        uneven = (
            f"gap {_mm(steps[widest])} mm between {name_of(before)} and {name_of(after)} (at {_at(before)} and "
            f"{_at(after)}) after slice {widest + 1}, step {_mm(step)}"
            + (f"; {gaps} gaps in all" if gaps > 1 else "")
        )
    if policy.on_geometry == "stop":
        raise DataError(place_of(images), uneven, "even steps (within 1 %)", _TODO_GEOMETRY)
    remarks.append(uneven)
    return policy.on_geometry == "resample"


def _middle_step(distances: np.ndarray) -> float:
    """The median step; of two in the middle the smaller, since the other may be the gap."""
    steps = np.sort(np.diff(distances))
    return float(steps[(len(steps) - 1) // 2])


def _by_median_step(affine: np.ndarray, distances: np.ndarray, remarks: list[str]) -> np.ndarray:
    """The grid of uneven slices that are kept: by the median step, since the average is right nowhere."""
    steps = np.diff(distances)
    if float(np.abs(steps - np.median(steps)).max()) <= max(
        _ROUNDING, _NEARLY_EVEN * float(np.median(steps))
    ):
        return affine
    step = _middle_step(distances)
    off = float(np.abs(distances - step * np.arange(len(distances))).max())
    remarks.append(
        f"slices kept at the median step {_mm(step)} mm: the grid is not where they lie, by up to {_mm(off)} mm"
    )
    kept = affine.copy()
    kept[:3, 2] *= step * (len(distances) - 1) / distances[-1]
    return kept


def _mm(value: float) -> str:
    return f"{round(float(value), 3):.4g}" if value % 1 > 1e-3 else f"{value:.1f}"


def _at(image: Header) -> str:
    return f"{float(np.dot(image.position or (), normal_of(image))):.6g} mm"


def _check_tilt(
    images: Sequence[Header], distances: np.ndarray, policy: ReadPolicy, remarks: list[str]
) -> bool:
    """Whether the volume is to be straightened; a tilt is refused or remarked, as the policy says."""
    positions = np.array([image.position for image in images])
    sideways = positions - positions[0] - distances[:, None] * normal_of(images[0])
    slant = sideways[-1] / distances[-1]
    jitter = float(np.linalg.norm(sideways - distances[:, None] * slant, axis=1).max())
    median = float(np.median(np.diff(distances)))
    if jitter > max(_ROUNDING, _EVEN * median):
        seen = f"slices lie up to {jitter:.3g} mm beside the line from the first to the last"
        if jitter > _NEARLY_EVEN * median and policy.on_geometry != "warn":
            raise DataError(place_of(images), seen, "positions on a line", "export the series again")
        remarks.append(seen)
    angle = math.degrees(math.atan(float(np.linalg.norm(slant))))
    if angle <= SHEAR_TOLERANCE:
        return False
    seen = f"gantry tilt of {angle:.1f} degrees: slices follow each other aslant to their normal"
    if policy.on_geometry == "stop":
        todo = "set data.on_geometry to resample (straightens it) or warn (keeps the sheared grid)"
        raise DataError(place_of(images), seen, f"at most {SHEAR_TOLERANCE} degrees", todo)
    remarks.append(seen)
    return policy.on_geometry == "resample"


def _remark_units(images: Sequence[Header], applied: list[str], remarks: list[str]) -> None:
    first = images[0]
    if first.modality == "CT" and first.rescale_type.upper() not in ("", "HU"):
        remarks.append(f"values are of RescaleType {shown(first.rescale_type)[:16]}, not HU")
    if first.units:
        applied.append(f"values in {shown(first.units)[:16]}")
    if first.logarithmic:
        remarks.append("raw detector values on a logarithmic scale (PixelIntensityRelationship LOG)")
    for one, other in pairwise(images):
        if one.units != other.units:
            remarks.append("slices differ in Units")
            break
