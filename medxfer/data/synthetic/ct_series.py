"""A CT-like DICOM series of a trunk that is nobody's: unlike on every side, so that a turned axis is seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ... import files
from .dicom import IMPLEMENTATION, MAKER, uid_of
from .shapes import Array, blurred, edge, grid, noise

AIR_HU = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CtSeries:
    """What was written, to compare a reading with.

    Args:
        folder: Holds the files and nothing else.
        files: In order of position, from the first slice of `hu` to its last.
        patient: PatientID.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        hu: (X, Y, Z) int16: columns, rows and slices, as the scanner's axes run (at no turn: left, back, head).
        affine: (4, 4), index of `hu` -> mm in RAS.
        organs: (X, Y, Z) uint8: 0 elsewhere, 1 right lung, 2 left lung, 3 heart, 4 liver.
    """

    folder: Path
    files: tuple[Path, ...]
    patient: str
    study: str
    series: str
    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    organs: NDArray[np.uint8]


def write_ct_series(
    folder: Path,
    seed: int,
    *,
    shape: tuple[int, int, int] = (72, 64, 28),
    spacing: tuple[float, float, float] = (4.8, 4.8, 7.5),
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
    patient: str | None = None,
    study: str = "1",
    description: str = "Chest 5.0 soft",
    number: int = 2,
    shuffled: bool = True,
) -> CtSeries:
    """Write one file a slice; the patient differs with the seed.

    Args:
        folder: Made; one series a folder.
        seed: The same seed gives the same files.
        shape: Columns, rows, slices.
        spacing: mm along them.
        turn_deg: Of the image axes about the patient's right-left, back-front and foot-head axes: an oblique series,
            whose slices still follow each other along their normal.
        patient: PatientID; None: one made from the seed.
        study: Any text that tells the patient's studies apart.
        description: SeriesDescription.
        number: SeriesNumber; with patient and study it makes the series' UID.
        shuffled: File names and InstanceNumber do not follow the position, as on many archives' disks.

    Returns:
        What was written.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rng = np.random.default_rng([seed, 140])
    hu, organs = phantom(shape, spacing, rng)
    patient = patient or f"SYNCT{seed:04d}"
    affine = _affine(shape, spacing, turn_deg, rng.uniform(-60, 60, 3))
    study_uid = uid_of(f"{patient}/{study}")
    series_uid = uid_of(f"{patient}/{study}/{number}")
    order = rng.permutation(shape[2]) if shuffled else np.arange(shape[2])
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for k in range(shape[2]):
        body = Dataset()
        body.StudyInstanceUID, body.SeriesInstanceUID = study_uid, series_uid
        body.SeriesNumber, body.InstanceNumber = str(number), str(int(order[k]) + 1)
        body.SOPInstanceUID = uid_of(f"{patient}/{study}/{number}/{k}")
        _describe(body, patient, study, description)
        _place(body, affine, spacing, k)
        _fill(body, hu[:, :, k])
        path = folder / f"IM{int(order[k]) + 1:04d}.dcm"
        with files.explained(path):
            _save(path, body)
        written.append(path)
    return CtSeries(
        folder=folder,
        files=tuple(written),
        patient=patient,
        study=str(study_uid),
        series=str(series_uid),
        hu=hu,
        affine=affine,
        organs=organs,
    )


