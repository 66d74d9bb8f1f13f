from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medxfer.data.readers import read_image
from medxfer.errors import DataError
from tests.bounds import memory_below

from .faults import dicom, ramp, saved


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert path.name in caught.value.where
    assert all((caught.value.seen, caught.value.accepted, caught.value.todo))
    return caught.value


def test_d1_monochrome1_is_its_twin_inverted_in_stored_values(tmp_path: Path) -> None:
    stored = ramp(top=3000)
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -3}
    one = dicom((4095 - stored).astype(np.uint16), PhotometricInterpretation="MONOCHROME1", **rescale)

    twin = read_image(saved(dicom(stored, **rescale), tmp_path / "two.dcm"))
    image = read_image(saved(one, tmp_path / "one.dcm"))

    np.testing.assert_array_equal(image.array, twin.array)
    np.testing.assert_allclose(image.array[0], stored * 0.5 - 3)
    assert image.array.dtype == np.float32
    assert "MONOCHROME1 inverted" in image.applied


def test_d1_signed_monochrome1_becomes_minus_one_minus_x(tmp_path: Path) -> None:
    stored = (ramp(top=2000).astype(np.int16) - 1000).astype(np.int16)

    image = read_image(saved(dicom(stored, PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm"))

    np.testing.assert_array_equal(image.array[0], -1 - stored.astype(np.float32))


@pytest.mark.parametrize(
    ("tags", "spacing", "remark"),
    [
        ({}, (0.5, 1.25), ""),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3), "at the detector"),
        ({"PixelSpacing": None, "NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "at the detector"),
        ({"PixelSpacing": None}, None, "no pixel spacing"),
    ],
)
def test_d11_spacing_is_row_then_column_and_its_source_is_said(
    tmp_path: Path, tags: dict[str, object], spacing: tuple[float, float] | None, remark: str
) -> None:
    image = read_image(saved(dicom(ramp(), **tags), tmp_path / "a.dcm"))

    assert image.spacing == spacing
    assert any(remark in text for text in image.warnings) if remark else not image.warnings


def test_d26_spacing_of_zero_is_refused_with_the_tag(tmp_path: Path) -> None:
    assert "PixelSpacing" in refusal(saved(dicom(ramp(), PixelSpacing=[0, 1]), tmp_path / "a.dcm")).seen


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_d13_encodings_give_the_same_array(tmp_path: Path, syntax: UID) -> None:
    data = dicom(ramp())
    data.file_meta.TransferSyntaxUID = syntax

    np.testing.assert_array_equal(read_image(saved(data, tmp_path / "a.dcm")).array[0], ramp())


def test_d13_big_endian_and_rle_give_the_same_array(tmp_path: Path) -> None:
    big = dicom(ramp(), PixelData=ramp().astype(">u2").tobytes())
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big["PixelData"].VR = "OW"
    packed = dicom(ramp())
    packed.compress(RLELossless)

    for name, data in (("big", big), ("rle", packed)):
        np.testing.assert_array_equal(read_image(saved(data, tmp_path / f"{name}.dcm")).array[0], ramp())


def test_d13_file_without_preamble_is_read(tmp_path: Path) -> None:
    data = dicom(ramp())
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    bare = Dataset(data)
    path = tmp_path / "bare.dcm"
    dcmwrite(path, bare, implicit_vr=True, little_endian=True, force_encoding=True)
    assert path.read_bytes()[128:132] != b"DICM"

    np.testing.assert_array_equal(read_image(path).array[0], ramp())


def test_d14_unknown_codec_is_named_by_its_uid(tmp_path: Path) -> None:
    data = dicom(ramp())
    data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.106")

    assert "1.2.840.10008.1.2.4.106" in refusal(saved(data, tmp_path / "a.dcm")).seen


def test_d14_codec_that_is_not_installed_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders import RLELosslessDecoder

    data = dicom(ramp())
    data.compress(RLELossless)
    path = saved(data, tmp_path / "a.dcm")
    monkeypatch.setattr(RLELosslessDecoder, "_available", {})
    monkeypatch.setattr(RLELosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-rle>=2.0",)})

    error = refusal(path)

    assert "RLE Lossless" in error.seen
    assert "pylibjpeg-rle" in error.accepted
    assert "medxfer[dicom]" in error.todo


def test_d15_truncated_pixels_say_how_many_bytes_there_are(tmp_path: Path) -> None:
    whole = ramp().tobytes()

    error = refusal(saved(dicom(ramp(), PixelData=whole[: len(whole) // 2]), tmp_path / "a.dcm"))

    assert f"{len(whole) // 2} of {len(whole)} bytes" in error.seen


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_d15_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, share: float) -> None:
    content = saved(dicom(ramp()), tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(content[: int(len(content) * share)])

    refusal(path)


def test_d15_surplus_bytes_are_left_aside_and_said(tmp_path: Path) -> None:
    image = read_image(saved(dicom(ramp(), PixelData=ramp().tobytes() + b"\0" * 20), tmp_path / "a.dcm"))

    np.testing.assert_array_equal(image.array[0], ramp())
    assert any("20 bytes" in text for text in image.warnings)


def test_d16_file_without_pixels_names_its_kind(tmp_path: Path) -> None:
    report = dicom(ramp(), PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")

    assert "Comprehensive SR" in refusal(saved(report, tmp_path / "a.dcm")).seen


def test_d17_padding_becomes_the_lowest_real_value(tmp_path: Path) -> None:
    stored = ramp(top=1000).astype(np.int16)
    stored[0] = -2000
    data = dicom(stored, bits=16)
    data.add_new("PixelPaddingValue", "SS", -2000)

    image = read_image(saved(data, tmp_path / "a.dcm"))

    assert image.array.min() == stored[1:].min()
    assert any("padding" in text for text in image.applied)


def test_d19_palette_gives_colours_not_indices(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 3]], np.uint8).repeat(16, 0).repeat(16, 1)
    data = dicom(indices, bits=8, PhotometricInterpretation="PALETTE COLOR")
    for name, step in (("Red", 10), ("Green", 20), ("Blue", 30)):
        data.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        table = (np.arange(256, dtype=np.uint16) * step).tobytes()
        data.add_new(f"{name}PaletteColorLookupTableData", "OW", table)

    image = read_image(saved(data, tmp_path / "a.dcm"))

    assert image.array.shape == (3, 32, 32)
    np.testing.assert_array_equal(image.array[:, 31, 31], [30, 60, 90])


def test_d20_planar_forms_are_equal_and_ybr_becomes_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    planes = dicom(colours, bits=8, PlanarConfiguration=1, PixelData=colours.transpose(2, 0, 1).tobytes())
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ybr = (colours @ weights.T + [0, 128, 128]).round().clip(0, 255).astype(np.uint8)

    by_pixel = read_image(saved(dicom(colours, bits=8), tmp_path / "a.dcm")).array
    by_plane = read_image(saved(planes, tmp_path / "b.dcm")).array
    converted = read_image(
        saved(dicom(ybr, bits=8, PhotometricInterpretation="YBR_FULL"), tmp_path / "c.dcm")
    ).array

    np.testing.assert_array_equal(by_pixel, colours.transpose(2, 0, 1))
    np.testing.assert_array_equal(by_plane, by_pixel)
    assert np.abs(converted - by_pixel).max() <= 2


def test_d21_junk_above_the_high_bit_is_masked(tmp_path: Path) -> None:
    image = read_image(saved(dicom(ramp() | np.uint16(1 << 13)), tmp_path / "a.dcm"))

    np.testing.assert_array_equal(image.array[0], ramp())


@pytest.mark.parametrize("slope", [False, True])
def test_d22_modality_table_goes_before_the_slope(tmp_path: Path, slope: bool) -> None:
    stored = ramp(top=255, dtype=np.uint8)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    table = (np.arange(256) ** 1.5).astype(np.uint16)
    item.add_new("LUTData", "OW", table.tobytes())
    data = dicom(stored, bits=8, ModalityLUTSequence=[item])
    if slope:
        data.RescaleSlope, data.RescaleIntercept = 2, 0

    image = read_image(saved(data, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(image.array[0], table[stored])
    assert bool(image.warnings) is slope


def test_d24_dirty_tags_that_are_not_needed_do_no_harm(tmp_path: Path) -> None:
    data = dicom(ramp())
    path = saved(data, tmp_path / "a.dcm")
    content = path.read_bytes()
    extra = b"\x10\x00\x10\x10AS\x06\x000xx9  " + b"\x10\x00\x30\x00DA\x0a\x0007.03.2019"
    place = content.index(b"\x10\x00\x20\x00LO")
    path.write_bytes(content[:place] + extra[14:] + content[place:])

    np.testing.assert_array_equal(read_image(path).array[0], ramp())


def test_d24_needed_tag_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = saved(dicom(ramp(), RescaleSlope="1.5", RescaleIntercept="0"), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.5 ", b"x.y "))

    assert "RescaleSlope" in refusal(path).seen


def test_d28_huge_size_in_a_small_file_is_refused_at_once(tmp_path: Path) -> None:
    path = saved(dicom(ramp(), Rows=65535, Columns=65535), tmp_path / "a.dcm")

    with memory_below(50):
        error = refusal(path)

    assert "65535 x 65535" in error.seen


def test_d28_element_length_beyond_the_file_is_refused_without_allocating_it(tmp_path: Path) -> None:
    path = saved(dicom(ramp()), tmp_path / "a.dcm")
    content = bytearray(path.read_bytes())
    place = content.index(b"\xe0\x7f\x10\x00OW") + 8
    content[place : place + 4] = b"\xf0\xff\xff\xff"
    path.write_bytes(bytes(content[: place + 1000]))

    refusal(path)


def test_d29_several_frames_are_refused_with_their_number(tmp_path: Path) -> None:
    data = dicom(ramp(), NumberOfFrames=3, PixelData=ramp().tobytes() * 3)

    assert "3 frames" in refusal(saved(data, tmp_path / "a.dcm")).seen


def test_high_bit_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert "HighBit 15" in refusal(saved(dicom(ramp(), HighBit=15), tmp_path / "a.dcm")).seen


def test_float_pixels_with_nan_are_refused_with_count_and_place(tmp_path: Path) -> None:
    values = np.ones((16, 20), np.float32)
    values[3, 7] = np.nan
    data = dicom(ramp(16, 20), PixelData=None, BitsAllocated=32, BitsStored=None, HighBit=None)
    data.FloatPixelData = values.tobytes()
    del data.PixelRepresentation

    error = refusal(saved(data, tmp_path / "a.dcm"))

    assert "1 value is" in error.seen
    assert "row 3, column 7" in error.seen


def test_messages_hold_no_patient_data(tmp_path: Path) -> None:
    data = dicom(ramp(), PatientID="P0417", PatientName="Quill^Zephyrine", RescaleSlope=0, RescaleIntercept=0)

    text = str(refusal(saved(data, tmp_path / "a.dcm")))

    assert "P0417" not in text
    assert "Quill" not in text


def test_real_dicom_files_read_as_expected(shared: Path) -> None:
    expected = json.loads((shared / "data/dicom/expected.json").read_text())["shared"]
    compared = 0
    for name, facts in expected.items():
        path = shared / "data/dicom" / name
        values = facts.get("value_min_max_mean")
        if not name.startswith("single/") or not values or not path.is_file() or "mosaic" in facts["tests"]:
            continue
        image = read_image(path)
        if image.applied[:1] == ("MONOCHROME1 inverted",) or any("padding" in text for text in image.applied):
            continue  # the table holds stored values
        found = [image.array.min(), image.array.max(), image.array.mean()]
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=2e-3, err_msg=name)
        compared += 1

    assert compared >= 8
