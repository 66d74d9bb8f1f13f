"""Phantoms with masks, and the CT series whose right reading is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medxfer.data.readers import read_image
from medxfer.data.series import find_series
from medxfer.data.synthetic import write_ct_series
from medxfer.files import sha256_of

Small = Callable[[str, int], Path]


def cases_of(folder: Path) -> list[tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]]:
    listed = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert listed["numTraining"] == len(listed["training"])
    return [
        (nibabel.nifti1.load(folder / case["image"]), nibabel.nifti1.load(folder / case["label"]))
        for case in listed["training"]
    ]


def test_hippocampus_has_two_touching_parts_and_a_grey_scale_of_its_own(small: Small) -> None:
    tops, kinds = [], set()
    for image, label in cases_of(small("hippocampus_mri", 24)):
        voxels, mask = np.asarray(image.dataobj), np.asarray(label.dataobj)
        tops.append(float(voxels.max()))
        kinds.add(voxels.dtype.name)

        assert voxels.shape == mask.shape
        assert np.array_equal(image.affine, label.affine)
        assert nibabel.orientations.aff2axcodes(image.affine) == ("R", "A", "S")
        assert set(np.unique(mask)) == {0, 1, 2}
        assert all(700 < (mask == part).sum() < 2700 for part in (1, 2))
        assert (ndimage.binary_dilation(mask == 1) & (mask == 2)).sum() > 20
        assert (
            ndimage.center_of_mass(mask == 1)[1] > ndimage.center_of_mass(mask == 2)[1]
        )  # anterior in front
    assert kinds == {"uint8", "float32"}
    assert max(tops) / min(tops) > 1000


def test_no_threshold_finds_the_hippocampus(small: Small) -> None:
    for image, label in cases_of(small("hippocampus_mri", 24))[:8]:
        voxels, mask = np.asarray(image.dataobj, float), np.asarray(label.dataobj) > 0
        low, high = np.quantile(voxels[mask], (0.1, 0.9))
        inside = (voxels > low) & (voxels < high)

        assert 2 * (inside & mask).sum() / (inside.sum() + mask.sum()) < 0.6


def test_sarcoma_is_one_mass_of_soft_tissue_in_files_that_point_to_left_and_back(small: Small) -> None:
    for image, label in cases_of(small("sarcoma_ct", 10)):
        voxels, mask = np.asarray(image.dataobj), np.asarray(label.dataobj)
        sizes = np.bincount(ndimage.label(mask)[0].ravel())[1:]

        assert nibabel.orientations.aff2axcodes(image.affine) == ("L", "P", "S")
        assert np.array_equal(image.affine, label.affine)
        assert np.allclose(image.header.get_zooms(), (3, 3, 3.27))
        assert sizes.max() > 0.97 * mask.sum()
        assert 10 < np.median(voxels[mask > 0]) < 65
        assert 0.005 < mask.mean() < 0.45
        assert voxels.min() >= -1024


def test_lungs_are_marked_where_the_picture_is_dark(small: Small) -> None:
    folder = small("lung_masks", 12)
    with (folder / "files.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        image = np.asarray(Image.open(folder / row["image"]), float)
        mask = np.asarray(Image.open(folder / row["mask"]))

        assert image.shape == mask.shape == (256, 256)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.1 < (mask > 0).mean() < 0.45
        assert ndimage.label(mask)[1] == 2
        assert image[mask > 0].mean() < image[100:200, 118:138].mean()
    assert {row["hospital"] for row in rows} == {"North", "South"}
    assert {row["split"] for row in rows} >= {"train"}


def test_nuclei_are_numbered_without_gaps_in_pictures_of_three_kinds(small: Small) -> None:
    folder = small("nuclei", 30)
    with (folder / "files.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        image, mask = (
            np.asarray(Image.open(folder / row["image"])),
            np.asarray(Image.open(folder / row["mask"])),
        )

        assert image.shape[:2] == mask.shape
        assert set(np.unique(mask)) == set(range(int(row["nuclei"]) + 1))
        grey = image.reshape(*mask.shape, -1).mean(-1)
        brighter = grey[mask > 0].mean() > grey[mask == 0].mean()
        assert brighter == (row["kind"] == "fluorescence") == (image.ndim == 2)
    assert {row["kind"] for row in rows} == {"fluorescence", "stained_colour", "brightfield"}


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (6.0, -9.0, 14.0)])
def test_a_ct_series_is_read_back_voxel_for_voxel(turn: tuple[float, float, float], tmp_path: Path) -> None:
    made = write_ct_series(tmp_path / "case", 3, turn_deg=turn, shape=(40, 36, 12), spacing=(8.0, 8.5, 14.0))
    image = read_image(made.folder)
    assert image.affine is not None
    # A voxel that nothing else resembles: where the port is, in both.
    brightest = np.unravel_index(made.hu.argmax(), made.hu.shape)
    read_at = np.unravel_index(image.array[0].argmax(), made.hu.shape)

    assert np.array_equal(image.array[0], made.hu[::-1, ::-1].astype(np.float32))
    assert np.allclose(made.affine @ [*brightest, 1], image.affine @ [*read_at, 1], atol=1e-3)
    assert [path.name for path in made.files] != sorted(path.name for path in made.files)


def test_the_ct_phantom_is_unlike_on_every_side(tmp_path: Path) -> None:
    hu = write_ct_series(tmp_path / "case", 0).hu.astype(np.float32)

    for axis in range(3):
        assert np.abs(hu - np.flip(hu, axis)).mean() > 20


def test_series_of_a_patient_differ_and_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    shape = (16, 16, 4)
    one = write_ct_series(tmp_path / "a", 1, shape=shape)
    again = write_ct_series(tmp_path / "b", 1, shape=shape)
    second = write_ct_series(tmp_path / "two" / "c", 1, number=3, description="Lung 1.0", shape=shape)
    write_ct_series(tmp_path / "two" / "d", 2, shape=shape)
    survey = find_series(tmp_path / "two")

    assert [sha256_of(path) for path in one.files] == [sha256_of(path) for path in again.files]
    assert (one.study, one.patient) == (second.study, second.patient)
    assert one.series != second.series
    assert sorted((series.patient, series.slices) for series in survey.series) == [
        ("SYNCT0001", 4),
        ("SYNCT0002", 4),
    ]
