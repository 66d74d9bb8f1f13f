"""DICOM SEG: masks beside the series that they were made from, written by highdicom (extra `seg`), read by pydicom."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ... import __version__
from ...errors import DataError
from ...files import write_atomic
from ..image import heard, shown
from .dicom_header import SEGMENTATIONS
from .dicom_volume import damage_named
from .grids import SourceGrid

Code = tuple[str, str, str]  # value, scheme, meaning

GENERIC: Code = ("85756007", "SCT", "Tissue")  # SNOMED CT; says nothing that a class name does not say better
SERIES_NUMBER = 990
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# May be empty by the standard (type 2), and are absent from stripped files.
_EMPTY = (
    "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "PatientID",
)  # fmt: skip
_CLOSE = 0.01  # mm between a frame of a SEG and its slice, at most; or of the step, where that is more
_TODO_EXPORT = "export the series again, or write NIfTI or PNG"


def write_seg(
    mask: np.ndarray,
    grid: SourceGrid,
    path: Path,
    *,
    classes: Sequence[str],
    model: str = "medxfer",
    codes: Mapping[str, Code] | None = None,
    every_slice: bool = False,
) -> Path:
    """Write a mask as a binary DICOM SEG that refers to its source slice by slice.

    Frames lie where the source slices do, by the same numbers. Patient and study are copied from the series: the file
    goes back to the archive. The same mask of the same series by the same model gets the same UIDs.

    Args:
        mask: `grid.shape`, class numbers (0 background); of overlapping classes (K, *grid.shape) bool.
        grid: Of the series or DICOM file.
        path: `.dcm`.
        classes: Foreground names: labels of the segments.
        model: Name of what made the mask.
        codes: SNOMED or other codes by class name, for type of property; without one `GENERIC`.
        every_slice: A frame of each slice for each class; else those without any of a class are left out, as the
            standard allows. MONAI's `PydicomReader` reads several classes only with every slice.

    Raises:
        DataError: highdicom is absent, or the series lacks what a reference needs (UIDs, frame of reference).
        ValueError: The grid is none of DICOM, or the mask has another shape.
    """
    if not grid.images:
        raise ValueError(f"a DICOM SEG for a grid of {grid.kind}")
    if mask.shape[-len(grid.shape) :] != grid.shape or mask.ndim - len(grid.shape) not in (0, 1):
        raise ValueError(f"a mask of shape {mask.shape} for a grid of {grid.shape}")
    highdicom = _highdicom(path)
    sources = _sources(grid)
    pixels = _pixels(mask, grid)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    same = [sources[0].SeriesInstanceUID, model, *classes, str(pixels.shape), digest]
    with heard():
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type="BINARY",
                omit_empty_frames=not every_slice,
                segment_descriptions=_descriptions(highdicom, classes, model, codes or {}),
                series_instance_uid=generate_uid(entropy_srcs=["series", *same]),
                series_number=SERIES_NUMBER,
                sop_instance_uid=generate_uid(entropy_srcs=["instance", *same]),
                instance_number=1,
                manufacturer="medxfer",
                manufacturer_model_name=model[:64],
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description=f"Segmentation by {model}"[:64],
            )
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            seen = f"highdicom: {shown(' '.join(str(error).split()))[:200]}"
            raise DataError(
                shown(grid.path), seen, "a series that a DICOM SEG can refer to", _TODO_EXPORT
            ) from error
        out = io.BytesIO()
        segmentation.save_as(out)
    return write_atomic(path, out.getvalue())


def _highdicom(path: Path) -> Any:
    try:
        import highdicom
        import highdicom.seg  # not loaded by the package itself
    except ImportError:
        todo = "pip install 'medxfer[seg]', or write NIfTI or PNG"
        raise DataError(shown(path), "the package highdicom is not installed", "highdicom", todo) from None
    return highdicom


def _sources(grid: SourceGrid) -> list[Dataset]:
    """Headers of the source: a data set a slice, or the one file of all frames."""
    paths = list(dict.fromkeys(image.path for image in grid.images))
    sources: list[Dataset] = []
    for path in paths:
        with damage_named(path), heard():
            data = dcmread(path, stop_before_pixels=True, force=True)
        lacking = [name for name in _NEEDED if not data.get(name)]
        if lacking:
            seen = f"no {', '.join(lacking)}"
            raise DataError(shown(path), seen, "an image that a DICOM SEG can refer to", _TODO_EXPORT)
        for name in _EMPTY:
            if name not in data:
                setattr(data, name, "")
        sources.append(data)
    return sources


def _pixels(mask: np.ndarray, grid: SourceGrid) -> np.ndarray:
    """Frames as the source has them: (frames, rows, columns) of class numbers, of overlapping ones (..., K)."""
    flat = len(grid.shape) == 2
    if mask.ndim == len(grid.shape):
        frames = mask[None] if flat else mask.transpose(2, 1, 0)
    else:
        frames = mask[None].transpose(0, 2, 3, 1) if flat else mask.transpose(3, 2, 1, 0)
    if len(grid.images) > 1 and grid.images[0].frames > 1:
        # highdicom takes frames in the order of the file
        in_file = np.zeros((grid.images[0].frames, *frames.shape[1:]), np.uint8)
        in_file[[image.frame for image in grid.images]] = frames
        frames = in_file
    return np.ascontiguousarray(frames, dtype=np.uint8)


def _descriptions(highdicom: Any, classes: Sequence[str], model: str, codes: Mapping[str, Code]) -> list[Any]:
    concept = highdicom.sr.CodedConcept
    made_by = highdicom.AlgorithmIdentificationSequence(
        name=model[:64],
        version=__version__,
        family=concept("123110", "DCM", "Artificial Intelligence"),
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=concept(*GENERIC),
            segmented_property_type=concept(*codes.get(name, GENERIC)),
            algorithm_type="AUTOMATIC",
            algorithm_identification=made_by,
            tracking_uid=None,
        )
        for number, name in enumerate(classes, 1)
    ]


def is_seg(path: Path) -> bool:
    """Whether a file is a DICOM SEG, by its class; of other files only the first bytes are read."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
    with damage_named(path), heard():
        return (
            dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).get("SOPClassUID")
            in SEGMENTATIONS
        )


