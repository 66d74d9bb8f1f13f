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
