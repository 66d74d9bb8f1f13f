"""Small real files, made by code: DICOM images and pictures, sound ones and broken ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def dicom(pixels: np.ndarray, *, bits: int = 12, **tags: Any) -> Dataset:
    """A DX image; `tags` replace or add elements, None removes one."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DX
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["medxfer"])
    data.SOPClassUID = DX
    data.Modality = "DX"
    data.PatientID = "P1"
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = pixels.dtype.itemsize * 8
    data.BitsStored = min(bits, data.BitsAllocated)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelSpacing = [0.5, 1.25]
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def saved(data: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, data, enforce_file_format=True)
    return path


def ramp(rows: int = 24, columns: int = 32, dtype: type = np.uint16, top: int = 4095) -> np.ndarray:
    return np.linspace(0, top, rows * columns).round().astype(dtype).reshape(rows, columns)


def picture(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def jpeg_bytes(side: int = 64, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (side, side)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def chest(seed: int, side: int = 48) -> np.ndarray:
    """A smooth grey picture, different for each seed."""
    low = np.random.default_rng(seed).uniform(20, 235, (6, 6)).astype(np.uint8)
    return np.asarray(Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC))


def class_folders(root: Path, count: int = 6, split: str = "") -> Path:
    """Two classes of `count` pictures each."""
    for number, name in enumerate(("normal", "pneumonia")):
        for one in range(count):
            seed = 1000 * number + one + (500 if split == "test" else 0)
            picture(root / split / name / f"{name[0]}{split}{one:03}.png", chest(seed))
    return root


CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def anatomy(slices: int = 12, rows: int = 20, columns: int = 26) -> np.ndarray:
    """Stored values (slice, row, column), no two places alike."""
    values = np.arange(slices * rows * columns, dtype=np.uint32) * 7919 % 4096
    return values.reshape(slices, rows, columns).astype(np.uint16)


def series(
    stored: np.ndarray | None = None,
    *,
    orientation: tuple[float, ...] = AXIAL,
    origin: tuple[float, ...] = (-10.0, -20.0, 30.0),
    step: tuple[float, ...] | float = 2.5,
    **tags: Any,
) -> list[Dataset]:
    """A good CT series: 12 axial slices of 0.8 x 0.6 mm, 2.5 mm apart; `step` as a vector makes a tilt."""
    stored = anatomy() if stored is None else stored
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.array(step) if isinstance(step, tuple) else normal * step
    images = []
    for number, pixels in enumerate(stored):
        position = [float(value) for value in np.array(origin) + number * along]
        image = dicom(pixels)
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CT
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.99.{number + 1}"
        image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.826.0.1.7", "1.2.826.0.1.8"
        image.Modality, image.SeriesDescription = "CT", "thorax lung"
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.InstanceNumber = number + 1
        image.PixelSpacing = [0.8, 0.6]
        image.SliceThickness = 9
        image.ImagePositionPatient, image.ImageOrientationPatient = position, list(orientation)
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        for name, value in tags.items():
            if value is None:
                delattr(image, name)
            else:
                setattr(image, name, value)
        images.append(image)
    return images


def saved_series(images: list[Dataset], folder: Path) -> Path:
    """A folder of files in the order of the images."""
    for number, image in enumerate(images):
        saved(image, folder / f"{number:03}.dcm")
    return folder


def enhanced(images: list[Dataset]) -> Dataset:
    """The same slices as frames of one enhanced file, in the order given."""
    stored = np.stack([np.frombuffer(image.PixelData, np.uint16) for image in images])
    first = images[0]
    pixels = np.frombuffer(first.PixelData, np.uint16).reshape(first.Rows, first.Columns)
    data = dicom(pixels, SOPClassUID=ENHANCED_CT, PixelSpacing=None, Modality="CT")
    data.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    data.SeriesInstanceUID = "1.2.826.0.1.9"
    data.NumberOfFrames = len(images)
    data.PixelData = stored.tobytes()
    shared, spacing, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    spacing.PixelSpacing = first.PixelSpacing
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [spacing], [orientation]
    shared.PixelValueTransformationSequence = [values]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for image in images:
        group, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = image.ImagePositionPatient
        content.TemporalPositionIndex = int(image.get("TemporalPositionIdentifier", 1))
        group.PlanePositionSequence, group.FrameContentSequence = [place], [content]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    return data
