"""Files that hold many frames: enhanced ones as a volume by the place of each frame, others by choice of a frame."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from ...errors import DataError
from ..image import Image, heard, refuse_size, shown
from ..policy import STRICT, ReadPolicy
from .dicom import functional_group, parse_dicom, read_dicom
from .dicom_header import SEGMENTATIONS, Header, bytes_after, number_of, parse_header
from .dicom_volume import read_stack
from .geometry import picture_affine
from .series_gate import Stack, mosaic_refusal, stack_of
from .stored_pixels import same_pixels

# What may tell several volumes of one file apart: the functional group and its element.
_FRAME_TAGS = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "StackID"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
)
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_AGAIN = "export the image again, or list it in data.exclude"


def read_dicom_file(path: Path, content: bytes, *, policy: ReadPolicy = STRICT) -> Image:
    """Read a DICOM file with one frame or many.

    Args:
        path: For messages.
        content: The file.
        policy: Which frame of those without position, which volume of several, what to do with faulty geometry.

    Returns:
        A picture (C, rows, columns), or of frames with positions a volume (C, X, Y, Z) in the closest RAS axes.

    Raises:
        DataError: As `read_dicom` and `stack_of`; frames without position; a segmentation; a mosaic.
    """
    header = _parsed(path, content)
    if header.frames == 1 or not header.has_pixels:
        image = read_dicom(path, content)
        affine = picture_affine(header.position, header.orientation, image.spacing)
        image = dataclasses.replace(image, affine=affine)
    elif (images := _placed_frames(header, content)) is None:
        image = _chosen_frame(header, content, policy)
    else:
        image = read_stack(stack_of(images, policy, same_pixels(content)), content)
    extra = bytes_after(header, content)
    return dataclasses.replace(image, warnings=(*image.warnings, extra)) if extra else image


def stack_of_file(path: Path, content: bytes, *, policy: ReadPolicy = STRICT) -> Stack | Header:
    """Where the frames of a DICOM file lie, without their pixels.

    Returns:
        Frames with positions in the order in which `read_dicom_file` stacks them; of a picture its header.

    Raises:
        DataError: As `read_dicom_file`.
    """
    header = _parsed(path, content)
    images = _placed_frames(header, content) if header.frames > 1 and header.has_pixels else None
    return header if images is None else stack_of(images, policy, same_pixels(content))


def _parsed(path: Path, content: bytes) -> Header:
    """The header of a file that holds an image."""
    with heard():
        header = parse_header(path, io.BytesIO(content), (len(content), 0))
    if header.has_pixels and header.sop_class in SEGMENTATIONS:
        todo = "name it as the label of the image it belongs to"
        raise DataError(shown(path), "a segmentation (DICOM SEG), no image", "an image", todo)
    if header.has_pixels and header.is_mosaic:
        raise mosaic_refusal(header)
    return header


def _placed_frames(header: Header, content: bytes) -> list[Header] | None:
    """A header for each frame; None where no frame has a position."""
    if header.fault is not None:
        raise header.fault
    refuse_size(header.path, header.rows, header.columns, header.samples, frames=header.frames)
    with heard():
        images = frames_of(header, parse_dicom(header.path, content))
    return None if all(image.position is None for image in images) else images


def _chosen_frame(header: Header, content: bytes, policy: ReadPolicy) -> Image:
    """One picture of a cine, as the policy says."""
    count, wanted = header.frames, policy.frames
    if wanted is None:
        todo = "choose one with data.frames: first, middle, or its number from 1"
        raise DataError(
            shown(header.path), f"{count} frames, no position", "one image, or frames with positions", todo
        )
    number = {"first": 1, "middle": (count + 1) // 2}.get(str(wanted), 0) or int(wanted)
    if number > count:
        raise DataError(shown(header.path), f"{count} frames", f"frame {number}", "correct data.frames")
    image = read_dicom(header.path, content, frame=number - 1)
    return dataclasses.replace(image, applied=(f"frame {number} of {count} chosen", *image.applied))


def frames_of(header: Header, data: Dataset) -> list[Header]:
    """A header for each frame.

    Args:
        header: Of the file.
        data: The same file, parsed whole.

    Raises:
        DataError: An element that is needed and is no number, or fewer items than frames.
    """
    groups = data.get("PerFrameFunctionalGroupsSequence")
    if groups is not None and len(groups) != header.frames:
        seen = f"{header.frames} frames, {len(groups)} items in PerFrameFunctionalGroupsSequence"
        raise DataError(shown(header.path), seen, "an item for each frame", _AGAIN)
    return [_frame_of(header, data, index) for index in range(header.frames)]


def _frame_of(header: Header, data: Dataset, index: int) -> Header:
    def element(group: str, name: str) -> Any:
        item = functional_group(data, group, index)
        return None if item is None else item.get(name)

    def numbers(group: str, name: str, count: int) -> tuple[float, ...] | None:
        return number_of(header.path, name, element(group, name), count)

    tags: dict[str, str | float] = {}
    for group, name in _FRAME_TAGS:
        value = element(group, name)
        if value is not None and value != "":
            tags[name] = str(value) if name == "StackID" else float(value)
    kind = next((value for group in _FRAME_TYPES if (value := element(group, "FrameType"))), None)
    words = () if kind is None else (kind,) if isinstance(kind, str) else tuple(str(word) for word in kind)
    if words:
        tags["ImageType"] = "\\".join(words)
    slope = numbers("PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)
    return dataclasses.replace(
        header,
        frame=index,
        image_type=tuple(word.upper() for word in words) or header.image_type,
        position=numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6) or header.orientation,
        spacing=numbers("PixelMeasuresSequence", "PixelSpacing", 2) or header.spacing,
        slope=header.slope if slope is None else slope[0],
        intercept=header.intercept if intercept is None else intercept[0],
        rescale_type=str(element("PixelValueTransformationSequence", "RescaleType") or header.rescale_type),
        tags=tags,
    )