def phantom(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A trunk in HU and its organs, axes to the patient's left, back and head."""
    left, back, up = (np.broadcast_to(axis, shape) for axis in grid(shape, spacing))
    broad, deep = rng.uniform(145, 160), rng.uniform(100, 115)
    inside = 1 - np.sqrt((left / broad) ** 2 + (back / deep) ** 2) + 0.01 * noise(rng, shape, 4)
    hu = AIR_HU + edge(inside, 0.015) * (910 + 12 * noise(rng, shape, 14))
    hu = hu + edge(inside - 0.13, 0.02) * (50 + 9 * noise(rng, shape, 12) - hu)
    organs = np.zeros(shape, np.uint8)
    base = -45 + rng.uniform(-10, 10)  # height of the right diaphragm
    for value, side in ((1, -1), (2, 1)):
        dome = base - (12 if side > 0 else 0) + 25 * (1 - ((left - side * 70) / 60) ** 2 - (back / 90) ** 2)
        wide = 58 if side < 0 else 52
        lung = 1 - np.sqrt(
            ((left - side * 72) / wide) ** 2 + ((back - 6) / 78) ** 2 + (np.maximum(up, 0) / 150) ** 4
        )
        share = edge(lung, 0.02) * edge(up - dome, 2)
        hu = hu + share * (-840 + 25 * noise(rng, shape, 18) - hu)
        organs[share > 0.5] = value
        if side < 0:
            liver = edge(1 - np.hypot((left + 55) / 85, (back + 5) / 75), 0.02) * edge(dome - 4 - up, 2)
            hu = hu + liver * (62 + 6 * noise(rng, shape, 12) - hu)
            organs[liver > 0.5] = 4
    heart = 1 - np.sqrt(((left - 28) / 56) ** 2 + ((back + 25) / 46) ** 2 + ((up - base - 45) / 52) ** 2)
    share = edge(heart, 0.03)
    hu = hu + share * (45 - hu)
    organs[share > 0.5] = 3
    hu = _bones(hu, inside, left, back, up)
    seen = blurred(hu, 0.4) + rng.uniform(6, 15) * blurred(rng.standard_normal(shape, dtype=np.float32), 0.4)
    return np.asarray(np.clip(np.rint(seen), -1024, 3071), np.int16), organs


def _bones(hu: Array, inside: Array, left: Array, back: Array, up: Array) -> Array:
    """Spine behind, breastbone before, ribs about, and a port under the skin of the left front alone."""
    spine = np.hypot(left / 20, (back - 68) / 18)
    canal = np.hypot(left / 8, (back - 92) / 8)
    discs = edge(np.abs(np.mod(up, 34) - 17) - 3, 1)
    hu = hu + edge(1 - spine, 0.08) * (120 + 330 * discs - hu)
    hu = hu + edge(1 - canal, 0.1) * (20 - hu)
    breastbone = np.maximum(np.abs(left) / 18, np.abs(inside - 0.16) / 0.045)
    hu = hu + edge(1 - breastbone, 0.1) * (back < 0) * (420 - hu)
    rib = np.abs(np.mod(up + 0.45 * back + 8, 30) - 15) / 6
    shell = np.abs(inside - 0.17) / 0.04
    hu = hu + edge(1 - np.maximum(rib, shell), 0.15) * (np.abs(left) > 25) * (520 - hu)
    port = np.sqrt(((left - 85) / 9) ** 2 + ((inside - 0.06) / 0.05) ** 2 + ((up - 60) / 10) ** 2)
    return np.asarray(hu + edge(1 - port, 0.15) * (back < 0) * (1600 - hu), np.float32)


def _affine(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    turn_deg: tuple[float, float, float],
    middle_mm: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Index (column, row, slice) -> mm in RAS; the middle of the grid lies at `middle_mm`."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(turn_deg)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[two, two] = np.cos(angle)
        step[one, two], step[two, one] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    affine = np.eye(4)
    # Columns run to the left, rows to the back, slices to the head: negative, negative, positive in RAS.
    affine[:3, :3] = turn @ np.diag([-spacing[0], -spacing[1], spacing[2]])
    affine[:3, 3] = middle_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _describe(body: Dataset, patient: str, study: str, description: str) -> None:
    """Patient, study and scanner: nobody's, and the header says so."""
    body.SOPClassUID = CTImageStorage
    body.PatientName = f"SYNTHETIC^{patient}"
    body.PatientID = patient
    body.PatientBirthDate, body.PatientSex = "", "O"
    body.PatientIdentityRemoved = "YES"
    body.DeidentificationMethod = "synthetic: no patient was imaged"
    body.StudyDate = body.SeriesDate = body.AcquisitionDate = body.ContentDate = "20200101"
    body.StudyTime = body.AcquisitionTime = body.ContentTime = "120000"
    body.StudyID, body.AccessionNumber, body.ReferringPhysicianName = study[:16], "", ""
    body.StudyDescription, body.SeriesDescription = "Synthetic chest CT", description
    body.Modality, body.Manufacturer, body.ManufacturerModelName = "CT", MAKER, "ct_series"
    body.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    body.BodyPartExamined, body.PatientPosition = "CHEST", "HFS"
    body.KVP, body.AcquisitionNumber = "120", "1"
    body.ImageComments = "SYNTHETIC IMAGE, NOT A PATIENT"


def _place(body: Dataset, affine: NDArray[np.float64], spacing: tuple[float, float, float], k: int) -> None:
    """Where slice `k` lies, in DICOM's own axes (left, back, head)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    position = lps[:3, 3] + k * lps[:3, 2]
    cosines = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
    body.ImagePositionPatient = [f"{value:.6f}" for value in position]
    body.ImageOrientationPatient = [f"{value:.9f}" for value in cosines]
    body.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]  # between rows, then between columns
    body.SliceThickness = f"{spacing[2]:.6f}"
    body.FrameOfReferenceUID = uid_of(f"{body.StudyInstanceUID}/frame")
    body.PositionReferenceIndicator = ""


def _fill(body: Dataset, hu: NDArray[np.int16]) -> None:
    """Pixels of one slice, (columns, rows), stored unsigned with an intercept, as scanners do."""
    stored = (hu.T + 1024).astype("<u2")
    body.Rows, body.Columns = stored.shape
    body.SamplesPerPixel, body.PhotometricInterpretation = 1, "MONOCHROME2"
    body.BitsAllocated, body.BitsStored, body.HighBit, body.PixelRepresentation = 16, 12, 11, 0
    body.RescaleIntercept, body.RescaleSlope, body.RescaleType = "-1024", "1", "HU"
    body.WindowCenter, body.WindowWidth = "40", "400"
    body.PixelData = stored.tobytes()


def _save(path: Path, body: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = body.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "MEDXFER_SYNTH"
    file = FileDataset(str(path), body, preamble=b"\0" * 128, file_meta=meta)
    file.save_as(path, enforce_file_format=True)
