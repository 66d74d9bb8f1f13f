"""A mask that was made on what a reader gave lies in the input's own file grid again, voxel for voxel."""

from __future__ import annotations

import gzip
import itertools
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from medxfer.data.formats.grids import SourceGrid, source_grid
from medxfer.data.mask_file import read_mask
from medxfer.data.placed import Placed, placed
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import read_image
from medxfer.data.regrid import decided_on_grid, onto_grid, planes_on_grid
from medxfer.data.steps.spatial import FitTo, Resample
from medxfer.data.writers import (
    palette,
    volume_row,
    write_mask,
    write_nifti,
    write_picture,
    write_probabilities,
)
from medxfer.errors import ConfigError, DataError

from .faults import picture, ramp
from .phantom import hand, rotation

CLASSES = ["palm", "thumb", "tips"]
AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
SIZES = (0.7, 1.9, 3.2)


@pytest.fixture(scope="module")
def itk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ITK with what the tests use of it: it warns, and dies of its warnings, while it loads."""
    place = tmp_path_factory.mktemp("itk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import itk as loaded

        for kind in (np.int16, np.uint8, np.float32):
            for name in ("a.nrrd", "a.mha", "a.nii.gz"):
                loaded.imwrite(loaded.image_from_array(np.zeros((2, 2, 2), kind)), str(place / name))
                loaded.array_from_image(loaded.imread(str(place / name)))
        loaded.array_from_matrix(loaded.matrix_from_array(np.eye(3)))
    return loaded


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], turn: np.ndarray | None = None) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(signs) @ np.diag(SIZES))[:, order]
    if turn is not None:
        affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (-31.5, 12.25, 140.0)
    return affine


def written(path: Path, values: np.ndarray, affine: np.ndarray, kind: type = nibabel.Nifti1Image) -> Path:
    image = kind(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=2)
    image.header["descrip"] = b"Jane Doe"
    nibabel.save(image, path)
    return path


def there_and_back(path: Path) -> tuple[np.ndarray, SourceGrid]:
    """The values of a file as a mask on the reader's grid, brought back to the file's."""
    image = placed(read_image(path))
    grid = source_grid(path)
    return onto_grid(image.values[0].numpy().astype(np.uint8), image.affine, grid), grid


@pytest.mark.parametrize("turn", [None, rotation()], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), AXES)
def test_a_nifti_in_any_of_48_orders_of_axes_gets_its_mask_back(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...], turn: np.ndarray | None
) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of(order, signs, turn))

    mask, grid = there_and_back(path)
    out = write_nifti(mask, grid, tmp_path / "mask.nii")

    source, read = nibabel.load(path), nibabel.load(out)
    np.testing.assert_array_equal(np.asarray(read.dataobj), hand())
    np.testing.assert_array_equal(read.affine, source.affine)
    assert read.get_data_dtype() == np.uint8
    for name in (
        "dim",
        "pixdim",
        "xyzt_units",
        "sform_code",
        "qform_code",
        "quatern_b",
        "qoffset_x",
        "srow_x",
    ):
        np.testing.assert_array_equal(read.header[name], source.header[name], err_msg=name)
    ours = read_image(out)
    np.testing.assert_array_equal(ours.array, read_image(path).array)
    assert not ours.warnings


def test_other_programs_see_the_mask_at_its_place(tmp_path: Path, itk: Any) -> None:
    from monai.transforms import LoadImage

    path = written(
        tmp_path / "a.nii.gz", hand().astype(np.float32), affine_of((2, 0, 1), (1, -1, -1), rotation())
    )

    mask, grid = there_and_back(path)
    (out,) = write_mask(mask, grid, tmp_path / "out", "a", classes=CLASSES)

    assert out == tmp_path / "out" / "a.nii.gz"
    for name in ("NibabelReader", "ITKReader"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders for DICOM that are not installed
            load = LoadImage(reader=name)
        image, label = load(path), load(out)
        assert torch.equal(torch.as_tensor(image), torch.as_tensor(label).float())
        assert torch.allclose(image.affine, label.affine)
    theirs, original = itk.imread(str(out)), itk.imread(str(path))
    np.testing.assert_array_equal(itk.array_from_image(theirs), itk.array_from_image(original))
    assert theirs.GetOrigin() == original.GetOrigin()
    assert theirs.GetDirection() == original.GetDirection()


def test_the_header_keeps_units_and_version_and_loses_names(tmp_path: Path) -> None:
    affine = affine_of((0, 1, 2), (1, 1, 1))
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine, nibabel.Nifti2Image)
    content = bytearray(path.read_bytes())

    mask, grid = there_and_back(path)
    out = write_nifti(mask, grid, tmp_path / "m.nii.gz")

    header = nibabel.load(out).header
    assert isinstance(nibabel.load(out), nibabel.Nifti2Image)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 2)
    assert b"Jane Doe" in content
    assert b"Jane Doe" not in gzip.decompress(out.read_bytes())
    assert out.read_bytes() == write_nifti(mask, grid, tmp_path / "again.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "change", ["big endian", "metres", "pair", "scaled", "picture", "four axes", "no codes"]
)
def test_odd_niftis_get_their_mask_back(tmp_path: Path, change: str) -> None:
    affine, values = affine_of((1, 2, 0), (-1, 1, 1)), hand().astype(np.int16)
    policy, expected = ReadPolicy(), hand()
    image = nibabel.Nifti1Image(values, affine)
    path = tmp_path / "a.nii"
    if change == "big endian":
        image = nibabel.Nifti1Image(values.astype(">i2"), affine, nibabel.Nifti1Header(endianness=">"))
    if change == "metres":
        small = affine.copy()
        small[:3] /= 1000
        image = nibabel.Nifti1Image(values, small)
        image.header.set_xyzt_units("meter")
    if change == "pair":
        image, path = nibabel.Nifti1Pair(values, affine), tmp_path / "a.img"
    if change == "scaled":
        image.header.set_slope_inter(1.0, 0.0)
        image.header["cal_max"] = 7
    if change == "picture":
        image, expected = nibabel.Nifti1Image(values[:, :, 3], affine), expected[:, :, 3]
    if change == "four axes":
        image = nibabel.Nifti1Image(np.stack([values, 0 * values], axis=-1), affine)
        policy = ReadPolicy(volume=0)
    if change == "no codes":
        image = nibabel.Nifti1Image(values, None)
    nibabel.save(image, path)

    found = placed(read_image(path, policy=policy))
    grid = source_grid(path, policy=policy)
    mask = onto_grid(found.values[0].numpy().astype(np.uint8), found.affine, grid)
    read = nibabel.load(write_nifti(mask, grid, tmp_path / "m.nii"))

    source = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(read.dataobj), expected)
    np.testing.assert_array_equal(read.affine, source.affine)
    assert read.header["xyzt_units"] == source.header["xyzt_units"]
    np.testing.assert_array_equal(read.header["pixdim"][:4], source.header["pixdim"][:4])
    assert float(read.header["cal_max"]) == 0


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_volumes_of_itk_get_a_nifti_at_their_place(tmp_path: Path, ending: str, itk: Any) -> None:
    path = tmp_path / f"a{ending}"
    image = itk.image_from_array(hand().astype(np.int16))
    image.SetSpacing([0.7, 1.9, 3.2])
    image.SetOrigin([10.0, -20.0, 30.0])
    image.SetDirection(itk.matrix_from_array(rotation()))
    itk.imwrite(image, str(path))

    mask, grid = there_and_back(path)
    out = write_nifti(mask, grid, tmp_path / "m.nii.gz")

    read = itk.imread(str(out))
    np.testing.assert_array_equal(itk.array_from_image(read), hand())
    np.testing.assert_allclose(list(read.GetOrigin()), [10.0, -20.0, 30.0], atol=1e-4)
    np.testing.assert_allclose(itk.array_from_matrix(read.GetDirection()), rotation(), atol=1e-5)
    np.testing.assert_array_equal(read_image(out).array, read_image(path).array)


def test_overlapping_classes_are_a_volume_each(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of((1, 0, 2), (1, 1, -1)))
    image, grid = placed(read_image(path)), source_grid(path)
    values = image.values[0].numpy()
    stack = np.stack([values > 0, values == 2])

    out = write_nifti(onto_grid(stack, image.affine, grid), grid, tmp_path / "m.nii.gz")

    read = np.asarray(nibabel.load(out).dataobj)
    assert read.shape == (*hand().shape, 2)
    np.testing.assert_array_equal(read[..., 0], hand() > 0)
    np.testing.assert_array_equal(read[..., 1], hand() == 2)


def test_a_crop_comes_back_to_its_place_with_background_around(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of((2, 1, 0), (-1, 1, -1), rotation()))
    image, grid = placed(read_image(path)), source_grid(path)

    fitted = FitTo((6, 40, 5))(image)
    back = onto_grid(fitted.values[0].numpy().astype(np.uint8), fitted.affine, grid)

    assert 0 < np.count_nonzero(back) < np.count_nonzero(hand())
    np.testing.assert_array_equal(back[back > 0], hand()[back > 0])
    box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(back))
    np.testing.assert_array_equal(back[box], hand()[box])


@pytest.mark.parametrize("factor", [2, 3])
def test_a_finer_grid_comes_back_exactly(tmp_path: Path, factor: int) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of((1, 2, 0), (1, -1, 1)))
    image, grid = placed(read_image(path)), source_grid(path)

    fine = image.values.repeat_interleave(factor, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    finer = image.scaled(fine)

    np.testing.assert_array_equal(
        onto_grid(finer.values[0].numpy().astype(np.uint8), finer.affine, grid), hand()
    )


def ball(shape: tuple[int, int, int], affine: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """How far inside of a ball in space each voxel lies, as a probability."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1)
    inside: np.ndarray = np.clip(0.5 + (radius - away) / 4, 0, 1)
    return inside


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_probabilities_resampled_then_decided_are_nearer_than_decisions_resampled(tmp_path: Path) -> None:
    affine = affine_of((1, 0, 2), (-1, 1, 1), rotation())
    path = written(tmp_path / "a.nii", np.zeros((40, 50, 30), np.int16), affine)
    image, grid = placed(read_image(path)), source_grid(path)
    centre = affine[:3, :3] @ (20, 25, 15) + affine[:3, 3]
    truth = ball(grid.shape, grid.affine, centre, 15.0) > 0.5
    coarse = Resample((4.0, 4.0, 4.0))(image)
    found = ball(coarse.shape, coarse.affine, centre, 15.0).astype(np.float32)
    both = np.stack([1 - found, found])

    fine = decided_on_grid(both, coarse.affine, grid)
    regions = decided_on_grid(found[None], coarse.affine, grid, threshold=0.5)
    rough = onto_grid((found > 0.5).astype(np.uint8), coarse.affine, grid)

    assert fine.shape == grid.shape
    assert dice(fine == 1, truth) > 0.97 > dice(rough == 1, truth)
    assert (regions[0] != (fine == 1)).sum() <= 2


