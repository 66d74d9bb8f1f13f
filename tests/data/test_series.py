"""A good series gives one volume, however it is stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medxfer.data.formats.dicom_frames import read_dicom_file
from medxfer.data.formats.geometry import to_closest_ras
from medxfer.data.image import Image
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import read_image
from medxfer.data.series import choose_series, find_series, read_series
from medxfer.errors import ConfigError, DataError

from .faults import anatomy, dicom, enhanced, picture, ramp, saved, saved_series, series

ANGLE = np.deg2rad(20)
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "axial seen from above": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "columns along the body": (0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    "columns along the body, coronal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0),
    "oblique": (1.0, 0.0, 0.0, 0.0, float(np.cos(ANGLE)), float(np.sin(ANGLE))),
}


def sha(image: Image) -> str:
    return hashlib.sha256(np.ascontiguousarray(image.array, "<f4").tobytes()).hexdigest()


def read(folder: Path, policy: ReadPolicy | None = None) -> Image:
    policy = policy or ReadPolicy()
    return read_series(choose_series(find_series(folder), policy), policy)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_d3_volume_equals_its_nifti_twin_in_every_orientation(tmp_path: Path, name: str) -> None:
    orientation = ORIENTATIONS[name]
    stored = anatomy(12, 20, 26)
    normal = np.cross(orientation[:3], orientation[3:])
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = np.array(orientation[:3]) * 0.6, np.array(orientation[3:]) * 0.8
    lps[:3, 2], lps[:3, 3] = normal * 2.5, (-10, -20, 30)
    values = stored.transpose(2, 1, 0).astype(np.float32) - 1024
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1]) @ lps), tmp_path / "twin.nii.gz")

    image = read(saved_series(series(stored, orientation=orientation), tmp_path / "s"))
    twin = nibabel.as_closest_canonical(nibabel.load(tmp_path / "twin.nii.gz"))

    np.testing.assert_array_equal(image.array[0], twin.get_fdata(dtype=np.float32))
    assert image.affine is not None
    np.testing.assert_allclose(image.affine, twin.affine, atol=1e-5)
    assert image.spacing == pytest.approx(twin.header.get_zooms(), abs=1e-5)
    assert image.array.flags.c_contiguous


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_any_rotation_and_any_order_give_the_volume_of_the_nifti_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    row, column, normal = rotation[:, 0], rotation[:, 1], np.cross(rotation[:, 0], rotation[:, 1])
    origin = tuple(random.uniform(-100, 100, 3).round(3))
    stored = anatomy(*random.integers(4, 9, 3))
    lps = np.eye(4)
    lps[:3, :3] = np.stack([row * 0.6, column * 0.8, normal * 2.5], axis=1)
    lps[:3, 3] = origin
    images = series(
        stored, orientation=tuple(np.concatenate([row, column]).round(7)), origin=origin, step=2.5
    )
    with TemporaryDirectory() as folder:
        image = read(saved_series([images[k] for k in random.permutation(len(images))], Path(folder)))
    values = stored.transpose(2, 1, 0).astype(np.float32) - 1024
    twin = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1]) @ lps))

    np.testing.assert_array_equal(image.array[0], twin.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(image.affine, twin.affine, atol=1e-3)


def test_d3_order_of_files_and_numbers_does_not_matter(tmp_path: Path) -> None:
    plain = read(saved_series(series(), tmp_path / "plain"))
    order = np.random.default_rng(0).permutation(12)
    images = [series()[k] for k in order]
    for number, image in enumerate(images):
        image.InstanceNumber = number + 1
    mixed = read(saved_series(images, tmp_path / "mixed"))
    bare = tmp_path / "bare"
    for number, image in enumerate(series(InstanceNumber=None)[::-1]):
        saved(image, bare / f"IM{number}")

    assert sha(mixed) == sha(read(bare)) == sha(plain)
    np.testing.assert_array_equal(mixed.affine, plain.affine)


def test_d2_and_d18_every_slice_goes_by_its_own_slope_sign_and_intercept(tmp_path: Path) -> None:
    slopes = np.linspace(0.1, 2.7, 12).round(3)
    images = series()
    for image, slope in zip(images, slopes, strict=True):
        image.RescaleSlope, image.RescaleIntercept, image.Units = float(slope), 3, "BQML"
    expected = (anatomy().astype(np.float64) * slopes[:, None, None] + 3).astype(np.float32)
    signed = series()
    for image in signed[::2]:
        values = np.frombuffer(image.PixelData, np.uint16).astype(np.int16) - 1024
        image.PixelData, image.PixelRepresentation, image.RescaleIntercept = values.tobytes(), 1, 0
        image.BitsStored, image.HighBit = 16, 15

    image = read(saved_series(images, tmp_path / "pet"))
    mixed = read(saved_series(signed, tmp_path / "mixed"))

    np.testing.assert_array_equal(image.array[0], expected.transpose(2, 1, 0)[::-1, ::-1])
    assert {"rescale by each slice's own slope and intercept", "values in BQML"} <= set(image.applied)
    assert sha(mixed) == sha(read(saved_series(series(), tmp_path / "plain")))


def test_d13_encodings_give_the_same_volume(tmp_path: Path) -> None:
    plain = sha(read(saved_series(series(), tmp_path / "plain")))
    implicit, big, packed, inverted = series(), series(), series(), series()
    for image in implicit:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for image in big:
        image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        image.PixelData = np.frombuffer(image.PixelData, np.uint16).astype(">u2").tobytes()
        image["PixelData"].VR = "OW"
    for image in packed:
        image.compress(RLELossless)
    for image in inverted:
        image.PhotometricInterpretation = "MONOCHROME1"
        image.PixelData = (4095 - np.frombuffer(image.PixelData, np.uint16)).tobytes()

    for name, images in (("implicit", implicit), ("big", big), ("rle", packed), ("mono1", inverted)):
        assert sha(read(saved_series(images, tmp_path / name))) == plain, name


def test_d17_padding_becomes_the_lowest_real_value_of_the_volume(tmp_path: Path) -> None:
    stored = anatomy().astype(np.int16)
    stored[:, :2] = -2000
    stored[3] = -2000
    images = series(stored, BitsStored=16, HighBit=15)
    for image in images:
        image.add_new("PixelPaddingValue", "SS", -2000)
    packed = series(stored, BitsStored=16, HighBit=15)
    for image in packed:
        image.add_new("PixelPaddingValue", "SS", -2000)
        image.compress(RLELossless)

    image = read(saved_series(images, tmp_path / "a"))

    expected = np.where(stored == -2000, stored[stored > -2000].min(), stored).astype(np.float32) - 1024
    np.testing.assert_array_equal(image.array[0], expected.transpose(2, 1, 0)[::-1, ::-1])
    assert "padding set to the lowest real value" in image.applied
    assert sha(read(saved_series(packed, tmp_path / "b"))) == sha(image)


@pytest.mark.parametrize("signed", [False, True])
def test_d21_junk_above_the_high_bit_is_masked(tmp_path: Path, signed: bool) -> None:
    stored = anatomy().astype(np.int16) - 2048 if signed else anatomy()
    junk = stored ^ np.array(1 << 13, stored.dtype)

    image = read(saved_series(series(junk), tmp_path / "a"))

    assert sha(image) == sha(read(saved_series(series(stored), tmp_path / "b")))


def test_colour_series_becomes_three_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 20, 24, 3), dtype=np.uint8)
    images = series(anatomy(4), RescaleSlope=None, RescaleIntercept=None)
    for image, pixels in zip(images, colours, strict=True):
        colour = dicom(pixels, bits=8)
        for name in (
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "PhotometricInterpretation",
            "PlanarConfiguration",
        ):
            setattr(image, name, getattr(colour, name))
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image.PixelData = colour.PixelData

    image = read(saved_series(images, tmp_path))

    np.testing.assert_array_equal(image.array, colours.transpose(3, 2, 1, 0)[:, ::-1, ::-1])


def test_d12_enhanced_file_equals_its_series_with_frames_shuffled(tmp_path: Path) -> None:
    plain = read(saved_series(series(), tmp_path / "plain"))
    order = np.random.default_rng(1).permutation(12)
    data = enhanced([series()[k] for k in order])
    path = saved(data, tmp_path / "e" / "enhanced.dcm")
    data.compress(RLELossless)
    packed = saved(data, tmp_path / "packed.dcm")

    for image in (read_image(path), read_image(path.parent), read_image(packed)):
        assert sha(image) == sha(plain)
        np.testing.assert_array_equal(image.affine, plain.affine)
        assert image.spacing == plain.spacing


def test_d12_time_points_of_an_enhanced_file_are_selected(tmp_path: Path) -> None:
    images = [*series(TemporalPositionIdentifier=1), *series(anatomy()[::-1], TemporalPositionIdentifier=2)]
    path = saved(enhanced(images), tmp_path / "enhanced.dcm")

    with pytest.raises(DataError, match="TemporalPositionIndex 1, 2"):
        read_image(path)
    image = read_image(path, policy=ReadPolicy(select={"TemporalPositionIdentifier": 2}))

    assert sha(image) == sha(read(saved_series(series(anatomy()[::-1]), tmp_path / "plain")))


def test_d4_series_of_a_folder_are_listed_and_chosen_by_rules(tmp_path: Path) -> None:
    saved_series(series(), tmp_path / "one")
    sagittal = series(anatomy(5), orientation=ORIENTATIONS["sagittal"], SeriesInstanceUID="1.2.3")
    for image in sagittal:
        image.SeriesDescription, image.Modality = "localised Quill", "MR"
    saved_series(sagittal, tmp_path / "two")

    survey = find_series(tmp_path)
    facts = {(one.modality, one.orientation, one.slices) for one in survey.series}
    with pytest.raises(DataError) as caught:
        choose_series(survey)

    assert facts == {("CT", "axial", 12), ("MR", "sagittal", 5)}
    assert "CT axial, 12 images" in caught.value.seen
    assert "MR sagittal, 5 images" in caught.value.seen
    assert "Quill" not in str(caught.value)
    for rules in ({"modality": "ct"}, {"description": "LUNG"}, {"orientation": "axial"}, {"slices": 6}):
        assert choose_series(survey, ReadPolicy(series=rules)).modality == "CT"
    with pytest.raises(DataError, match="0 fit the rules"):
        choose_series(survey, ReadPolicy(series={"modality": "PT"}))
    assert len(find_series(tmp_path, recursive=False).series) == 0


def test_d10_and_d16_what_is_no_slice_is_set_aside_and_said(tmp_path: Path) -> None:
    plain = read(saved_series(series(), tmp_path / "plain"))
    folder = saved_series(series(), tmp_path / "full")
    scout = series(anatomy(1, 30, 40), orientation=ORIENTATIONS["coronal"])[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    saved(scout, folder / "scout.dcm")
    report = dicom(ramp(), PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    saved(report, folder / "report.dcm")
    mask = dicom(ramp(), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    saved(mask, folder / "mask.dcm")
    (folder / "notes.txt").write_text("nothing")
    picture(folder / "a.png", ramp().astype(np.uint8))

    survey = find_series(folder)
    image = read_image(folder)

    assert sorted(path.name for path, _ in survey.aside) == [
        "a.png",
        "mask.dcm",
        "notes.txt",
        "report.dcm",
        "scout.dcm",
    ]
    assert sha(image) == sha(plain)
    text = " ".join(image.warnings)
    for part in ("localizer", "Comprehensive SR", "segmentation", "2 files set aside: no DICOM file"):
        assert part in text


def test_read_series_takes_files_and_folders_without_kept_headers(tmp_path: Path) -> None:
    folder = saved_series(series(), tmp_path)
    chosen = choose_series(find_series(folder))

    assert sha(read_series(chosen.files)) == sha(read_series(chosen))
    assert sha(read_series(dataclasses.replace(chosen, headers=()))) == sha(read_series(chosen))


def test_one_slice_is_a_picture(tmp_path: Path) -> None:
    image = read(saved_series(series(anatomy(1)), tmp_path))

    assert image.array.shape == (1, 20, 26)
    assert image.spacing == (0.8, 0.6)
    assert image.affine is not None  # the file has patient axes


def test_policy_refuses_what_it_does_not_know() -> None:
    for wrong in (
        {"on_geometry": "guess"},
        {"series": {"modalty": "CT"}},
        {"series": {"description": "("}},
        {"series": {"slices": 0}},
        {"series": {"orientation": "front"}},
        {"select": {"EchoTme": 30}},
        {"frames": "last"},
        {"frames": 0},
        {"volume": -1},
        {"on_nonfinite": "mean"},
    ):
        with pytest.raises(ConfigError) as caught:
            ReadPolicy(**wrong)
        assert caught.value.todo


def _expected(shared: Path) -> dict[str, dict[str, object]]:
    facts: dict[str, dict[str, object]] = json.loads((shared / "data/dicom/expected.json").read_text())[
        "shared"
    ]
    return facts


def test_real_series_read_as_expected(shared: Path) -> None:
    compared = 0
    for name, facts in _expected(shared).items():
        folder = shared / "data/dicom" / name
        if not name.startswith("series/") or "affine_ras_col_row_slice" not in facts:
            continue
        policy = ReadPolicy(on_geometry="warn" if name.endswith(("gap_ge_ct", "tilt_siemens_ct")) else "stop")
        image = read_image(folder, policy=policy)
        affine = np.array(facts["affine_ras_col_row_slice"])
        index = np.zeros((1, *facts["shape_col_row_slice"]), np.float32)  # type: ignore[misc]
        turned, turned_affine = to_closest_ras(index, affine)
        assert image.array.shape == turned.shape, name
        if name.endswith("gap_ge_ct"):  # its facts say the average of the steps 5 and 10; the median is kept
            turned_affine[:3, 2] *= 5 / 7.5
        np.testing.assert_allclose(image.affine, turned_affine, atol=2e-2, err_msg=name)
        back = _turned_back(image, affine)
        assert hashlib.sha256(back.astype("<f4").tobytes()).hexdigest()[:16] == facts["sha16_float32"], name
        compared += 1

    assert compared == 13


def _turned_back(image: Image, affine: np.ndarray) -> np.ndarray:
    """The volume in the order column, row, slice."""
    volume = image.array[0]
    order = [int(np.argmax(np.abs(affine[:3, axis] / np.linalg.norm(affine[:3, axis])))) for axis in range(3)]
    flips = [axis for axis in range(3) if affine[order[axis], axis] < 0]
    return np.ascontiguousarray(np.flip(volume.transpose(order), flips))


def test_real_ct_series_equals_its_nifti_file(shared: Path) -> None:
    image = read_image(shared / "data/dicom/series/sts008_ct")
    twin = nibabel.as_closest_canonical(nibabel.load(shared / "data/nifti/sts008_ct.nii.gz"))

    np.testing.assert_array_equal(image.array[0], twin.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(image.affine, twin.affine, atol=1e-4)


def test_real_faulty_series_are_refused_by_name(shared: Path) -> None:
    folder = shared / "data/dicom/series"
    for name, text in (
        ("gap_ge_ct", "gap 10.0 mm between"),
        ("tilt_siemens_ct", "gantry tilt of 14.0 degrees"),
        ("fmri_ge_4d", "4 of 4 positions"),
    ):
        with pytest.raises(DataError, match=text):
            read_image(folder / name)


def test_real_colour_series_has_three_channels(shared: Path) -> None:
    image = read_image(shared / "data/dicom/series/rgb_j2k")
    first = dcmread(shared / "data/dicom/series/rgb_j2k/IM-0001-0001-0001.dcm")

    assert image.array.shape == (3, 52, 77, 4)
    np.testing.assert_array_equal(image.array[:, ::-1, ::-1, 0], first.pixel_array.transpose(2, 1, 0))


def test_real_multi_frame_files_read_as_expected(shared: Path) -> None:
    folder = shared / "data/dicom/multiframe"
    facts = _expected(shared)
    volume = read_image(folder / "001.dcm")
    timed = read_image(
        folder / "IM-0001-9600-0001.dcm", policy=ReadPolicy(select={"TemporalPositionIndex": 2})
    )
    whole = dcmread(folder / "IM-0001-9600-0001.dcm").pixel_array * 1.85934065934065

    stored = np.ascontiguousarray(volume.array[0, ::-1, ::-1].transpose(2, 1, 0)).astype("<f4")
    low, high, mean = facts["multiframe/001.dcm"]["value_min_max_mean"]  # type: ignore[misc]
    assert (stored.min(), stored.max()) == (low, high)
    assert stored.mean() == pytest.approx(mean, abs=1e-3)
    assert volume.spacing == pytest.approx((1.59, 1.61, 5.0))
    assert timed.array.shape == (1, 64, 64, 8)
    np.testing.assert_allclose(timed.array[0, ::-1, ::-1].transpose(2, 1, 0)[0], whole[1], rtol=1e-6)
    for name, text in (
        ("IM-0001-9600-0001.dcm", "TemporalPositionIndex 1, 2, 3, 4"),
        ("emri_small.dcm", "10 frames, no position"),
        ("emri_small_RLE.dcm", "10 frames, no position"),
        ("sm_image.dcm", "25 frames, no position"),
        ("SC_rgb_2frame.dcm", "2 frames, no position"),
        ("../single/epi_pe_ap-00001.dcm", "mosaic"),
        ("../seg/liver.dcm", "segmentation"),
    ):
        with pytest.raises(DataError, match=text):
            read_image(folder / name)
    for codec in ("", "_RLE", "_jpeg_ls_lossless", "_jpeg_2k_lossless"):
        path = folder / f"emri_small{codec}.dcm"
        chosen = read_dicom_file(path, path.read_bytes(), policy=ReadPolicy(frames="middle"))
        np.testing.assert_array_equal(chosen.array[0], dcmread(folder / "emri_small.dcm").pixel_array[4])
