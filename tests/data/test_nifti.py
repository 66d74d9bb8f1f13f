from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medxfer.data.image import Image
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import decode, read_image
from medxfer.errors import DataError
from tests.bounds import memory_below

OBLIQUE = np.array(
    [[0.725, -0.327, 0.328, -20], [0.338, 0.7, -0.704, 15], [0, 0.207, 2.898, 40], [0, 0, 0, 1]]
)


def volume(shape: tuple[int, ...] = (5, 6, 7), dtype: Any = np.int16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def written(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray | None = None,
    kind: Any = nibabel.Nifti1Image,
    **fields: Any,
) -> Path:
    """A file as nibabel writes it; `fields` replace header fields afterwards."""
    kind(array, np.eye(4) if affine is None else affine).to_filename(path)
    return with_fields(path, **fields) if fields else path


def with_fields(path: Path, **fields: Any) -> Path:
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    header = nibabel.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + content[348:]
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def refusal(path: Path, **policy: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_image(path, policy=ReadPolicy(**policy))
    assert path.name in caught.value.where
    assert all((caught.value.seen, caught.value.accepted, caught.value.todo))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def same(one: Image, other: Image) -> None:
    np.testing.assert_array_equal(one.array, other.array)
    assert one.affine is not None
    assert other.affine is not None
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


@given(
    axes=some.permutations(range(3)),
    signs=some.tuples(*[some.sampled_from((-1.0, 1.0))] * 3),
    sizes=some.tuples(*[some.floats(0.3, 5)] * 3),
    dtype=some.sampled_from(["<i2", ">i2", "<f4", ">f4", "u1", "<u2", "<i4", "<f8"]),
    packed=some.booleans(),
)
@settings(max_examples=40)
def test_written_by_nibabel_every_value_is_read_at_its_place(
    axes: list[int], signs: tuple[float, ...], sizes: tuple[float, ...], dtype: str, packed: bool
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(sizes) * signs)[:, axes]
    affine[:3, 3] = (3, -20, 7)
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    content = nibabel.Nifti1Image(array, affine).to_bytes()

    image = decode(Path("a.nii.gz" if packed else "a.nii"), gzip.compress(content, 1) if packed else content)

    assert image.affine is not None
    assert image.array.dtype == np.float32
    assert image.array.flags.c_contiguous
    to_old = np.linalg.inv(affine) @ image.affine
    for index in np.ndindex(image.array.shape[1:]):
        old = tuple(np.rint(to_old[:3, :3] @ index + to_old[:3, 3]).astype(int))
        assert image.array[(0, *index)] == array[old]


def test_tn1_left_handed_storage_is_turned_and_said(tmp_path: Path) -> None:
    array = volume()
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = array.shape[0] - 1

    image = read_image(written(tmp_path / "las.nii.gz", array[::-1], mirrored))

    same(image, read_image(written(tmp_path / "ras.nii.gz", array)))
    assert "axes LAS turned to RAS" in image.applied
    assert not image.warnings


def test_tn2_oblique_is_not_resampled(tmp_path: Path) -> None:
    array = volume()

    image = read_image(written(tmp_path / "a.nii", array, OBLIQUE), policy=ReadPolicy(on_geometry="warn"))

    np.testing.assert_array_equal(image.array[0], array)
    assert image.affine is not None
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_tn3_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.nii", volume(), scl_slope=0.25, scl_inter=-8))

    np.testing.assert_array_equal(image.array[0], volume() * 0.25 - 8)
    assert "rescale 0.25 * x - 8" in image.applied


def test_tn4_slope_zero_is_no_scaling_and_no_offset(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.nii", volume(), scl_slope=0, scl_inter=5))

    np.testing.assert_array_equal(image.array[0], volume())
    assert not image.warnings


def test_tn5_slope_nan_is_no_scaling_and_warned(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.nii", volume(), scl_slope=np.nan, scl_inter=5))

    np.testing.assert_array_equal(image.array[0], volume())
    assert any("scl_slope nan" in text for text in image.warnings)
    assert "scl_inter inf" in refusal(with_fields(tmp_path / "a.nii", scl_slope=2, scl_inter=np.inf)).seen


def test_tn6_qform_alone_is_used(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), None)
    image.set_qform(np.diag([2.0, 3, 4, 1]), 1)
    image.set_sform(None, 0)
    image.to_filename(tmp_path / "a.nii")

    read = read_image(tmp_path / "a.nii")

    assert read.spacing == pytest.approx((2, 3, 4))
    assert not read.warnings


def test_tn7_without_forms_orientation_is_unknown(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.nii", volume(), sform_code=0, qform_code=0))

    assert any("orientation unknown" in text for text in image.warnings)


def test_tn8_sform_wins_over_another_qform_and_both_are_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    moved = np.eye(4)
    moved[:3, 3] = (4, 5, 6)
    image.set_sform(np.eye(4), 2)
    image.set_qform(moved, 1)
    image.to_filename(tmp_path / "a.nii")

    read = read_image(tmp_path / "a.nii")

    np.testing.assert_allclose(read.affine, np.eye(4))
    (remark,) = read.warnings
    assert "sform [1 0 0 0;" in remark
    assert "qform [1 0 0 4;" in remark


def test_tn8_other_voxel_sizes_in_pixdim_are_told(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2, 2, 1])

    read = read_image(
        written(tmp_path / "a.nii", volume(), affine, qform_code=0, pixdim=[1, 1, 1, 3, 1, 0, 0, 0])
    )

    assert read.spacing == (2, 2, 2)
    assert any("1 x 1 x 3" in text for text in read.warnings)


def test_tn8_sheared_sform_goes_by_the_geometry_policy(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(14))
    path = written(tmp_path / "a.nii", volume(), affine)

    assert "14.00 degrees" in refusal(path).seen
    kept = read_image(path, policy=ReadPolicy(on_geometry="warn"))
    np.testing.assert_allclose(kept.affine, affine, atol=1e-6)
    assert any("sheared" in text for text in kept.warnings)
    straight = read_image(path, policy=ReadPolicy(on_geometry="resample"))
    assert straight.affine is not None
    np.testing.assert_allclose(straight.affine[:3, :3], np.eye(3), atol=1e-6)


def test_tn9_several_volumes_are_refused_or_one_is_chosen(tmp_path: Path) -> None:
    array = volume((4, 5, 6, 3))
    path = written(tmp_path / "a.nii.gz", array)

    assert "3 volumes" in refusal(path).seen
    assert "0 to 2" in refusal(path, volume=3).accepted
    for index in range(3):
        image = read_image(path, policy=ReadPolicy(volume=index))
        np.testing.assert_array_equal(image.array[0], array[..., index])
    assert "volume 2 of 3 (from 0)" in image.applied


def test_tn9_a_last_axis_of_one_is_dropped_and_said(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.nii", volume((4, 5, 6, 1))))

    assert image.array.shape == (1, 4, 5, 6)
    assert any("dropped" in text for text in image.applied)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_tn10_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    for name in ("a.nii", "a.nii.gz"):
        path = written(tmp_path / name, volume((20, 20, 20)))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

        refusal(path)


def test_tn10_a_gzip_file_that_lost_only_its_checksum_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii.gz", volume())
    path.write_bytes(path.read_bytes()[:-4])

    assert "truncated" in refusal(path).seen


def test_tn10_a_changed_byte_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    content = bytearray(gzip.compress(nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes(), 0))
    content[-40] ^= 1
    path.write_bytes(content)

    assert "damaged" in refusal(path).seen


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_tn11_header_that_asks_for_more_than_the_file_holds_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / name, volume(), dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])

    with memory_below(10):
        error = refusal(path)

    assert "32000 x 32000 x 32000" in error.seen


def test_tn11_limit_of_decoded_bytes_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.nii", volume())
    monkeypatch.setenv("MEDXFER_MAX_DECODED_BYTES", "800")

    assert "5 x 6 x 7" in refusal(path).seen


def test_tn12_zeros_after_the_voxels_are_not_unpacked(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(content)
        for _ in range(64):
            file.write(bytes(2**20))

    with memory_below(10):
        image = read_image(path)

    np.testing.assert_array_equal(image.array[0], volume())
    assert any("after the voxels" in text for text in image.warnings)


def test_tn13_rgb_becomes_channels_and_alpha_is_dropped(tmp_path: Path) -> None:
    colours = volume((4, 5, 6, 4), np.uint8)
    for parts in (3, 4):
        kinds = [(name, "u1") for name in "RGBA"[:parts]]
        structured = np.ascontiguousarray(colours[..., :parts]).view(kinds)[..., 0]

        image = read_image(written(tmp_path / f"{parts}.nii", structured))

        np.testing.assert_array_equal(image.array, colours[..., :3].transpose(3, 0, 1, 2))
        assert ("alpha dropped" in image.applied) == (parts == 4)


def test_tn13_complex_and_bits_are_refused_by_name(tmp_path: Path) -> None:
    assert "complex64" in refusal(written(tmp_path / "a.nii", volume(dtype=np.complex64))).seen
    assert "1 bit" in refusal(written(tmp_path / "b.nii", volume(), datatype=1, bitpix=1)).seen
    assert "bitpix" in refusal(written(tmp_path / "c.nii", volume(), bitpix=8)).seen
    assert "datatype 77" in refusal(written(tmp_path / "d.nii", volume(), datatype=77)).seen


def test_tn13_pair_nifti2_and_big_endian_give_the_same(tmp_path: Path) -> None:
    plain = read_image(written(tmp_path / "a.nii", volume()))

    same(read_image(written(tmp_path / "two.nii", volume(), kind=nibabel.Nifti2Image)), plain)
    same(read_image(written(tmp_path / "big.nii", volume().astype(">i2"))), plain)
    big = nibabel.Nifti1Image(volume(), np.eye(4), header=nibabel.Nifti1Header(endianness=">"))
    big.to_filename(tmp_path / "swapped.nii")
    same(read_image(tmp_path / "swapped.nii"), plain)
    written(tmp_path / "pair.hdr", volume(), kind=nibabel.Nifti1Pair)
    same(read_image(tmp_path / "pair.hdr"), plain)
    same(read_image(tmp_path / "pair.img"), plain)


def test_tn13_half_a_pair_and_analyze_are_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path / "pair.hdr", volume(), kind=nibabel.Nifti1Pair)
    (tmp_path / "pair.img").unlink()
    assert ".img" in refusal(tmp_path / "pair.hdr").seen

    nibabel.AnalyzeImage(volume(), np.eye(4)).to_filename(tmp_path / "old.hdr")
    assert "Analyze" in refusal(tmp_path / "old.hdr").seen


@pytest.mark.parametrize(("code", "factor"), [(1, 1000), (2, 1), (3, 0.001)])
def test_units_become_millimetres(tmp_path: Path, code: int, factor: float) -> None:
    affine = np.diag([2 / factor, 2 / factor, 2 / factor, 1])

    image = read_image(written(tmp_path / "a.nii", volume(), affine, xyzt_units=code))

    assert image.spacing == pytest.approx((2, 2, 2))


def test_d26_sform_that_places_nothing_is_refused(tmp_path: Path) -> None:
    assert "NaN" in refusal(written(tmp_path / "a.nii", volume(), srow_x=[np.nan, 0, 0, 0])).seen
    assert "size" in refusal(written(tmp_path / "b.nii", volume(), srow_z=[0, 0, 0, 0])).seen
    damaged = {"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}
    assert "quaternion" in refusal(written(tmp_path / "c.nii", volume(), **damaged)).seen


@pytest.mark.parametrize("dim", [[0] * 8, [9] * 8, [3, 5, -6, 7, 1, 1, 1, 1], [3, 5, 0, 7, 1, 1, 1, 1]])
def test_dims_that_are_none_are_refused(tmp_path: Path, dim: list[int]) -> None:
    refusal(written(tmp_path / "a.nii", volume(), dim=dim))


def test_tx1_nan_is_refused_with_count_and_place_or_zeroed(tmp_path: Path) -> None:
    array = volume(dtype=np.float32)
    array[1, 2, 3] = np.nan
    array[4, 5, 6] = np.inf
    path = written(tmp_path / "a.nii", array)

    error = refusal(path)
    zeroed = read_image(path, policy=ReadPolicy(on_nonfinite="zero"))

    assert "2 values" in error.seen
    assert "x 1, y 2, z 3" in error.seen
    assert zeroed.array[0, 1, 2, 3] == zeroed.array[0, 4, 5, 6] == 0
    assert np.isfinite(zeroed.array).all()
    assert any("set to 0" in text for text in zeroed.warnings)


def test_doubles_beyond_float32_are_refused_and_large_whole_numbers_told(tmp_path: Path) -> None:
    huge = volume(dtype=np.float64)
    huge[0, 0, 0] = 1e300
    assert "1 value is" in refusal(written(tmp_path / "a.nii", huge)).seen

    ids = volume(dtype=np.int32)
    ids[0, 0, 0] = 2**24 + 1
    assert any("rounded" in text for text in read_image(written(tmp_path / "b.nii", ids)).warnings)


def test_td2_name_that_says_otherwise_is_remarked(tmp_path: Path) -> None:
    written(tmp_path / "a.nii", volume()).rename(tmp_path / "a.dcm")

    assert any("content is NIfTI" in text for text in read_image(tmp_path / "a.dcm").warnings)


def test_td12_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.nii", volume())
    original = os.fstat

    def touched(handle: int) -> os.stat_result:
        os.utime(path, (1, 1))
        return original(handle)

    monkeypatch.setattr(os, "fstat", touched)

    assert "changed" in refusal(path).seen


@given(data=some.data())
@settings(max_examples=100)
def test_flipped_bits_of_the_header_end_in_an_image_or_a_refusal(data: some.DataObject) -> None:
    content = bytearray(nibabel.Nifti1Image(volume((3, 4, 5)), np.eye(4)).to_bytes())
    for _ in range(data.draw(some.integers(1, 3))):
        content[data.draw(some.integers(0, 351))] ^= 1 << data.draw(some.integers(0, 7))

    try:
        image = decode(Path("a.nii"), bytes(content))
    except DataError as error:
        image, fault = None, error.seen
    if image is None:
        assert "damaged" not in fault  # a fault that nobody thought of
        return
    assert np.isfinite(image.array).all()
    assert image.array.ndim in (3, 4)


REFUSED = {
    "d_nan_inf.nii.gz": "3 values",
    "resampled_anat_moved.nii": "153 values",
    "d_sheared_sform.nii.gz": "degrees",
    "d_truncated.nii.gz": "truncated",
    "d_zero_bytes.nii.gz": "0 bytes",
    "example4d.nii.gz": "2 volumes",
    "example_nifti2.nii.gz": "2 volumes",
    "functional.nii": "20 volumes",
}


def test_real_files_give_the_values_of_the_table(shared: Path) -> None:
    root = shared / "data" / "nifti"
    table = json.loads((root / "expected.json").read_text())
    assert len(table) == 23
    for name, expected in table.items():
        if name in REFUSED:
            assert REFUSED[name] in refusal(root / name).seen
            continue
        image = read_image(root / name)
        file = nibabel.as_closest_canonical(nibabel.load(root / name))
        assert image.affine is not None
        np.testing.assert_allclose(image.affine, file.affine, atol=1e-4)
        assert image.array.shape[1:] == file.shape[:3]
        assert bool(image.warnings) == (name in ("d_no_form.nii.gz", "d_qform_sform_disagree.nii.gz"))
        if expected["finite_min_max_mean"] != "rgb24":
            figures = (image.array.min(), image.array.max(), image.array.mean(dtype=np.float64))
            assert figures == pytest.approx(expected["finite_min_max_mean"], rel=1e-5, abs=1e-4)
            np.testing.assert_array_equal(image.array[0], np.asarray(file.dataobj).reshape(file.shape[:3]))


def test_real_files_that_are_one_image_in_several_forms_are_equal(shared: Path) -> None:
    root = shared / "data" / "nifti"
    truth = read_image(root / "d_qform_only.nii")

    for name in ("d_big_endian.nii", "d_4d_one_volume.nii.gz", "d_qform_sform_disagree.nii.gz"):
        same(read_image(root / name), truth)
    # Its header places it 1 mm further left.
    np.testing.assert_array_equal(read_image(root / "d_las.nii.gz").array, truth.array)
    scaled = read_image(root / "d_scl_slope.nii")
    np.testing.assert_array_equal(scaled.array, truth.array * 0.25 - 50)


def test_real_4d_files_are_read_one_volume_at_a_time(shared: Path) -> None:
    root = shared / "data" / "nifti"
    for name, index in (("functional.nii", 7), ("example_nifti2.nii.gz", 1), ("example4d.nii.gz", 0)):
        image = read_image(root / name, policy=ReadPolicy(volume=index))
        file = nibabel.as_closest_canonical(nibabel.load(root / name))

        expected = np.asarray(file.dataobj)[..., index].astype(np.float32)
        np.testing.assert_array_equal(image.array[0], expected)


def test_gzip_members_that_follow_each_other_are_one_file(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(512))

    np.testing.assert_array_equal(read_image(path).array[0], volume())


def test_tn9_all_volumes_are_channels_where_the_policy_says_so(tmp_path: Path) -> None:
    voxels = np.arange(5 * 6 * 7 * 3, dtype=np.int16).reshape(5, 6, 7, 3)
    path = tmp_path / "several.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 2.0, 3.0, 1.0])), path)

    image = read_image(path, policy=ReadPolicy(volume="channels"))

    np.testing.assert_array_equal(image.array, np.moveaxis(voxels[::-1], -1, 0))
    assert "3 volumes as channels" in image.applied
