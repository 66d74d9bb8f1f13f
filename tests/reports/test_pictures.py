from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medxfer.evaluation.figures import CasePicture, Outline
from medxfer.reports.outlines import SHADES, borders_of, colour_of
from medxfer.reports.pictures import GAP, MOST, OUTLINED_SIDE, save_pictures
from medxfer.reports.planes import planes_of
from medxfer.run_folder import RunFolder
from tests.reports.test_figures import luminance


def pixels_of(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


def square(side: int, *, at: int, until: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((side, side), dtype=bool)
    mask[at:until, at:until] = True
    return mask


def test_pictures_and_overlays_are_written_and_listed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    image, heat = np.full((1, 64, 32), 0.5, dtype=np.float32), np.zeros((64, 32))
    heat[:32] = 1.0
    facts = {"true": "a", "called": "b", "probability": "0.750"}
    one = CasePicture(
        group="best", index=1, image=image, facts=facts, wrong=("called",), heat=heat, heat_of="b"
    )
    other = CasePicture(group="worst", index=0, image=image, heat_of="a")

    save_pictures(folder, [one, other], ["x", "ward/P7.dcm"])

    cases = folder.read("cases.json")
    assert cases["groups"]["best"] == [
        {
            "case": "ward/P7.dcm",
            "facts": facts,
            "wrong": ["called"],
            "picture": "pictures/best-1.png",
            "width": 128,
            "height": 256,
            "heat_of": "b",
            "heat": "pictures/best-1-heat.png",
        }
    ]
    assert cases["groups"]["worst"][0]["heat"] is None
    assert cases["legend"] == []
    grey, overlay = (
        pixels_of(tmp_path / "pictures/best-1.png"),
        pixels_of(tmp_path / "pictures/best-1-heat.png"),
    )
    assert grey.shape == (256, 128)
    assert (grey == 128).all()
    assert (overlay[200] == 128).all()  # no evidence: the picture unchanged
    assert overlay[50, :, 0].min() > overlay[50, :, 2].max()  # evidence: warm colours
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "best-1-heat.png", "best-1.png", "worst-1.png",
    ]  # fmt: skip


def test_three_channels_are_colours(tmp_path: Path) -> None:
    image = np.zeros((3, 300, 300), dtype=np.float32)
    image[2] = 1.0

    save_pictures(RunFolder(tmp_path), [CasePicture(group="best", index=0, image=image)], ["x"])

    assert Image.open(tmp_path / "pictures/best-1.png").getpixel((5, 5)) == (0, 0, 255)


def test_a_volume_is_shown_by_its_planes_through_the_evidence() -> None:
    volume = np.zeros((1, 10, 12, 8))
    volume[0, 2, 9, 5] = 1.0

    planes = planes_of(CasePicture(group="best", index=0, image=volume, heat=volume[0], heat_of="a"))

    axial, coronal, sagittal = (plane.cut(volume)[0] for plane in planes)
    assert [plane.name for plane in planes] == ["axial", "coronal", "sagittal"]
    # anterior and superior on top, the patient's right (large X) on the left
    assert axial.shape == (12, 10)
    assert np.argwhere(axial).tolist() == [[12 - 1 - 9, 10 - 1 - 2]]
    assert np.argwhere(coronal).tolist() == [[8 - 1 - 5, 10 - 1 - 2]]
    assert np.argwhere(sagittal).tolist() == [[8 - 1 - 5, 12 - 1 - 9]]


def test_planes_go_through_the_largest_cut_of_the_truth_else_of_the_prediction() -> None:
    image, true, predicted = (np.zeros((9, 9, 9)), np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool))
    true[2:5, 3:6, 6] = True
    true[3, 4, 1:7] = True
    predicted[7, 7, 7] = True
    lines = [
        Outline(name="a", kind="true", mask=true),
        Outline(name="a", kind="predicted", mask=predicted),
    ]

    both = planes_of(CasePicture(group="best", index=0, image=image[None], outlines=tuple(lines)))
    called = planes_of(CasePicture(group="best", index=0, image=image[None], outlines=tuple(lines[1:])))

    assert [plane.place for plane in both] == [6, 4, 3]
    assert [plane.place for plane in called] == [7, 7, 7]


