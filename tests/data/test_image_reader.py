from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, LoadImaged

from medxfer.data.image_reader import MedxferReader
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import read_image
from medxfer.errors import ConfigError, DataError

from .faults import chest, dicom, picture, ramp, saved

# MONAI builds all of its own readers beside the given one.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

AFFINE = np.array([[-0.8, 0, 0, 40.0], [0, -0.7, 0, 12], [0, 0, 3, -9], [0, 0, 0, 1]])


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(np.int16)
    nibabel.Nifti1Image(array, AFFINE).to_filename(tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def test_load_image_gives_our_numbers_with_the_channel_first(volume: Path) -> None:
    item = Compose([LoadImaged("image", reader=MedxferReader)])({"image": volume})["image"]
    ours = read_image(volume)

    assert isinstance(item, MetaTensor)
    assert item.dtype == torch.float32
    np.testing.assert_array_equal(item.numpy(), ours.array)
    np.testing.assert_allclose(item.affine.numpy(), ours.affine)
    np.testing.assert_allclose(item.meta["original_affine"], ours.affine)
    assert tuple(item.meta["spatial_shape"]) == (5, 6, 7)
    assert item.meta["filename_or_obj"] == str(volume)
    assert "turned to RAS" in item.meta["applied"]


def test_channel_first_is_not_added_twice(volume: Path) -> None:
    item = LoadImage(reader=MedxferReader(), ensure_channel_first=True)(volume)

    assert item.shape == (1, 5, 6, 7)


def test_pictures_come_as_rows_and_columns_in_the_right_polarity(tmp_path: Path) -> None:
    path = saved(dicom(4095 - ramp(), PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm")

    item = LoadImage(reader=MedxferReader)(path)

    np.testing.assert_array_equal(item.numpy(), ramp()[None])
    np.testing.assert_allclose(np.diag(item.affine.numpy()), [0.5, 1.25, 1, 1])


def test_a_refused_file_is_not_tried_by_other_readers(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.6
    nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), affine).to_filename(tmp_path / "sheared.nii")

    with pytest.raises(DataError, match="sheared"):
        LoadImage(reader=MedxferReader)(tmp_path / "sheared.nii")
    kept = LoadImage(reader=MedxferReader(ReadPolicy(on_geometry="warn")))(tmp_path / "sheared.nii")
    assert "sheared" in kept.meta["warnings"]


def test_several_files_are_channels_of_one_grid(volume: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.nii.gz"
    nibabel.Nifti1Image(np.ones((5, 6, 7), np.float32), AFFINE).to_filename(other)

    item = LoadImage(reader=MedxferReader)([volume, other])

    assert item.shape == (2, 5, 6, 7)
    nibabel.Nifti1Image(np.ones((5, 6, 7), np.float32), np.eye(4)).to_filename(other)
    with pytest.raises(DataError, match="grid"):
        LoadImage(reader=MedxferReader)([volume, other])


def test_options_of_other_readers_are_refused_and_names_do_not_matter(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", chest(0)).rename(tmp_path / "a")

    with pytest.raises(ConfigError, match="swap_ij"):
        MedxferReader().read(path, swap_ij=False)
    assert MedxferReader().verify_suffix("a.anything")
    np.testing.assert_array_equal(LoadImage(reader=MedxferReader)(path).numpy()[0], chest(0))


@pytest.mark.parametrize("kind", ["volume", "picture"])
def test_an_image_becomes_the_tensor_that_monai_loads(volume: Path, tmp_path: Path, kind: str) -> None:
    path = volume if kind == "volume" else picture(tmp_path / "a.png", chest(0))
    loaded = LoadImaged("image", reader=MedxferReader)({"image": str(path)})["image"]

    ours = read_image(path).to_metatensor()

    assert type(ours) is type(loaded)
    assert ours.dtype == loaded.dtype == torch.float32
    assert torch.equal(ours.as_tensor(), loaded.as_tensor())
    assert torch.equal(ours.affine, loaded.affine)
    assert ours.meta["filename_or_obj"] == loaded.meta["filename_or_obj"] == str(path)
    assert ours.meta["applied"] == loaded.meta["applied"] == "; ".join(read_image(path).applied)
    assert set(ours.meta) == set(loaded.meta)