@pytest.mark.parametrize("turn", [np.eye(3), rotation()], ids=["parallel", "aslant"])
def test_probabilities_are_linear_in_space_and_zero_outside(tmp_path: Path, turn: np.ndarray) -> None:
    """Of values that grow evenly in space every voxel of the file gets exactly those of its own place."""
    path = written(tmp_path / "a.nii", np.zeros((9, 20, 14), np.int16), affine_of((0, 1, 2), (1, 1, 1)))
    grid = source_grid(path)
    slope, affine = np.array([0.3, -0.2, 0.1]), np.eye(4)
    affine[:3, :3] = turn * 2.0
    affine[:3, 3] = grid.affine[:3, :3] @ (4, 10, 6) + grid.affine[:3, 3] - affine[:3, :3] @ (6, 6, 6)
    index = np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), axis=-1)
    values = ((index @ affine[:3, :3].T + affine[:3, 3]) @ slope).astype(np.float32)

    planes = np.stack([plane[0] for plane in planes_on_grid(values[None], affine, grid)], axis=-1)

    own = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    space = own @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    places = (space - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((places >= 0) & (places <= 12)).all(axis=-1)
    outside = ((places < -0.51) | (places > 12.51)).any(axis=-1)
    assert inside.sum() > 100
    assert outside.any()
    np.testing.assert_allclose(planes[inside], (space @ slope)[inside], atol=1e-3)
    assert not planes[outside].any()


def test_grids_aslant_take_the_nearest_voxel(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", np.zeros((9, 8, 7), np.int16), affine_of((0, 2, 1), (1, -1, 1)))
    grid = source_grid(path)
    affine = np.eye(4)
    affine[:3, :3] = rotation()
    affine[:3, 3] = grid.affine[:3, :3] @ (4, 4, 3) + grid.affine[:3, 3] - affine[:3, :3] @ (7, 5, 4)

    back = onto_grid(hand(), affine, grid)

    to_labels = np.linalg.inv(affine) @ grid.affine
    for index in np.ndindex(*grid.shape):
        place = np.floor(to_labels[:3, :3] @ index + to_labels[:3, 3] + 0.5).astype(int)
        inside = (place >= 0).all() and (place < hand().shape).all()
        assert back[index] == (hand()[tuple(place)] if inside else 0)


def test_probabilities_are_written_on_the_inputs_grid(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii.gz", hand().astype(np.int16), affine_of((2, 0, 1), (1, -1, 1)))
    image, grid = placed(read_image(path)), source_grid(path)
    found = np.stack([(image.values[0].numpy() == one) * 0.75 for one in range(4)]).astype(np.float32)

    out = write_probabilities(found, image.affine, grid, tmp_path / "p.nii.gz")

    read = nibabel.load(out)
    assert read.shape == (*hand().shape, 4)
    np.testing.assert_array_equal(read.affine, nibabel.load(path).affine)
    np.testing.assert_allclose(read.get_fdata()[..., 2], (hand() == 2) * 0.75)


def test_a_picture_gets_a_png_of_class_numbers_as_displayed(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # stored lying on its side
    path = picture(tmp_path / "a.jpg", ramp(24, 32, np.uint8, 255), exif=exif)
    image, grid = placed(read_image(path)), source_grid(path)
    assert grid.shape == (32, 24)
    mask = np.zeros((32, 24), np.uint8)
    mask[3:9, 4:20], mask[12:15, 1:4] = 1, 2

    back = onto_grid(mask, image.affine, grid)
    (out,) = write_mask(back, grid, tmp_path, "m", classes=["a", "b"])
    parts = write_mask(np.stack([mask > 0, mask > 1]), grid, tmp_path, "r", classes=["a/1", "b"])

    with Pillow.open(out) as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read), mask)
    assert [part.name for part in parts] == ["r_a_1.png", "r_b.png"]
    assert volume_row(back, grid, ["a", "b"]) == {"pixels_a": 96.0, "pixels_b": 9.0}


def test_every_class_number_of_a_png_is_read_back_and_none_looks_like_another(tmp_path: Path) -> None:
    colours = np.reshape(palette(), (256, 3))
    plane = np.zeros((16, 16), np.uint8)

    for number in range(256):
        plane[2:5, 3:9] = number
        back = read_mask(write_picture(plane, tmp_path / "a.png")).array
        np.testing.assert_array_equal(back[0], plane)

    apart = np.abs(colours[:13, None] - colours[None, :13]).sum(-1) + 999 * np.eye(13, dtype=int)
    assert apart.min() > 60
    assert len(np.unique(colours, axis=0)) == 256


def test_a_resized_picture_comes_back() -> None:
    grid = SourceGrid(path=Path("a.png"), kind="picture", shape=(6, 9), affine=np.diag([0.5, 0.5, 1.0]))
    mask = np.arange(54, dtype=np.uint8).reshape(6, 9)
    whole = Placed(torch.from_numpy(mask)[None].float(), grid.affine)
    double = whole.scaled(whole.values.repeat_interleave(2, 1).repeat_interleave(4, 2))

    np.testing.assert_array_equal(
        onto_grid(double.values[0].numpy().astype(np.uint8), double.affine, grid), mask
    )


def test_volumes_are_told_in_ml(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of((0, 1, 2), (1, 1, 1), rotation()))
    mask, grid = there_and_back(path)

    row = volume_row(mask, grid, CLASSES)

    counts = np.bincount(hand().ravel())[1:] * np.prod(SIZES) / 1000
    assert [row[f"ml_{name}"] for name in CLASSES] == pytest.approx(list(counts), abs=1e-3)
    assert volume_row(np.stack([mask > 0]), grid, ["hand"])["ml_hand"] == pytest.approx(
        counts.sum(), abs=1e-3
    )


def test_an_output_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii", hand().astype(np.int16), affine_of((0, 1, 2), (1, 1, 1)))
    mask, grid = there_and_back(path)

    with pytest.raises(ConfigError, match="seg for a NIfTI volume"):
        write_mask(mask, grid, tmp_path, "m", classes=CLASSES, output="seg")
    with pytest.raises(ConfigError, match="png for a NIfTI volume"):
        write_mask(mask, grid, tmp_path, "m", classes=CLASSES, output="png")
    with pytest.raises(ValueError, match="a mask of shape"):
        write_nifti(mask[1:], grid, tmp_path / "m.nii.gz")
    with pytest.raises(DataError, match="cannot be read"):
        source_grid(tmp_path / "absent.nii")