def test_about_a_small_region_a_part_of_the_volume_is_shown_on_every_plane(tmp_path: Path) -> None:
    mask = np.zeros((60, 60, 20), bool)
    mask[40:43, 10:12, 8:10] = True
    image = mask[None].astype(np.float32)
    line = Outline(name="a", kind="true", mask=mask)
    one = CasePicture(group="worst", index=0, image=image, outlines=(line,), spacing=(1.0, 1.0, 3.0))

    planes = planes_of(one)
    save_pictures(RunFolder(tmp_path), [one], ["x"])

    # four times 6 mm about the region, which lies near one side
    assert planes[0].window == (slice(29, 54), slice(0, 23), slice(5, 13))
    assert [plane.cut(image).sum() for plane in planes] == [6, 6, 4]
    assert planes[1].cut(image).shape == (1, 8, 25)
    assert planes[1].size == (24.0, 25.0)
    assert RunFolder(tmp_path).read("cases.json")["groups"]["worst"][0]["part"] is True


def test_thick_slices_are_drawn_as_thick_as_they_are(tmp_path: Path) -> None:
    image = np.zeros((1, 64, 32, 10), dtype=np.float32)
    one = CasePicture(group="best", index=0, image=image, spacing=(1.0, 1.0, 5.0))

    save_pictures(RunFolder(tmp_path), [one], ["x"])

    # axial 64 x 32 mm, coronal 64 x 50 mm, sagittal 32 x 50 mm, 4 pixels a mm
    pixels = pixels_of(tmp_path / "pictures/best-1.png")
    assert pixels.shape == (50 * 4, (64 + 64 + 32) * 4 + 2 * GAP)


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    image = np.zeros((1, 40, 2 * MOST), dtype=np.float32)

    save_pictures(RunFolder(tmp_path), [CasePicture(group="best", index=0, image=image)], ["x"])

    assert pixels_of(tmp_path / "pictures/best-1.png").shape == (20, MOST)


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_both_borders_can_be_seen_on_dark_and_on_bright_ground(tmp_path: Path, grey: float) -> None:
    folder, size = RunFolder(tmp_path), 64
    true, predicted = square(size, at=10, until=30), square(size, at=10, until=50)
    lines = (
        Outline(name="mass", kind="true", mask=true),
        Outline(name="mass", kind="predicted", mask=predicted),
    )
    image = np.full((1, size, size), grey, dtype=np.float32)

    save_pictures(folder, [CasePicture(group="worst", index=0, image=image, outlines=lines)], ["x"])

    drawn = pixels_of(tmp_path / "pictures/worst-1-outlined.png").astype(int)
    blue, orange = (
        [int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in (SHADES["true"][0], SHADES["predicted"][0])
    )
    middle = 20 * OUTLINED_SIDE // size
    across = drawn[middle]  # through both left borders, which are one, and the right ones
    near = [np.flatnonzero(np.abs(across - colour).sum(1) < 60) for colour in (blue, orange)]
    borders = [{round(pixel * size / OUTLINED_SIDE) for pixel in found} for found in near]
    assert borders[0] >= {10, 30}  # about the predicted one; only true
    assert borders[1] >= {10, 50}  # inside the true one; only predicted
    assert (across.sum(1) < 500).any()  # a dark seam even on white
    plain = pixels_of(tmp_path / "pictures/worst-1.png")
    assert (plain == round(255 * grey)).all()
    assert folder.read("cases.json")["legend"] == [
        {"kind": "true", "name": "mass", "colour": SHADES["true"][0]},
        {"kind": "predicted", "name": "mass", "colour": SHADES["predicted"][0]},
    ]


def test_a_region_at_the_edge_and_a_hole_have_closed_borders() -> None:
    mask = np.ones((8, 8), dtype=bool)
    mask[3:5, 3:5] = False

    paths = borders_of(mask)

    assert len(paths) == 2
    assert all((path[0] == path[-1]).all() for path in paths)
    assert paths[0].min() == -0.5 or paths[1].min() == -0.5


def test_more_classes_than_shades_are_drawn_too() -> None:
    assert colour_of("true", 4) == colour_of("true", 0)


@pytest.mark.parametrize(("true", "predicted"), list(zip(*SHADES.values(), strict=True)))
def test_truth_and_prediction_differ_for_whoever_sees_no_red_or_no_green(true: str, predicted: str) -> None:
    # Viénot, Brettel and Mollon 1999: what is left is blue against yellow; the lines differ in it
    def yellow_less_blue(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return (red + green) / 2 - blue

    assert yellow_less_blue(predicted) - yellow_less_blue(true) > 0.35
    assert all(luminance(colour) > 0.1 for colour in (true, predicted))  # against black