def read_seg(path: Path, grid: SourceGrid) -> tuple[np.ndarray, dict[int, str]]:
    """Read a DICOM SEG back to the grid of the images it belongs to.

    Args:
        path: Of a binary, label map or fractional SEG (the last: from half of the largest value).
        grid: Of the series it refers to.

    Returns:
        Segment numbers, uint8 of `grid.shape`; where segments overlap a stack (K, *grid.shape) bool in the order of
        their numbers. And the label of each number.

    Raises:
        DataError: No SEG, damaged, of another size, direction or frame of reference, or frames beside the slices.
    """
    with damage_named(path), heard():
        data = dcmread(path)
        if data.get("SOPClassUID") not in SEGMENTATIONS:
            raise DataError(shown(path), "no DICOM SEG", "a segmentation", "name the mask of the image")
        names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in data.SegmentSequence}
        if (data.Rows, data.Columns) != (grid.images[0].rows, grid.images[0].columns):
            seen = f"{data.Columns} x {data.Rows} pixels, the images {grid.images[0].columns} x {grid.images[0].rows}"
            raise DataError(
                shown(path), seen, "a segmentation of these images", "name the one of this series"
            )
        _refuse_elsewhere(path, data, grid)
        frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
        if data.SegmentationType == "FRACTIONAL":
            frames = frames > int(data.MaximumFractionalValue) / 2
        slices = [_slice_of(path, data, number, grid) for number in range(len(frames))]
        order = sorted(number for number in names if number > 0)
        stack = np.zeros((len(order), len(grid.images), data.Rows, data.Columns), dtype=bool)
        for number, (frame, place) in enumerate(zip(frames, slices, strict=True)):
            if data.SegmentationType == "LABELMAP":
                for one, segment in enumerate(order):
                    stack[one, place] |= frame == segment
            else:
                identity = _group(data, "SegmentIdentificationSequence", number)
                stack[order.index(int(identity.ReferencedSegmentNumber)), place] |= frame.astype(bool)
    turned = stack[:, 0] if len(grid.shape) == 2 else stack.transpose(0, 3, 2, 1)
    if stack.sum(axis=0, dtype=np.uint8).max(initial=0) > 1:
        return turned, names
    labels: np.ndarray = np.zeros(grid.shape, np.uint8)
    for one, segment in enumerate(order):
        labels[turned[one]] = segment
    return labels, names


def _group(data: Dataset, name: str, frame: int) -> Any:
    """An item of a functional group: the frame's own, or the shared one; None where neither is there."""
    own, shared = data.get("PerFrameFunctionalGroupsSequence"), data.get("SharedFunctionalGroupsSequence")
    for groups, index in ((own, frame), (shared, 0)):
        if groups and name in groups[index]:
            return groups[index][name][0]
    return None


def _refuse_elsewhere(path: Path, data: Dataset, grid: SourceGrid) -> None:
    first = grid.images[0]
    frame = str(data.get("FrameOfReferenceUID") or "")
    if frame and first.frame_of_reference and frame != first.frame_of_reference:
        seen = "its FrameOfReferenceUID is not that of the images"
        raise DataError(shown(path), seen, "a segmentation of these images", "name the one of this series")
    plane = _group(data, "PlaneOrientationSequence", 0)
    if plane is not None and first.orientation is not None:
        own = [float(value) for value in plane.ImageOrientationPatient]
        if not np.allclose(own, first.orientation, atol=2e-3):
            seen = f"ImageOrientationPatient {own}, of the images {list(first.orientation)}"
            raise DataError(shown(path), seen, "the directions of the images", "name the one of this series")


def _slice_of(path: Path, data: Dataset, frame: int, grid: SourceGrid) -> int:
    """Which slice of the grid a frame lies on."""
    if len(grid.images) == 1:
        return 0
    place = _group(data, "PlanePositionSequence", frame)
    if place is None:
        raise DataError(shown(path), f"frame {frame + 1} without a position", "a position each", _TODO_EXPORT)
    origins = np.array([image.position for image in grid.images], dtype=np.float64)
    apart = np.linalg.norm(origins - [float(value) for value in place.ImagePositionPatient], axis=1)
    nearest = int(np.argmin(apart))
    step = float(np.linalg.norm(origins[-1] - origins[0])) / (len(origins) - 1)
    if apart[nearest] > max(_CLOSE, _CLOSE * step):
        seen = f"frame {frame + 1} lies {apart[nearest]:.3g} mm beside the nearest slice"
        raise DataError(
            shown(path), seen, "frames on the slices of the images", "name the one of this series"
        )
    return nearest
