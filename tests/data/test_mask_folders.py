"""Folders of images beside folders of masks: which belong together, which splits, what is refused by name."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec, PatientSpec, SplitSpec
from medxfer.data.cases import Found, find_cases
from medxfer.data.leaks import Duplicates
from medxfer.data.sampling import read_case, reading_of
from medxfer.data.splits import split_by_patient
from medxfer.errors import DataError

from .faults import chest, dicom, picture, ramp, saved, series


def find(root: Path, **options: object) -> Found:
    return find_cases(DataSpec(source=str(root), **options), root)  # type: ignore[arg-type]


def refusal(root: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        find(root, **options)
    assert all((caught.value.seen, caught.value.accepted, caught.value.todo))
    return caught.value


def image(path: Path, seed: int = 0) -> Path:
    return picture(path, chest(seed))


def mask(path: Path, seed: int = 0) -> Path:
    return picture(path, ((chest(seed) > 120) * 255).astype(np.uint8))


def volume(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).uniform(0, 90, (12, 10, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[attr-defined]
    return path


def label(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 3, (12, 10, 8)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[attr-defined]
    return path


def pairs(root: Path, count: int = 6, images: str = "images", masks: str = "masks") -> Path:
    for number in range(count):
        image(root / images / f"c{number}.jpg", number)
        mask(root / masks / f"c{number}.png", number)
    return root


def masks_of(found: Found, root: Path) -> dict[str, str]:
    return {
        case.id: case.label.relative_to(root).as_posix()
        for case in found.cases
        if isinstance(case.label, Path)
    }


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("img", "labels"), ("Scans", "Annotations"), ("imagesTr", "labelsTr"),
     ("image", "ground_truth"), ("train_images", "train_masks"), ("data/images", "data/segmentations")],
)  # fmt: skip
def test_images_find_masks_of_their_name_beside_them(tmp_path: Path, images: str, masks: str) -> None:
    found = find(pairs(tmp_path, images=images, masks=masks))

    assert found.layout == "mask_folders"
    assert masks_of(found, tmp_path) == {f"{images}/c{n}.jpg": f"{masks}/c{n}.png" for n in range(6)}
    assert {case.split for case in found.cases} == {None}  # a training folder alone is no split


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.png", "a_mask.png"), ("a.png", "a-seg.png"), ("a.b.png", "a.b_segmentation.png"),
     ("image_7.png", "mask_7.png"), ("volume-7.png", "segmentation-7.png"), ("IMG_7.png", "7_gt.png"),
     ("sub/a.png", "sub/a.png"), ("a.png", "a/whole.png"), ("a/scan.png", "a/tumour.png")],
)  # fmt: skip
def test_usual_words_in_names_are_looked_through(tmp_path: Path, one: str, other: str) -> None:
    image(tmp_path / "images" / one)
    mask(tmp_path / "masks" / other)

    assert masks_of(find(tmp_path), tmp_path) == {f"images/{one}": f"masks/{other}"}


def test_double_endings_and_numbers_of_a_uid_are_told_apart(tmp_path: Path) -> None:
    volume(tmp_path / "images/1.2.840.nii.gz")
    label(tmp_path / "labels/1.2.840.nii")
    saved(dicom(ramp()), tmp_path / "images/1.2.841.dcm")
    mask(tmp_path / "labels/1.2.841.png")

    assert masks_of(find(tmp_path), tmp_path) == {
        "images/1.2.840.nii.gz": "labels/1.2.840.nii",
        "images/1.2.841.dcm": "labels/1.2.841.png",
    }


def test_channels_of_nnunet_are_one_case(tmp_path: Path) -> None:
    for number in range(3):
        label(tmp_path / "labelsTr" / f"brain_{number:03}.nii.gz", number)
        for channel in range(2):
            volume(
                tmp_path / "imagesTr" / f"brain_{number:03}_{channel:04}.nii.gz", 10 * number + channel + 50
            )
    volume(tmp_path / "imagesTs/brain_009_0000.nii.gz", 99)

    found = find(tmp_path)
    first = found.cases[0]

    assert [[path.name for path in case.images] for case in found.cases] == [
        [f"brain_{number:03}_{channel:04}.nii.gz" for channel in range(2)] for number in range(3)
    ]
    assert read_case(first, "", reading_of(DataSpec(source=""))).images[0].image.values.shape == (
        2,
        12,
        10,
        8,
    )
    assert any("1 image files outside" in note for note in found.notes)


def test_an_index_in_the_name_is_no_channel_where_masks_have_it_too(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / "images" / f"slice_{number:04}.png", number)
        mask(tmp_path / "masks" / f"slice_{number:04}.png", number)

    assert [len(case.images) for case in find(tmp_path).cases] == [1, 1, 1]


@pytest.mark.parametrize(("lost", "words"), [("a_0001", "channels differ"), ("a_0000", "the channels 1")])
def test_lacking_channels_are_refused(tmp_path: Path, lost: str, words: str) -> None:
    for name in "ab":
        label(tmp_path / "labelsTr" / f"{name}.nii.gz")
        for channel in range(2):
            volume(tmp_path / "imagesTr" / f"{name}_{channel:04}.nii.gz", channel + 7)
    (tmp_path / f"imagesTr/{lost}.nii.gz").unlink()

    assert words in refusal(tmp_path).seen


@pytest.mark.parametrize(
    "layout",
    ["{split}/images/x.png {split}/masks/x.png", "images/{split}/x.png masks/{split}/x.png",
     "{split}_images/x.png {split}_masks/x.png"],
)  # fmt: skip
def test_folders_of_splits_keep_their_split(tmp_path: Path, layout: str) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        one, other = layout.format(split=split).split()
        image(tmp_path / one, number)
        mask(tmp_path / other, number)

    assert sorted(str(case.split) for case in find(tmp_path).cases) == ["test", "train", "val"]


def test_a_table_brings_split_patient_and_further_columns(tmp_path: Path) -> None:
    pairs(tmp_path)
    rows = "".join(f"c{n},{('train', 'test')[n % 2]},p{n // 2},{'ab'[n % 2]}\n" for n in range(5))
    (tmp_path / "files.csv").write_text(f"id,split,patient,kind\n{rows}")
    (tmp_path / "scanners.csv").write_text("scanner,maker\nA,x\nB,y\n")

    found = find(tmp_path)

    assert found.labels == tmp_path / "files.csv"
    assert [case.split for case in found.cases] == ["train", "test", "train", "test", "train"]
    assert [case.patient for case in found.cases] == ["p0", "p0", "p1", "p1", "p2"]
    assert found.cases[1].extra["kind"] == "b"
    assert any("1 images are not in files.csv" in note for note in found.notes)


@pytest.mark.parametrize("cell", ["images/c{}.jpg", "c{}.jpg", "./images/c{}", "c{}"])
def test_a_table_names_cases_by_path_name_or_stem(tmp_path: Path, cell: str) -> None:
    pairs(tmp_path, 3)
    rows = "".join(f"{cell.format(number)},{number}\n" for number in range(3))
    (tmp_path / "files.csv").write_text(f"picture,age\n{rows}")

    assert [case.extra["age"] for case in find(tmp_path).cases] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [("c0\nc1\nc9\n", "1 of 3 rows name images that are not there: c9 (line 4)"),
     ("c0,train\nc1,train\nc0,test\n", "c0 is named in lines 2 and 4, with the `split` `train` and `test`"),
     ("c0,train\nc1,tset\n", "split `tset`")],
)  # fmt: skip
def test_faults_of_the_table_are_named(tmp_path: Path, rows: str, words: str) -> None:
    pairs(tmp_path, 2)
    head = "id,split\n" if "," in rows else "id\n"
    (tmp_path / "files.csv").write_text(head + rows)

    assert words in refusal(tmp_path).seen


def test_a_table_against_the_folder_of_a_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        image(tmp_path / split / "images" / f"{split}.png", len(split))
        mask(tmp_path / split / "masks" / f"{split}.png")
    (tmp_path / "files.csv").write_text("id,split\ntrain,train\ntest,train\n")

    assert "is `train` here and lies in a folder of `test`" in refusal(tmp_path).seen


def test_images_without_mask_and_masks_without_image_are_named(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    for number in range(7):
        image(tmp_path / "images" / f"bare{number}.png", 10 + number)
    mask(tmp_path / "masks/lost.png")

    error = refusal(tmp_path)
    found = find(tmp_path, on_bad_image="skip")

    assert "7 images without a mask: images/bare0.png" in error.seen
    assert "images/bare4.png, ..." in error.seen
    assert "bare5" not in error.seen
    assert "1 mask without an image: masks/lost.png" in error.seen
    assert len(found.cases) == 3
    assert sum("left out" in note for note in found.notes) == 2


def test_images_without_mask_may_be_excluded_with_a_reason(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    image(tmp_path / "images/bare.png", 10)
    (tmp_path / "out.txt").write_text("images/bare.png # not outlined\n")

    assert len(find(tmp_path, exclude="out.txt").cases) == 3


@pytest.mark.parametrize("how", ["copy", "link", "table"])
def test_a_mask_that_is_the_image_is_refused(tmp_path: Path, how: str) -> None:
    pairs(tmp_path, 3)
    if how == "table":
        (tmp_path / "files.csv").write_text("image,mask\nimages/c0.jpg,images/c0.jpg\n")
    else:
        target = tmp_path / "masks/c1.png"
        target.unlink()
        (os.link if how == "link" else shutil.copy)(tmp_path / "images/c1.jpg", target)

    assert "1 mask is the image itself" in refusal(tmp_path).seen


@pytest.mark.parametrize(
    ("extra", "words"),
    [("masks/sub/../c0.tif", "2 masks fit"), ("images/c0.png", "have the mask c0.png"),
     ("labels/c0.png", "several folders of masks: labels, masks")],
)  # fmt: skip
def test_what_is_there_twice_is_refused(tmp_path: Path, extra: str, words: str) -> None:
    pairs(tmp_path, 2)
    mask(Path(os.path.normpath(tmp_path / extra)), 5)

    assert words in refusal(tmp_path).seen


def test_the_pattern_for_patients_is_applied_to_the_image(tmp_path: Path) -> None:
    for number in range(4):
        image(tmp_path / "images" / f"P{number // 2}_{number}.png", number)
        mask(tmp_path / "masks" / f"P{number // 2}_{number}_mask.png", number)

    found = find(tmp_path, patient=PatientSpec(pattern=r"^(P\d)_"))

    assert Counter(case.patient for case in found.cases) == {"P0": 2, "P1": 2}


def test_a_table_with_image_and_mask_goes_before_the_folders(tmp_path: Path) -> None:
    pairs(tmp_path, 3)
    (tmp_path / "files.csv").write_text("image,mask\nimages/c0.jpg,masks/c2.png\n")

    found = find(tmp_path)

    assert found.layout == "csv"
    assert masks_of(found, tmp_path) == {"images/c0.jpg": "masks/c2.png"}


def test_classes_stay_classes_unless_the_bundle_asks_for_masks(tmp_path: Path) -> None:
    for name in ("covid", "normal"):
        for number in range(2):
            image(tmp_path / name / "images" / f"{name}{number}.png", number + len(name))
            mask(tmp_path / name / "masks" / f"{name}{number}.png", number)

    classes = find(tmp_path)
    masks = find(tmp_path, layout="mask_folders")

    assert Counter(case.label for case in classes.cases) == {"covid": 2, "normal": 2}
    assert any("4 masks beside the images were left aside" in note for note in classes.notes)
    assert len(masks_of(masks, tmp_path)) == 4


def test_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")

    assert "no folder of images beside a folder of masks" in refusal(tmp_path, layout="mask_folders").seen


def test_series_folders_have_masks_of_their_name_and_slices_of_theirs(tmp_path: Path) -> None:
    for number in range(2):
        for one, slice_ in enumerate(series(SeriesInstanceUID=f"1.2.9.{number}", PatientID=f"P{number}")):
            slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"1.2.6.{number}.{one}"
            saved(slice_, tmp_path / f"a/images/scan{number}/{one:02}.dcm")
        label(tmp_path / f"a/labels/scan{number}.nii.gz")
    for one, slice_ in enumerate(series()):
        saved(slice_, tmp_path / f"b/images/{one:02}.dcm")
        mask(tmp_path / f"b/masks/{one:02}.png")

    whole, slices = find(tmp_path / "a"), find(tmp_path / "b")

    assert masks_of(whole, tmp_path / "a") == {f"images/scan{n}": f"labels/scan{n}.nii.gz" for n in range(2)}
    assert [case.patient for case in whole.cases] == ["P0", "P1"]
    assert len(slices.cases) == 12


def test_masks_need_no_second_class_to_be_split(tmp_path: Path) -> None:
    found = find(pairs(tmp_path, 20))

    splits = split_by_patient(
        found.cases, Duplicates(), SplitSpec(), seed=0, accept_leak=None, label_of=lambda _: "mask"
    )

    assert [len(splits[name]) for name in ("train", "val", "test")] == [14, 2, 4]


def test_real_folders(shared: Path) -> None:
    lungs = find(shared / "data/lung_xray_seg")
    nuclei = find(shared / "data/nuclei_seg")

    assert Counter(case.split for case in lungs.cases) == {"train": 80, "val": 20, "test": 40}
    assert lungs.layout == nuclei.layout == "mask_folders"
    assert Counter(case.split for case in nuclei.cases) == {"train": 159, "val": 28, "test": 53}
    assert Counter(case.extra["kind"] for case in nuclei.cases)["brightfield"] == 16
