"""A mask of a DICOM series as DICOM SEG: every voxel where the slices say, whoever reads it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medxfer.data.formats.dicom_seg import GENERIC, read_seg, write_seg
from medxfer.data.formats.geometry import to_closest_ras
from medxfer.data.formats.grids import SourceGrid, source_grid
from medxfer.data.mask_file import read_mask
from medxfer.data.placed import placed
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import read_image
from medxfer.data.regrid import onto_grid
from medxfer.data.writers import volume_row, write_mask, write_nifti
from medxfer.errors import ConfigError, DataError

from .faults import dicom, enhanced, ramp, saved, saved_series, series
from .phantom import hand, rotation

CLASSES = ["palm", "thumb", "tips"]
EMPTY = (
    "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip
TURN = rotation()
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "rows upwards": (0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    "oblique": tuple(float(value) for value in np.concatenate([TURN[:, 0], TURN[:, 1]]).round(9)),
}


def hand_series(orientation: tuple[float, ...] = ORIENTATIONS["axial"], **tags: Any) -> list[Dataset]:
    """The hand as stored values (slice, row, column): 14 slices of 11 x 9 pixels, 0.8 x 0.6 mm, 2.5 mm apart."""
    tags = {"RescaleIntercept": 0, "StudyInstanceUID": "1.2.826.0.1.6", **tags}
    return series(hand().astype(np.uint16), orientation=orientation, **tags)


def back_on_grid(path: Path, policy: ReadPolicy | None = None) -> tuple[np.ndarray, SourceGrid]:
    """What the reader gave, as a mask on the grid of the slices."""
    policy = policy or ReadPolicy()
    image, grid = placed(read_image(path, policy=policy)), source_grid(path, policy=policy)
    return onto_grid(image.values[0].numpy().round().astype(np.uint8), image.affine, grid), grid


@pytest.mark.parametrize("is_reversed", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_mask_comes_back_in_every_orientation_and_order_of_slices(
    tmp_path: Path, name: str, is_reversed: bool
) -> None:
    images = hand_series(ORIENTATIONS[name])
    folder = saved_series(images[::-1] if is_reversed else images, tmp_path / "series")

    mask, grid = back_on_grid(folder)
    (path,) = write_mask(mask, grid, tmp_path / "out", "a", classes=CLASSES)

    np.testing.assert_array_equal(mask.transpose(2, 1, 0), hand())
    ours, names = read_seg(path, grid)
    np.testing.assert_array_equal(ours, mask)
    assert names == {1: "palm", 2: "thumb", 3: "tips"}
    for number, image in enumerate(
        images
    ):  # frame by frame as pydicom sees them, by the source's own numbers
        np.testing.assert_array_equal(frame_at(dcmread(path), image.ImagePositionPatient), hand()[number])
    seen = highdicom.seg.segread(path)
    theirs = seen.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], combine_segments=True
    )
    np.testing.assert_array_equal(theirs, hand())
    volume = seen.get_volume(combine_segments=True)
    np.testing.assert_array_equal(in_ras(volume), in_ras_of(mask, grid))


def frame_at(data: Dataset, position: Any) -> np.ndarray:
    """Class numbers of the frames at a position; none: background."""
    found = np.zeros((data.Rows, data.Columns), np.uint8)
    for groups, pixels in zip(data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True):
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        if np.allclose([float(one) for one in place], [float(one) for one in position], atol=1e-6):
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            found[pixels > 0] = number
    return found


def in_ras(volume: Any) -> np.ndarray:
    """Class numbers of a highdicom volume in the closest RAS axes, cut to what is there."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    turned = to_closest_ras(np.asarray(volume.array)[None], affine)[0][0]
    return cut(turned)


def in_ras_of(mask: np.ndarray, grid: SourceGrid) -> np.ndarray:
    return cut(to_closest_ras(mask[None], grid.affine)[0][0])


def cut(mask: np.ndarray) -> np.ndarray:
    return mask[tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(mask))]


def test_the_seg_refers_to_its_series_and_says_who_made_it(tmp_path: Path) -> None:
    images = hand_series(PatientName="Doe^Jane", PatientID="P7", StudyDescription="thorax")
    mask, grid = back_on_grid(saved_series(images, tmp_path / "series"))
    codes = {"thumb": ("76505004", "SCT", "Thumb")}

    data = dcmread(write_seg(mask, grid, tmp_path / "a.dcm", classes=CLASSES, model="hands 2", codes=codes))

    assert (data.Modality, data.SegmentationType) == ("SEG", "BINARY")
    assert data.StudyInstanceUID == images[0].StudyInstanceUID
    assert data.FrameOfReferenceUID == "1.2.826.0.1.8"
    assert data.SeriesInstanceUID != images[0].SeriesInstanceUID
    assert (str(data.PatientName), data.PatientID) == ("Doe^Jane", "P7")
    (referred,) = data.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == {
        image.SOPInstanceUID for image in images
    }
    meaning = [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in data.SegmentSequence]
    assert meaning == [GENERIC[2], "Thumb", GENERIC[2]]
    assert data.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert data.SegmentSequence[0].SegmentAlgorithmName == "hands 2"
    source = data.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID in {image.SOPInstanceUID for image in images}


