"""Synthetic pictures as DICOM files, complete enough for any reader."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

BITS_STORED = 12
MAKER = "medxfer synthetic"
MAGNIFICATION = 1.05  # 180 cm from tube to detector, the heart about 9 cm before it
# A UID of medxfer's own, so that a file does not change with the version of pydicom that wrote it.
IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, 'synthetic.medxfer').int}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """One chest image and what its header says.

    Args:
        pixels: (rows, columns) uint16, 0 to 4095, bright where the beam was weakened (MONOCHROME2).
        patient: PatientID.
        study: Any text that tells studies apart; becomes the study's UID.
        name: Any text that tells images apart; becomes the image's UID.
        photometric: MONOCHROME1 files hold 4095 - pixels.
        spacing_mm: At the detector.
        date: YYYYMMDD.
        burned_in: Whether letters were printed into the picture.
    """

    pixels: NDArray[np.uint16]
    patient: str
    study: str
    name: str
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    spacing_mm: float
    view: Literal["PA", "AP"]
    sex: Literal["F", "M"]
    age_years: int
    date: str
    burned_in: bool


def uid_of(text: str) -> UID:
    """The UID for a text, always the same: a name-based UUID under 2.25 (DICOM PS3.5, B.2)."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'medxfer:synthetic:{text}').int}")


def write_radiograph(path: Path, image: Radiograph) -> None:
    """Write one image as Digital X-Ray Image Storage, for presentation (PS3.3, A.26), 12 bits stored."""
    inverted = image.photometric == "MONOCHROME1"
    largest = 2**BITS_STORED - 1
    stored = (largest - image.pixels if inverted else image.pixels).astype("<u2")

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid_of(image.name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "MEDXFER_SYNTH"

    body = Dataset()
    body.SOPClassUID = DigitalXRayImageStorageForPresentation
    body.SOPInstanceUID = uid_of(image.name)
    body.StudyInstanceUID = uid_of(image.study)
    body.SeriesInstanceUID = uid_of(f"{image.name}/series")
    _describe_patient(body, image)
    _describe_acquisition(body, image)

    body.Rows, body.Columns = stored.shape
    body.SamplesPerPixel = 1
    body.PhotometricInterpretation = image.photometric
    body.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    body.BitsAllocated, body.BitsStored, body.HighBit = 16, BITS_STORED, BITS_STORED - 1
    body.PixelRepresentation = 0
    body.RescaleIntercept, body.RescaleSlope, body.RescaleType = "0", "1", "US"
    body.WindowCenter, body.WindowWidth = "2048", "4096"
    body.LossyImageCompression = "00"
    body.BurnedInAnnotation = "YES" if image.burned_in else "NO"
    body.PixelData = stored.tobytes()

    file = FileDataset(str(path), body, preamble=b"\0" * 128, file_meta=meta)
    file.save_as(path, enforce_file_format=True)


def _describe_patient(body: Dataset, image: Radiograph) -> None:
    """Patient and study: nobody's, and the header says so."""
    body.PatientName = f"SYNTHETIC^{image.patient}"
    body.PatientID = image.patient
    body.PatientBirthDate = ""
    body.PatientSex = image.sex
    body.PatientAge = f"{image.age_years:03d}Y"
    body.PatientIdentityRemoved = "YES"
    body.DeidentificationMethod = "synthetic: no patient was imaged"
    body.StudyDate = body.SeriesDate = body.AcquisitionDate = body.ContentDate = image.date
    body.StudyTime = body.AcquisitionTime = body.ContentTime = "120000"
    body.StudyID = image.study[-16:]
    body.AccessionNumber = ""
    body.ReferringPhysicianName = ""
    body.StudyDescription = "Synthetic chest radiograph"


def _describe_acquisition(body: Dataset, image: Radiograph) -> None:
    """How the picture was taken, as the DX modules ask for it."""
    body.ImageType = ["ORIGINAL", "PRIMARY", ""]
    body.Modality = "DX"
    body.Manufacturer = MAKER
    body.ManufacturerModelName = "chest_xray"
    body.SeriesNumber = "1"
    body.InstanceNumber = "1"
    body.PresentationIntentType = "FOR PRESENTATION"
    body.BodyPartExamined = "CHEST"
    body.ViewPosition = image.view
    body.PatientOrientation = ["L", "F"]
    body.ImageLaterality = "U"
    body.PixelIntensityRelationship = "LOG"
    body.PixelIntensityRelationshipSign = 1 if image.photometric == "MONOCHROME1" else -1
    at_detector, in_patient = image.spacing_mm, image.spacing_mm / MAGNIFICATION
    body.ImagerPixelSpacing = [f"{at_detector:.4f}"] * 2
    body.PixelSpacing = [f"{in_patient:.4f}"] * 2
    body.PixelSpacingCalibrationType = "GEOMETRY"
    body.EstimatedRadiographicMagnificationFactor = f"{MAGNIFICATION:.2f}"
    body.ImageComments = "SYNTHETIC IMAGE, NOT A PATIENT"
