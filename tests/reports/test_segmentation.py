"""Report and model card of masks: scores by class, lines about them, and no word of what such a run has not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medxfer.evaluation.segmentation import measure_case
from medxfer.evaluation.segmentation_figures import amount_text
from medxfer.evaluation.segmentation_pictures import pictures_of_cases
from medxfer.reports.html import write_report
from medxfer.reports.model_card import write_model_card
from medxfer.run_folder import RunFolder
from tests.reports.made_segmentation import make_segmentation
from tests.reports.test_html import page_of

FOREIGN = ("threshold", "temperature", "AUROC", "Grad-CAM", "probabilit", "reliability", "nan")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_segmentation(tmp_path_factory.mktemp("volumes"), count=6, pictures=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_segmentation(tmp_path_factory.mktemp("pictures"), kind="nuclei", count=5, pictures=1)


def test_first_lines_hold_dice_with_its_interval(volumes: RunFolder) -> None:
    words = page_of(volumes)[1].words
    score = volumes.read("scores.json")["test"]["dice"]

    first = words[: words.index("What was run")]

    assert "Test Dice" in first
    assert f"{score['value']:.3f}" in first
    assert f"{score['low']:.3f} to {score['high']:.3f}" in first
    assert "6 images of 6 patients" in first
    assert "Test HD95, mm" in first
    assert "Test volume error, ml" in first


def test_every_class_has_its_row_of_scores(volumes: RunFolder) -> None:
    words = " ".join(page_of(volumes)[1].words.split())
    score = volumes.read("scores.json")["by_class"]["test"]["posterior"]

    table = words[words.index("class, test cases") : words.index("Epochs were chosen on val")]

    assert "Dice IoU Surface Dice HD95, mm Volume error, ml" in table
    for name, digits in (
        ("dice", 3),
        ("iou", 3),
        ("surface_dice", 3),
        ("hd95_mm", 2),
        ("volume_error_ml", 2),
    ):
        value, low, high = (f"{score[name][key]:.{digits}f}" for key in ("value", "low", "high"))
        assert f"{value} ({low} to {high})" in table, name


def test_sections_hold_figures_failures_baseline_and_what_the_task_states(volumes: RunFolder) -> None:
    words = " ".join(page_of(volumes)[1].words.split())

    for expected in (
        "Dice by class, test",
        "Distance by class, test",
        "Volume of anterior, test",
        "Failures, test",
        "missed",
        "the mean training mask, put into the middle of each image",
        "tolerance of the surface Dice 1 mm",
        "patches of 40 x 56 x 40 voxels",
        "Dice on val over epochs",
        "Nearest to the truth",
        "In the middle",
        "Furthest from the truth",
        "axial, coronal, sagittal",
        "true: anterior posterior predicted: anterior posterior",
        "Images and patients by split. No patient",
    ):
        assert expected in words, expected


def test_the_report_says_that_a_2d_network_saw_planes(volumes: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(volumes.root, tmp_path / "run"))
    config = folder.path("config.yaml").read_text(encoding="utf-8")
    folder.write("config.yaml", config.replace("[40, 56, 40]", "[40, 1, 40]"))

    words = " ".join(page_of(folder)[1].words.split())

    assert "coronal planes of 40 x 40 voxels, one at a time by a 2D network" in words


def test_nothing_is_said_of_what_the_run_has_not(volumes: RunFolder) -> None:
    words = page_of(volumes)[1].words
    card = write_model_card(volumes).read_text(encoding="utf-8")

    for word in FOREIGN:
        assert word not in words, word
        assert word not in card, word
    assert "Dice falls with the size of a structure" in card
    assert "| posterior | 6 |" in card


def test_pictures_without_planes_are_shown_beside_their_lines(pictures: RunFolder) -> None:
    text, page = page_of(pictures)

    assert "axial" not in page.words
    assert "Without lines" not in page.words
    assert "class, test cases" not in " ".join(page.words.split())  # one class: its scores are those of all
    assert text.count("with the true and the predicted border") == text.count('<figure class="case">') == 3
    assert page.open == []


def test_a_report_without_pictures_keeps_no_legend_of_them(volumes: RunFolder) -> None:
    text = write_report(volumes, pictures=False).read_text(encoding="utf-8")

    assert "data:image" not in text
    assert "Wide lines" not in text
    write_report(volumes)


def test_cases_of_dicom_files_are_shown_by_their_pseudonyms(volumes: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(volumes.root, tmp_path / "run"))
    rows = [{**row, "shown": f"c_{number}"} for number, row in enumerate(folder.read("split.csv"))]
    folder.write("split.csv", rows)

    words = page_of(folder)[1].words

    failures = words[words.index("Failures, test") : words.index("Training", words.index("Failures, test"))]
    assert "hippocampus_005" not in failures
    assert f"c_{len(rows) - 1}" in failures


def test_lines_are_drawn_on_the_plane_of_the_mask(volumes: RunFolder) -> None:
    case = volumes.read("cases.json")["groups"]["best"][0]

    plain, outlined = (
        np.asarray(Image.open(volumes.root / case[name]).convert("RGB")).astype(int)
        for name in ("picture", "outlined")
    )

    changed = np.abs(plain - outlined).sum(2) > 90
    assert plain.shape == outlined.shape
    assert 0.005 < changed.mean() < 0.2


def test_cases_are_shown_once_worst_first_and_images_are_asked_for_in_turn() -> None:
    asked: list[int] = []
    masks = [(np.zeros((8, 8), int), np.ones((8, 8), int)) for _ in range(9)]
    for number, (predicted, _) in enumerate(masks):
        predicted[:number] = 1
    masks.append((np.zeros((8, 8), int), np.zeros((8, 8), int)))  # nothing there, nothing called: no Dice
    cases = [measure_case(*pair, classes=["a"], spacing=None, tolerance=1) for pair in masks]

    def image_of(row: int) -> np.ndarray:
        asked.append(row)
        return np.zeros((1, 8, 8))

    shown = pictures_of_cases(
        cases, image_of, masks.__getitem__, classes=["a"], spacing_of=lambda _: None, count=3
    )
    first = next(iter(shown))
    begun = list(asked)
    rest = list(shown)

    assert begun == [8]
    assert [(one.group, one.index) for one in (first, *rest)] == [
        ("best", 8), ("best", 7), ("median", 5), ("median", 4), ("worst", 0), ("worst", 1), ("worst", 2),
    ]  # fmt: skip
    assert rest[3].facts == {"a": "missed (64 pixels)"}
    assert rest[3].wrong == ("a",)
    assert [line.kind for line in first.outlines] == ["true", "predicted"]


@pytest.mark.parametrize(
    ("count", "groups"),
    [
        (1, {"median": [0]}),
        (2, {"best": [1], "worst": [0]}),
        (3, {"best": [2], "median": [1], "worst": [0]}),
        (5, {"best": [4, 3], "median": [2], "worst": [0, 1]}),
        (12, {"best": [11, 10, 9], "median": [8, 7, 6], "worst": [0, 1, 2, 3, 4, 5]}),
    ],
)
def test_of_few_cases_each_is_shown_once(count: int, groups: dict[str, list[int]]) -> None:
    true = np.zeros((4, 30), np.uint8)
    true[1:3, 2:28] = 1
    cases = []
    for number in range(count):
        called = true.copy()
        called[1:3, : 2 * (count - number)] = 0
        cases.append(measure_case(called, true, classes=["a"], spacing=(1, 1), tolerance=1))

    found: dict[str, list[int]] = {}
    for one in pictures_of_cases(
        cases, lambda _: np.zeros((1, 4, 30)), lambda _: (true, true), classes=["a"],
        spacing_of=lambda _: None, count=6,
    ):  # fmt: skip
        found.setdefault(one.group, []).append(one.index)

    assert found == groups


def test_overlapping_classes_have_lines_of_their_own() -> None:
    true = np.zeros((2, 6, 6), bool)
    true[0, 1:5], true[1, 2:4] = True, True
    cases = [measure_case(true, true, classes=["whole", "core"], spacing=(1, 1), tolerance=1)]

    (one,) = pictures_of_cases(
        cases, lambda _: np.zeros((1, 6, 6)), lambda _: (true, None), classes=["whole", "core"],
        spacing_of=lambda _: (1, 1), count=6,
    )  # fmt: skip

    assert [(line.name, line.kind, int(line.mask.sum())) for line in one.outlines] == [
        ("whole", "predicted", 24), ("core", "predicted", 12),
    ]  # fmt: skip
    assert one.facts["mean Dice"] == "1.000"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.4, "1.40"),
        (0.00812, "0.00812"),
        (64, "64"),
        (583.2, "583"),
        (7251.4, "7,251"),
        (-1234.0, "-1,234"),
    ],
)
def test_amounts_are_read_at_a_glance(value: float, text: str) -> None:
    assert amount_text(value) == text
