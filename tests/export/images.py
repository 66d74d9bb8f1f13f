"""Image files that readers disagree on, written for the tests of the exported bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

ORIENTATION = 0x0112


def blocks(seed: int, *, low: int = 300, high: int = 3000) -> np.ndarray:
    """Uint16 (96, 128), 12 bits: blocks with noise, and a black upper edge."""
    generator = np.random.default_rng(seed)
    image = np.kron(generator.integers(low, high, (6, 8)), np.ones((16, 16), int))
    image += generator.integers(0, 90, image.shape)
    image[:12] = 0
    return image.astype(np.uint16)


def write_dicom(path: Path, array: np.ndarray, photometric: str = "MONOCHROME2", **tags: object) -> Path:
    """A DX image of 12 bits (uint16), or of 8 (uint8; colour with a third axis)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.PatientID, header.Modality = "P1", "DX"
    header.Rows, header.Columns = array.shape[:2]
    header.SamplesPerPixel = 1 if array.ndim == 2 else 3
    if array.ndim == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = photometric
    header.BitsAllocated = array.dtype.itemsize * 8
    header.BitsStored = 12 if array.dtype == np.uint16 else 8
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
    for name, value in tags.items():
        if name.startswith("PixelPadding"):
            header.add_new(name, "US", value)
        else:
            setattr(header, name, value)
    header.PixelData = array.tobytes()
    header.save_as(path, enforce_file_format=True)
    return path


def write_all(folder: Path) -> list[str]:
    """Every kind of file; returns their paths below `folder`."""
    (folder / "sub").mkdir(parents=True)
    _write_dicoms(folder)
    _write_pictures(folder / "sub")
    (folder / "labels.csv").write_text("not,an,image\n", encoding="utf-8")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    named = (path for path in folder.rglob("*") if path.is_file())
    skipped = {"labels.csv", "DICOMDIR"}
    return sorted(path.relative_to(folder).as_posix() for path in named if path.name not in skipped)


def _write_dicoms(folder: Path) -> None:
    grey = blocks(1)
    inverted = (4095 - grey).astype(np.uint16)
    outside = np.where(grey == 0, 4000, grey).astype(np.uint16)
    colour = np.random.default_rng(2).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    write_dicom(folder / "grey.dcm", grey)
    write_dicom(folder / "inverted.dcm", inverted, "MONOCHROME1")
    write_dicom(folder / "rescaled.dcm", inverted, "MONOCHROME1", RescaleSlope=2, RescaleIntercept=-5)
    write_dicom(folder / "no_suffix", grey)
    write_dicom(folder / "1.2.840.77", grey)
    write_dicom(
        folder / "padded.dcm", outside, PixelPaddingValue=4000, RescaleSlope=0.5, RescaleIntercept=-100
    )
    write_dicom(folder / "range.dcm", outside, PixelPaddingValue=3990, PixelPaddingRangeLimit=4095)
    flipped = np.where(grey == 0, 4000, inverted).astype(np.uint16)
    write_dicom(folder / "padded_inverted.dcm", flipped, "MONOCHROME1", PixelPaddingValue=4000)
    write_dicom(folder / "colour.dcm", colour, "RGB")


def _write_pictures(folder: Path) -> None:
    deep = blocks(3)
    grey = (deep // 16).astype(np.uint8)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    alpha = np.concatenate([colour, np.full((96, 128, 1), 128, np.uint8)], axis=-1)
    Image.fromarray(grey).save(folder / "with, comma.jpg")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(alpha).convert("LA").save(folder / "grey_alpha.png")
    Image.fromarray(colour).convert("P").save(folder / "palette.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.jpeg")
    Image.fromarray(colour).save(folder / "turned.tif", tiffinfo={ORIENTATION: 8})
    Image.fromarray(grey).save(folder / "grey.bmp")
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        Image.fromarray(colour).save(folder / f"exif{turn}.jpg", exif=exif, quality=85, subsampling=2)
