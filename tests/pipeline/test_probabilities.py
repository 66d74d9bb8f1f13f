"""Probabilities of masks as files: what the written mask was decided from, on the file's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageSequence
from scipy import ndimage

from medxfer.bundle.schema import Component, ImagesSpec, PatchSpec
from medxfer.data.formats.dicom_seg import read_seg
from medxfer.data.formats.grids import source_grid
from medxfer.data.mask_file import read_mask
from medxfer.data.synthetic.ct_series import write_ct_series
from medxfer.errors import ConfigError
from medxfer.trained import Trained

from ..data.phantom import rotation
from ..export.masks import made_masks
from .test_predict_inputs import trained as classifier

CLASSES = ("front", "back")
VOLUMES = ImagesSpec(
    preset="mri", dims=3, size=(16, 16, 16), patches=PatchSpec(), transforms=(
        Component(target="Resample", arguments={"spacing": [1.5, 1.5, 2.0]}), Component(target="PercentileWindow"),
    ),
)  # fmt: skip
PICTURES = ImagesSpec(
    preset="xray", size=(24, 24), transforms=(
        Component(target="PadToSquare"), Component(target="Resize", arguments={"size": 24}),
        Component(target="PercentileWindow"),
    ),
)  # fmt: skip


def clouds(shape: tuple[int, ...]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=shape), 1.5)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 250).astype(np.uint8)


@pytest.fixture(scope="module")
def oblique(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aslant, its first axis from left to right, its voxels long."""
    affine = np.eye(4)
    affine[:3, :3] = rotation() @ np.diag([-1.2, 0.9, 3.0])
    path = tmp_path_factory.mktemp("oblique") / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(clouds((22, 26, 9)).astype(np.int16), affine), path)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "b.png"
    Image.fromarray(clouds((40, 31))).save(path)
    return path


@pytest.fixture(scope="module")
def of_volumes(oblique: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return made_masks(tmp_path_factory.mktemp("net"), VOLUMES, [oblique], classes=CLASSES).trained


@pytest.fixture(scope="module")
def of_pictures(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return made_masks(tmp_path_factory.mktemp("net"), PICTURES, [picture], classes=CLASSES).trained


def require_agreement(mask: np.ndarray, probabilities: np.ndarray) -> None:
    """A mask of class numbers, and probabilities (K, *spatial) without the background."""
    whole = np.concatenate([1 - probabilities.sum(0, keepdims=True), probabilities])
    first, second = np.sort(whole, axis=0)[[-1, -2]]
    assert (first - second < 1e-5).mean() < 0.01
    np.testing.assert_array_equal(mask[first - second >= 1e-5], whole.argmax(0)[first - second >= 1e-5])
    assert set(np.unique(mask)) == {0, 1, 2}
    assert (probabilities.sum(0)[mask == 0] > 0.01).mean() > 0.9  # not cut where something is called


def test_the_mask_of_an_oblique_volume_is_its_most_probable_class(
    of_volumes: Trained, oblique: Path, tmp_path: Path
) -> None:
    (row,) = of_volumes.predict([oblique], folder=tmp_path, probabilities=True)

    source = nibabel.load(oblique)
    mask, written = (nibabel.load(tmp_path / str(row[name])) for name in ("mask", "probabilities"))
    assert list(row) == ["file", "ml_front", "ml_back", "mask", "probabilities", "status", "reason"]
    assert row["probabilities"] == "probabilities/a.nii.gz"
    assert written.shape == (*source.shape, 2)
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(written.affine, source.affine)
    require_agreement(np.asarray(mask.dataobj), np.moveaxis(written.get_fdata(), -1, 0))


def test_a_dicom_series_gets_nifti_probabilities_that_lie_on_its_grid(
    of_volumes: Trained, tmp_path: Path
) -> None:
    write_ct_series(tmp_path / "ct", 3, shape=(24, 22, 9), spacing=(1.4, 1.4, 3.0), turn_deg=(5, -8, 12))

    (row,) = of_volumes.predict([tmp_path / "ct"], folder=tmp_path / "out", probabilities=True)

    grid = source_grid(tmp_path / "ct")
    mask, _ = read_seg(tmp_path / "out" / str(row["mask"]), grid)
    written = nibabel.load(tmp_path / "out" / str(row["probabilities"]))
    np.testing.assert_allclose(written.affine, grid.affine, atol=1e-4)
    require_agreement(mask, np.moveaxis(written.get_fdata(), -1, 0))


def test_a_picture_gets_a_page_a_class_and_a_mask_in_colours(
    of_pictures: Trained, picture: Path, tmp_path: Path
) -> None:
    (row,) = of_pictures.predict([picture], folder=tmp_path, probabilities=True)

    with Image.open(tmp_path / str(row["probabilities"])) as file:
        pages = np.stack([np.array(page) for page in ImageSequence.Iterator(file)])
    with Image.open(tmp_path / str(row["mask"])) as file:
        assert file.mode == "P"
        assert len(np.unique(np.array(file.convert("RGB")).reshape(-1, 3), axis=0)) == 3
        mask = np.array(file)
    assert pages.dtype == np.float32
    assert pages.shape == (2, 40, 31)
    require_agreement(mask, pages)
    np.testing.assert_array_equal(read_mask(tmp_path / str(row["mask"])).array[0], mask)


def test_overlapping_classes_are_called_from_a_half_of_their_probability(
    picture: Path, tmp_path: Path
) -> None:
    regions = {"all": list(CLASSES), "back": ["back"]}
    network = made_masks(tmp_path, PICTURES, [picture], classes=CLASSES, regions=regions).trained

    (row,) = network.predict([picture], folder=tmp_path / "out", probabilities=True)

    assert row["mask"] == "b_all.png;b_back.png"
    with Image.open(tmp_path / "out" / str(row["probabilities"])) as file:
        pages = [np.array(page) for page in ImageSequence.Iterator(file)]
    for name, page in zip(regions, pages, strict=True):
        mask = np.array(Image.open(tmp_path / "out" / f"b_{name}.png"))
        assert 0 < mask.mean() < 1
        np.testing.assert_array_equal(mask, page >= 0.5)


def test_earlier_probabilities_are_not_overwritten(
    of_pictures: Trained, picture: Path, tmp_path: Path
) -> None:
    of_pictures.predict([picture], folder=tmp_path, probabilities=True)
    (tmp_path / "b.png").unlink()

    with pytest.raises(ConfigError, match=r"probabilities/b\.tif"):
        of_pictures.predict([picture], folder=tmp_path, probabilities=True, overwrite=False)
    (row,) = of_pictures.predict([picture], folder=tmp_path, overwrite=False)

    assert "probabilities" not in row


def test_probabilities_without_a_folder_or_of_a_classifier_are_refused(
    of_pictures: Trained, picture: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        of_pictures.predict([picture], probabilities=True)
    with pytest.raises(ConfigError, match="p_CLASS"):
        classifier(tmp_path / "bundle").predict([picture], folder=tmp_path / "out", probabilities=True)
