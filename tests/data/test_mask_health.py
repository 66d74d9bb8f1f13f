"""`doctor data` on masks: other grids, unknown values, empty masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec
from medxfer.cli import main
from medxfer.data.doctor import Health, Request, examine
from medxfer.data.inspect import facts_of
from medxfer.data.masks import MaskRule
from medxfer.data.steps.spatial import Resample
from medxfer.data.writers import write_mask
from medxfer.progress import Progress

from .faults import chest, picture, saved_series
from .test_dicom_seg import CLASSES, back_on_grid, hand_series

QUIET = Progress(quiet=True)


def look(root: Path, rule: MaskRule | None = None, **data: Any) -> Health:
    return examine(root, Request(data=DataSpec(source=str(root), **data), masks=rule), QUIET)


def said(health: Health, level: str) -> str:
    return "\n".join(
        f"{one.where}: {one.problem}; {one.todo}" for one in health.findings if one.level == level
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        picture(tmp_path / "images" / f"c{number:02}.png", chest(number))
        mask = np.zeros((48, 48), np.uint8)
        mask[8:20, 8:20] = 1
        picture(tmp_path / "masks" / f"c{number:02}.png", mask)
    return tmp_path


def test_good_masks_are_taken_and_split(folder: Path) -> None:
    health = look(folder)

    assert not health.is_refused
    assert health.facts["layout"] == "mask_folders"
    assert health.facts["classes"] == {"with a mask": 12}
    assert health.facts["mask_values"] == [0.0, 1.0]
    assert health.facts["splits_of_a_run"] == {"train": 8, "val": 2, "test": 2}


def test_masks_of_another_size_are_refused(folder: Path) -> None:
    picture(folder / "masks/c03.png", np.ones((48, 40), np.uint8))

    health = look(folder)

    assert "1 of 12 cases: the mask has 48 x 40 pixels, the image 48 x 48 (first: images/c03.png)" in said(
        health, "refused"
    )


def test_volumes_beside_their_image_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        for name, array in (
            ("images", np.random.default_rng(number).uniform(0, 9, (9, 9, 9))),
            ("labels", np.ones((9, 9, 9))),
        ):
            affine = np.diag([1.0, 1.0, 2.0, 1.0])
            affine[0, 3] = 3.0 if name == "labels" and number == 1 else 0.0
            (tmp_path / name).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(array.astype(np.float32), affine)  # type: ignore[attr-defined]
            nibabel.save(image, tmp_path / name / f"v{number}.nii.gz")  # type: ignore[attr-defined]

    assert "1 of 3 cases: the mask lies up to 3 mm beside the image" in said(look(tmp_path), "refused")


def test_values_that_the_task_does_not_know_are_refused(folder: Path) -> None:
    for number in (2, 5):
        picture(folder / "masks" / f"c{number:02}.png", np.full((48, 48), 7, np.uint8))

    health = look(folder, MaskRule(classes=1))

    assert (
        "2 of 12 cases: have a mask that the task does not know: unknown label value 7; accepted: 0, 1"
        in said(health, "refused")
    )
    assert not look(folder, MaskRule(classes=1, nonzero=True)).is_refused


def test_without_a_task_a_rare_value_is_a_suspicion(folder: Path) -> None:
    picture(folder / "masks/c02.png", np.full((48, 48), 7, np.uint8))

    health = look(folder)

    assert not health.is_refused
    assert "1 of 12 cases: have mask values that hardly any other has: 7" in said(health, "suspect")


def test_specks_beside_a_large_piece_are_told_and_small_findings_are_not(folder: Path) -> None:
    speck = np.zeros((48, 48), np.uint8)
    speck[8:30, 8:30] = 1
    speck[40, 40:42] = 1
    speck[45, 3] = 1
    small = np.zeros((48, 48), np.uint8)
    small[5, 5] = small[30:34, 30:34] = 1
    picture(folder / "masks/c02.png", speck)
    picture(folder / "masks/c03.png", small)

    notes = said(look(folder), "note")

    assert "1 of 12 cases: have specks in their mask: 2 pieces of 1 to 3 voxels" in notes


def test_classes_of_the_task_that_few_patients_have_are_suspect(folder: Path) -> None:
    for number in range(5):
        mask = np.zeros((48, 48), np.uint8)
        mask[8:20, 8:20] = 3 if number < 2 else 2
        picture(folder / "masks" / f"c{number:02}.png", mask)

    suspect = said(look(folder, MaskRule(classes=4)), "suspect")

    assert "2 of 12 cases: have class 3 of the task (value 3), of 2 patients: too few for train" in suspect
    assert "0 of 12 cases: have class 4 of the task (value 4), of 0 patients" in suspect
    assert "class 1 of" not in suspect
    assert "class 2 of" not in suspect


def test_voxels_much_longer_than_wide_are_told_as_the_run_tells_them(tmp_path: Path) -> None:
    for number in range(3):
        for name, array in (
            ("images", np.random.default_rng(number).uniform(0, 9, (9, 9, 5))),
            ("labels", np.ones((9, 9, 5))),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(array.astype(np.float32), np.diag([0.7, 0.7, 5.0, 1.0]))  # type: ignore[attr-defined]
            nibabel.save(image, tmp_path / name / f"v{number}.nii.gz")  # type: ignore[attr-defined]
    request = Request(data=DataSpec(source=str(tmp_path)))

    raw = said(examine(tmp_path, request, QUIET), "note")
    even = said(examine(tmp_path, replace(request, steps=(Resample([1.0, 1.0, 2.5]),)), QUIET), "note")
    planes = said(examine(tmp_path, replace(request, has_planes=True), QUIET), "note")

    told = "3 of 3 cases: the voxels that the network sees are 7.1 times as long as wide (0.7 x 0.7 x 5 mm, median)"
    assert told in raw
    assert "set images.spacing to less unequal steps, such as [1.67, 1.67, 5]" in raw
    assert "as long as wide" not in even + planes


def test_empty_masks_are_suspect_and_all_of_them_refused(folder: Path) -> None:
    picture(folder / "masks/c02.png", np.zeros((48, 48), np.uint8))
    one = look(folder)
    for number in range(12):
        picture(folder / "masks" / f"c{number:02}.png", np.zeros((48, 48), np.uint8))

    assert "1 of 12 cases: have an empty mask" in said(one, "suspect")
    assert "12 of 12 cases: have an empty mask; nothing can be learnt" in said(look(folder), "refused")


def test_missing_masks_are_told_and_the_images_read_nevertheless(folder: Path) -> None:
    (folder / "masks/c02.png").unlink()
    (folder / "images/c05.png").write_bytes(b"")

    health = look(folder)

    assert "1 image without a mask: images/c02.png" in said(health, "refused")
    assert [one.case for one in health.bad] == ["images/c05.png"]


def test_the_bundle_tells_the_command_what_values_mean(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path_factory.mktemp("b") / "mine"

    def leave(*arguments: str) -> object:
        with pytest.raises(SystemExit) as left:
            main([*arguments])
        return left.value.code

    made = leave("init", str(bundle), "--data", str(folder), "--task", "segmentation")
    good = leave("doctor", "data", str(folder), "--bundle", str(bundle), "--no-sheet")
    text = (bundle / "configs/train.yaml").read_text()
    (bundle / "configs/train.yaml").write_text(text.replace("values: nonzero", "values: {structure: [255]}"))
    bad = leave("doctor", "data", str(folder), "--bundle", str(bundle), "--no-sheet")

    assert (made, good, bad) == (0, 0, 3)
    assert "unknown label value 1" in " ".join(capsys.readouterr().out.split()), "whatever the width of lines"


def test_a_dicom_seg_beside_its_series_is_measured_on_its_grid(tmp_path: Path) -> None:
    folder = saved_series(hand_series(), tmp_path / "images/hand")
    mask, grid = back_on_grid(folder)
    (path,) = write_mask(mask, grid, tmp_path / "masks", "hand", classes=CLASSES)

    health = look(tmp_path)
    facts = facts_of(tmp_path, "segmentation", "ct")

    assert path.name == "hand.dcm"
    assert "the mask" not in said(health, "refused")
    assert health.facts["mask_values"] == [0.0, 1.0, 2.0, 3.0]
    assert dict(facts.classes) == {"class_1": 1, "class_2": 1, "class_3": 1}
