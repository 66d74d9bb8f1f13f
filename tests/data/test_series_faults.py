"""What does not form one volume is refused, resolved by a rule, or said: the faults of a DICOM series."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import read_image
from medxfer.data.series import choose_series, find_series, read_series
from medxfer.errors import DataError
from tests.bounds import memory_below

from .faults import anatomy, dicom, enhanced, ramp, saved, saved_series, series

TILT = (0.0, float(2.5 * np.tan(np.deg2rad(14))), 2.5)


def refusal(images: list[Dataset], folder: Path, **policy: object) -> str:
    """The words of a refusal; every one says what is accepted and what to do."""
    saved_series(images, folder)
    with pytest.raises(DataError) as caught:
        read_image(folder, policy=ReadPolicy(**policy))  # type: ignore[arg-type]
    assert all((caught.value.seen, caught.value.accepted, caught.value.todo))
    return caught.value.seen


def shifted(images: list[Dataset], start: int, by: float) -> list[Dataset]:
    for image in images[start:]:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, float(z) + by]
    return images


def test_d5_missing_slice_is_named_with_place_and_step(tmp_path: Path) -> None:
    images = series()
    del images[5]

    seen = refusal(images, tmp_path)

    assert "gap 5.0 mm between 004.dcm and 005.dcm (at 40 mm and 45 mm) after slice 5, step 2.5" in seen


def test_d5_missing_slice_is_kept_or_filled_as_the_policy_says(tmp_path: Path) -> None:
    smooth = np.arange(12, dtype=np.uint16)[:, None, None] * 100 + np.zeros((12, 20, 26), np.uint16)
    images = series(smooth)
    del images[5]
    folder = saved_series(images, tmp_path)

    kept = read_image(folder, policy=ReadPolicy(on_geometry="warn"))
    filled = read_image(folder, policy=ReadPolicy(on_geometry="resample"))

    assert kept.array.shape[-1] == 11
    assert any("gap 5.0 mm" in text for text in kept.warnings)
    assert kept.spacing == pytest.approx((0.6, 0.8, 2.5)), "the average 2.75 is right nowhere"
    assert any("not where they lie, by up to 2.5 mm" in text for text in kept.warnings)
    assert filled.array.shape[-1] == 12
    np.testing.assert_allclose(filled.array[0, 0, 0], np.arange(12) * 100 - 1024, atol=1e-3)
    assert filled.spacing == pytest.approx((0.6, 0.8, 2.5))


def test_d5_missing_slice_of_flipped_slices_is_filled_at_its_place(tmp_path: Path) -> None:
    smooth = np.arange(12, dtype=np.uint16)[:, None, None] * 100 + np.zeros((12, 20, 26), np.uint16)
    images = series(smooth, orientation=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    whole = read_image(saved_series(images, tmp_path / "whole"))
    del images[8]

    filled = read_image(saved_series(images, tmp_path / "gap"), policy=ReadPolicy(on_geometry="resample"))

    np.testing.assert_allclose(filled.array, whole.array, atol=1e-3)
    np.testing.assert_allclose(filled.affine, whole.affine)


def test_d6_copy_is_dropped_and_said(tmp_path: Path) -> None:
    whole = read_image(saved_series(series(), tmp_path / "whole"))

    image = read_image(saved_series([*series(), series()[4]], tmp_path / "copy"))

    np.testing.assert_array_equal(image.array, whole.array)
    assert any("1 copies" in text and "012.dcm" in text for text in image.warnings)


def test_d6_other_pixels_at_one_place_are_refused_with_both_names(tmp_path: Path) -> None:
    other = series()[4]
    other.PixelData = series()[5].PixelData

    seen = refusal([*series(), other], tmp_path)

    assert "004.dcm and 012.dcm" in seen
    assert "1 of 12 positions" in seen


@pytest.mark.parametrize(("by", "outcome"), [(0.02, ""), (0.1, "slightly uneven"), (0.9, "refused")])
def test_d7_uneven_steps_are_read_said_or_refused_by_their_size(
    tmp_path: Path, by: float, outcome: str
) -> None:
    images = shifted(series(), 6, by)
    if outcome == "refused":
        assert "steps of 2.5 to 3.4 mm" in refusal(images, tmp_path)
        return
    image = read_image(saved_series(images, tmp_path))

    assert bool(image.warnings) is bool(outcome)
    assert all(outcome in text for text in image.warnings)


def test_d7_step_comes_from_positions_not_from_slice_thickness(tmp_path: Path) -> None:
    assert read_image(saved_series(series(), tmp_path)).spacing == pytest.approx((0.6, 0.8, 2.5))


def test_d8_tilt_is_refused_with_its_angle(tmp_path: Path) -> None:
    assert "tilt of 14.0 degrees" in refusal(series(step=TILT), tmp_path)


def test_d8_tilt_is_kept_as_shear_or_undone(tmp_path: Path) -> None:
    ball = np.zeros((12, 40, 26), np.uint16)
    for number in range(12):  # a column upright in the patient wanders through tilted slices
        ball[number, 20 - round(number * TILT[1] / 0.8) - 1 : 20 - round(number * TILT[1] / 0.8) + 2] = 2000
    folder = saved_series(series(ball, step=TILT), tmp_path)

    kept = read_image(folder, policy=ReadPolicy(on_geometry="warn"))
    straight = read_image(folder, policy=ReadPolicy(on_geometry="resample"))

    assert kept.affine is not None
    assert straight.affine is not None
    assert abs(kept.affine[1, 2]) == pytest.approx(TILT[1])
    assert any("14.0 degrees" in text for text in kept.warnings)
    np.testing.assert_allclose(straight.affine[:3, 2], [0, 0, 2.5], atol=1e-6)
    bright = [int(np.argmax(straight.array[0, 13, :, z])) for z in range(1, 11)]
    assert max(bright) - min(bright) <= 1


def test_d8_rounding_of_positions_is_no_tilt(tmp_path: Path) -> None:
    assert not read_image(saved_series(series(step=(0.0, 0.003, 2.5)), tmp_path)).warnings


def test_slices_beside_the_line_are_refused(tmp_path: Path) -> None:
    images = series()
    x, y, z = images[6].ImagePositionPatient
    images[6].ImagePositionPatient = [float(x) + 3, y, z]

    assert "beside the line" in refusal(images, tmp_path)


def test_d9_mixed_directions_are_both_printed(tmp_path: Path) -> None:
    images = series()
    for image in images[6:]:
        image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    seen = refusal(images, tmp_path)

    assert "1\\0\\0\\0\\1\\0" in seen
    assert "0\\1\\0\\0\\0\\-1" in seen


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"])
def test_d11_geometry_that_is_absent_is_named(tmp_path: Path, tag: str) -> None:
    partly = series()
    delattr(partly[3], tag)

    assert tag in refusal(series(**{tag: None}), tmp_path / "all")
    assert f"no {tag} in 1 of 12 images (003.dcm)" in refusal(partly, tmp_path / "one")


def test_d11_two_spacings_in_one_series_are_refused(tmp_path: Path) -> None:
    images = series()
    images[7].PixelSpacing = [0.8, 0.7]

    assert "0.8\\0.6 (000.dcm) and 0.8\\0.7 (007.dcm)" in refusal(images, tmp_path)


def test_d23_values_that_are_no_hounsfield_units_are_said(tmp_path: Path) -> None:
    image = read_image(saved_series(series(RescaleType="US"), tmp_path / "us"))

    assert any("not HU" in text for text in image.warnings)
    assert not read_image(saved_series(series(RescaleType="HU"), tmp_path / "hu")).warnings


@pytest.mark.parametrize(
    ("tag", "kind", "bad"),
    [
        ("ImagePositionPatient", b"30.", b"x0."),
        ("RescaleSlope", b"1.25", b"1,25"),
        ("PixelSpacing", b"0.8", b"0_8"),
    ],
)
def test_d24_needed_number_that_is_none_is_named(tmp_path: Path, tag: str, kind: bytes, bad: bytes) -> None:
    folder = saved_series(series(RescaleSlope="1.25"), tmp_path)
    path = folder / "000.dcm"
    path.write_bytes(path.read_bytes().replace(kind, bad))

    with pytest.raises(DataError, match=tag):
        read_image(folder)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0.7, 0.7, 0]}, "ImageOrientationPatient 1\\\\0\\\\0\\\\0.7"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9, 0]}, "lengths 1 and 0.9"),
        ({"PixelSpacing": [0, 0.6]}, "PixelSpacing 0\\\\0.6"),
        ({"ImagePositionPatient": [1, 2, 3]}, "all 12 positions are equal"),
        ({"RescaleSlope": 0}, "RescaleSlope 0"),
    ],
)
def test_d26_absurd_geometry_is_refused_with_tag_and_value(
    tmp_path: Path, tags: dict[str, object], text: str
) -> None:
    assert text.replace("\\\\", "\\") in refusal(series(**tags), tmp_path)


def test_d26_position_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder = saved_series(series(), tmp_path)
    path = folder / "002.dcm"
    path.write_bytes(path.read_bytes().replace(b"35.0", b"nan "))

    with pytest.raises(DataError, match="ImagePositionPatient is nan"):
        read_image(folder)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("TemporalPositionIdentifier", (1, 2)),
        ("EchoTime", (10, 30)),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
    ],
)
def test_d27_several_volumes_are_refused_and_selected(
    tmp_path: Path, tag: str, values: tuple[object, ...]
) -> None:
    second = anatomy()[::-1]
    images = [*series(**{tag: values[0]}), *series(second, **{tag: values[1]})]
    wanted = values[1][-1] if isinstance(values[1], list) else values[1]

    seen = refusal(images, tmp_path / "both")
    image = read_image(tmp_path / "both", policy=ReadPolicy(select={tag: wanted}))  # type: ignore[dict-item]
    alone = read_image(saved_series(series(second), tmp_path / "alone"))

    assert tag in seen
    assert "12 of 12 positions" in seen
    np.testing.assert_array_equal(image.array, alone.array)
    assert any("selected" in text for text in image.applied)


def test_d27_value_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    images = [*series(EchoTime=10), *series(EchoTime=30)]

    assert "EchoTime is 10, 30" in refusal(images, tmp_path, select={"EchoTime": 20})


def test_d28_huge_size_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    with memory_below(50):
        seen = refusal(series(Rows=65535, Columns=65535), tmp_path)

    assert "truncated" in seen


def test_d28_deeply_nested_header_is_read_and_absurd_lengths_are_refused(tmp_path: Path) -> None:
    images = series()
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        inner = outer
    images[0].ReferencedImageSequence = [inner]
    folder = saved_series(images, tmp_path / "nested")
    assert read_image(folder).array.shape == (1, 26, 20, 12)

    path = folder / "004.dcm"
    content = bytearray(path.read_bytes())
    place = content.index(b"\xe0\x7f\x10\x00OW") + 8
    content[place : place + 4] = b"\xf0\xff\xff\xff"
    path.write_bytes(bytes(content[: place + 100]))
    with pytest.raises(DataError, match="truncated: 96 of 1040 bytes"):
        read_image(folder)


def test_d28_deflated_file_that_unpacks_without_end_is_refused_early(tmp_path: Path) -> None:
    image = series()[0]
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(image, tmp_path / "bomb.dcm")
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(80)) + packer.flush()
    path.write_bytes(content[:start] + packed)

    for place in (path, tmp_path):
        with pytest.raises(DataError, match="unpack to more than 6"):
            read_image(place)


def test_mutated_series_are_read_or_refused(tmp_path: Path) -> None:
    folders = [saved_series(series(anatomy(4, 16, 16)), tmp_path / "plain")]
    packed = series(anatomy(4, 16, 16))
    for image in packed:
        image.compress(RLELossless)
    folders.append(saved_series(packed, tmp_path / "packed"))
    folders.append(saved(enhanced(series(anatomy(4, 16, 16))), tmp_path / "enhanced" / "a.dcm").parent)
    random = np.random.default_rng(0)
    refused = 0
    for number in range(240):
        folder = folders[number % 3]
        path = sorted(folder.iterdir())[0]
        whole = path.read_bytes()
        content = bytearray(whole)
        for place in random.integers(128, len(content) - 300, 2):
            content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            refused += 1
            assert read_image(folder, policy=ReadPolicy(on_geometry="resample")).array.dtype == np.float32
            refused -= 1
        path.write_bytes(whole)

    assert refused > 30


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_d15_cut_slice_stops_the_series(tmp_path: Path, share: float) -> None:
    folder = saved_series(series(), tmp_path)
    path = folder / "011.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(DataError) as caught:
        read_image(folder)

    assert "011.dcm" in str(caught.value)


@pytest.mark.parametrize("cut", [40, -700])
def test_d15_each_of_several_cut_slices_is_named_up_to_five(tmp_path: Path, cut: int) -> None:
    folder = saved_series(series(), tmp_path)
    for number in range(1, 8):
        path = folder / f"{number:03}.dcm"
        path.write_bytes(path.read_bytes()[:cut] if cut < 0 else path.read_bytes()[: 132 + cut])

    with pytest.raises(DataError) as caught:
        read_image(folder)

    seen = caught.value.seen
    assert seen.startswith("7 ")
    assert [f"00{number}.dcm" in seen for number in range(8)] == [False, *[True] * 5, False, False]
    assert "2 more" in seen


def test_d15_bytes_after_the_pixels_are_said(tmp_path: Path) -> None:
    folder = saved_series(series(), tmp_path)
    long = folder / "004.dcm"
    plain = read_image(folder)
    long.write_bytes(long.read_bytes() + b"x" * 50)

    volume, picture = read_image(folder), read_image(long)

    assert [text for text in volume.warnings if text not in plain.warnings] == [
        "004.dcm: 50 bytes after the pixels left aside"
    ]
    assert "50 bytes after the pixels left aside" in picture.warnings
    np.testing.assert_array_equal(volume.array, plain.array)


def test_d15_one_byte_of_padding_and_elements_that_may_follow_are_silent(tmp_path: Path) -> None:
    folder = saved_series(series(), tmp_path)
    (folder / "004.dcm").write_bytes((folder / "004.dcm").read_bytes() + b"\0")
    padded = series()[5]
    padded.DataSetTrailingPadding = b"\0" * 20
    saved(padded, folder / "005.dcm")

    assert not [text for text in read_image(folder).warnings if "after" in text]


@pytest.mark.parametrize(("frames", "index"), [("first", 0), ("middle", 2), (5, 4)])
def test_d29_frames_without_position_are_refused_unless_one_is_chosen(
    tmp_path: Path, frames: str | int, index: int
) -> None:
    stored = anatomy(5)
    path = saved(dicom(stored[0], NumberOfFrames=5, PixelData=stored.tobytes()), tmp_path / "cine.dcm")

    with pytest.raises(DataError, match="5 frames, no position"):
        read_image(path)
    image = read_image(path, policy=ReadPolicy(frames=frames))

    np.testing.assert_array_equal(image.array[0], stored[index])
    with pytest.raises(DataError, match="5 frames"):
        read_image(path, policy=ReadPolicy(frames=6))


def test_d30_sizes_and_patients_that_differ_are_refused(tmp_path: Path) -> None:
    sizes = [*series(anatomy(6)), *shifted(series(anatomy(6, 20, 24)), 0, 15)]
    patients = series()
    patients[8].PatientID = "P0417"

    seen = refusal(patients, tmp_path / "patients")

    assert "26 x 20 pixels (000.dcm) and 24 x 20 pixels (006.dcm)" in refusal(sizes, tmp_path / "sizes")
    assert "2 values of PatientID" in seen
    assert "008.dcm" in seen
    assert "P0417" not in seen


def test_pictures_that_share_a_series_are_no_volume(tmp_path: Path) -> None:
    views = [dicom(ramp(top=top), SeriesInstanceUID="1.2.3", InstanceNumber=top) for top in (1000, 2000)]

    assert "2 images without ImagePositionPatient" in refusal(views, tmp_path)


def test_siemens_mosaic_is_refused_with_the_reason(tmp_path: Path) -> None:
    images = series(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])

    assert "mosaic" in refusal(images, tmp_path)


def test_file_that_changes_after_it_was_found_is_refused(tmp_path: Path) -> None:
    folder = saved_series(series(), tmp_path)
    chosen = choose_series(find_series(folder))
    saved(series()[3], folder / "003.dcm")
    with (folder / "003.dcm").open("ab") as file:
        file.write(b"\0\0")

    with pytest.raises(DataError, match="changed while it was read"):
        read_series(chosen)


def test_folder_without_series_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")

    with pytest.raises(DataError, match="no DICOM series"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_series(tmp_path / "absent")