def test_the_same_mask_gets_the_same_uids_another_mask_others(tmp_path: Path) -> None:
    mask, grid = back_on_grid(saved_series(hand_series(), tmp_path / "series"))
    other = mask.copy()
    other[0, 0, 0] = 1

    one, again, third = (
        dcmread(write_seg(each, grid, tmp_path / f"{number}.dcm", classes=CLASSES))
        for number, each in enumerate((mask, mask, other))
    )

    assert one.SOPInstanceUID == again.SOPInstanceUID != third.SOPInstanceUID
    assert one.SeriesInstanceUID == again.SeriesInstanceUID != third.SeriesInstanceUID


def test_overlapping_classes_are_segments_that_overlap(tmp_path: Path) -> None:
    mask, grid = back_on_grid(saved_series(hand_series(), tmp_path / "series"))
    stack = np.stack([mask > 0, mask == 2])

    path = write_seg(stack, grid, tmp_path / "a.dcm", classes=["hand", "thumb"])
    read, _ = read_seg(path, grid)

    assert dcmread(path).SegmentsOverlap == "YES"
    np.testing.assert_array_equal(read, stack)


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_segs_of_other_makers_are_read(tmp_path: Path, kind: str) -> None:
    images = hand_series(**dict.fromkeys(EMPTY, ""))
    mask, grid = back_on_grid(saved_series(images, tmp_path / "series"))
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="hand",
        segmented_property_category=highdicom.sr.CodedConcept(*GENERIC),
        segmented_property_type=highdicom.sr.CodedConcept(*GENERIC),
        algorithm_type="MANUAL",
    )
    pixels = (hand() > 0).astype(np.uint8) if kind == "LABELMAP" else np.where(hand() > 0, 0.75, 0.25)
    data = highdicom.seg.Segmentation(
        source_images=images, pixel_array=pixels, segmentation_type=kind, segment_descriptions=[description],
        series_instance_uid="1.2.826.0.1.11", series_number=2, sop_instance_uid="1.2.826.0.1.12", instance_number=1,
        manufacturer="else", manufacturer_model_name="else", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    data.save_as(tmp_path / "a.dcm")

    read, names = read_seg(tmp_path / "a.dcm", grid)

    np.testing.assert_array_equal(read, mask > 0)
    assert names[1] == "hand"


@pytest.mark.parametrize("name", ["axial", "sagittal", "oblique"])
def test_with_every_slice_monai_reads_the_mask_at_its_place(tmp_path: Path, name: str) -> None:
    from monai.data.image_reader import PydicomReader

    folder = saved_series(hand_series(ORIENTATIONS[name]), tmp_path / "series")
    mask, grid = back_on_grid(folder)
    path = write_seg(mask, grid, tmp_path / "a.dcm", classes=CLASSES, every_slice=True)

    reader = PydicomReader()
    array, said = reader.get_data(reader.read(path))

    theirs = (
        np.concatenate([np.zeros((*array.shape[:3], 1)), array], axis=-1).argmax(axis=-1).astype(np.uint8)
    )
    turned, affine = to_closest_ras(theirs[None], np.asarray(said["affine"], dtype=np.float64))
    expected, own = to_closest_ras(mask[None], grid.affine)
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_allclose(affine, own, atol=1e-4)


def test_an_empty_mask_is_a_sound_file(tmp_path: Path) -> None:
    _, grid = back_on_grid(saved_series(hand_series(), tmp_path / "series"))

    read, names = read_seg(
        write_seg(np.zeros(grid.shape, np.uint8), grid, tmp_path / "a.dcm", classes=["a"]), grid
    )

    assert not read.any()
    assert names == {1: "a"}


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["forward", "reversed"])
def test_frames_of_an_enhanced_file_get_their_mask_back(tmp_path: Path, order: slice) -> None:
    data = enhanced(hand_series()[order])
    data.FrameOfReferenceUID = "1.2.826.0.1.8"
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleIntercept = 0
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 2.5
    path = saved(data, tmp_path / "e.dcm")

    mask, grid = back_on_grid(path)
    read, _ = read_seg(write_seg(mask, grid, tmp_path / "m.dcm", classes=CLASSES), grid)

    np.testing.assert_array_equal(mask.transpose(2, 1, 0), hand())
    np.testing.assert_array_equal(read, mask)


def test_slices_at_uneven_places_get_the_mask_of_their_own_place(tmp_path: Path) -> None:
    """The reader puts them on an even grid; the mask goes back to each slice where it lies."""
    images = hand_series()
    gone = [image for number, image in enumerate(images) if number not in (6, 7)]
    folder = saved_series(gone, tmp_path / "series")
    policy = ReadPolicy(on_geometry="resample")

    image, grid = placed(read_image(folder, policy=policy)), source_grid(folder, policy=policy)
    assert image.shape[2] == 14 > grid.shape[2] == 12
    height = np.arange(14, dtype=np.uint8)[None, None, :] * np.ones(image.shape, np.uint8)
    back = onto_grid(height, image.affine, grid)
    read, _ = read_seg(
        write_seg((back > 7).astype(np.uint8), grid, tmp_path / "m.dcm", classes=["upper"]), grid
    )

    assert back[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    np.testing.assert_array_equal(read, back > 7)


@pytest.mark.parametrize("kind", ["ct slice", "radiograph"])
def test_single_pictures_get_a_seg_or_a_png(tmp_path: Path, kind: str) -> None:
    picture = (
        hand_series()[5] if kind == "ct slice" else dicom(ramp(24, 32), SeriesInstanceUID="1.2.826.0.1.3")
    )
    path = saved(picture, tmp_path / "a.dcm")
    grid = source_grid(path)
    mask = np.zeros(grid.shape, np.uint8)
    mask[2:5, 3:8] = 1

    (seg,) = write_mask(mask, grid, tmp_path, "seg", classes=["a"])
    (png,) = write_mask(mask, grid, tmp_path, "png", classes=["a"], output="png")

    np.testing.assert_array_equal(read_seg(seg, grid)[0], mask)
    np.testing.assert_array_equal(read_mask(png).array[0], mask)
    area = 15 * (0.8 * 0.6 if kind == "ct slice" else 0.5 * 1.25) / 100
    assert volume_row(mask, grid, ["a"])["cm2_a"] == pytest.approx(area, abs=1e-4)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_as_nifti_the_mask_lies_where_the_series_does(tmp_path: Path, name: str) -> None:
    folder = saved_series(hand_series(ORIENTATIONS[name]), tmp_path / "series")

    mask, grid = back_on_grid(folder)
    out = read_image(write_nifti(mask, grid, tmp_path / "m.nii.gz"))

    image = read_image(folder)
    np.testing.assert_array_equal(out.array, image.array)
    np.testing.assert_allclose(out.affine, image.affine, atol=1e-4)
    assert not out.warnings


def test_a_series_that_cannot_be_referred_to_is_refused(tmp_path: Path) -> None:
    mask, grid = back_on_grid(saved_series(hand_series(FrameOfReferenceUID=None), tmp_path / "series"))

    with pytest.raises(DataError, match="Frame Of Reference"):
        write_seg(mask, grid, tmp_path / "a.dcm", classes=CLASSES)
    lone = saved(dicom(ramp()), tmp_path / "dx.dcm")
    alone = source_grid(lone)
    with pytest.raises(DataError, match="no SeriesInstanceUID"):
        write_seg(np.zeros(alone.shape, np.uint8), alone, tmp_path / "a.dcm", classes=["a"])
    assert not list(tmp_path.glob("*a.dcm*"))


def test_a_seg_of_another_series_is_refused(tmp_path: Path) -> None:
    mask, grid = back_on_grid(saved_series(hand_series(), tmp_path / "one"))
    path = write_seg(mask, grid, tmp_path / "a.dcm", classes=CLASSES)
    faults = {
        "FrameOfReferenceUID": hand_series(FrameOfReferenceUID="1.2.3"),
        "ImageOrientationPatient": hand_series(ORIENTATIONS["coronal"]),
        "beside the nearest slice": series(hand().astype(np.uint16), origin=(-10.0, -20.0, 31.0)),
        "pixels": series(np.zeros((14, 8, 8), np.uint16)),
    }
    for words, images in faults.items():
        other = source_grid(saved_series(images, tmp_path / words.split()[0]))
        with pytest.raises(DataError, match=words):
            read_seg(path, other)
    with pytest.raises(DataError, match="no DICOM SEG"):
        read_seg(tmp_path / "one" / "000.dcm", grid)


def test_without_highdicom_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, grid = back_on_grid(saved_series(hand_series(), tmp_path / "series"))
    monkeypatch.setitem(sys.modules, "highdicom", None)

    with pytest.raises(DataError, match=r"(?s)highdicom is not installed.*medxfer\[seg\]"):
        write_mask(mask, grid, tmp_path, "a", classes=CLASSES)

    (out,) = write_mask(mask, grid, tmp_path, "a", classes=CLASSES, output="nifti")
    assert out.suffixes == [".nii", ".gz"]
    with pytest.raises(ConfigError, match="png for a DICOM volume"):
        write_mask(mask, grid, tmp_path, "a", classes=CLASSES, output="png")
