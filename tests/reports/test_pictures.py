from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medxfer.reports.pictures import planes_of, save_pictures
from medxfer.run_folder import RunFolder
from medxfer.tasks.base import Highlight


def highlight(group: str, index: int) -> Highlight:
    return Highlight(group=group, index=index, label="a", predicted="b", probability=0.75, target=1)  # type: ignore[arg-type]


def test_pictures_and_overlays_are_written_and_listed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    images = np.full((2, 1, 64, 32), 0.5, dtype=np.float32)
    cam = torch.zeros(64, 32)
    cam[:32] = 1.0

    save_pictures(
        folder, [("ward/P7.dcm", highlight("best", 4)), ("x", highlight("worst", 5))], images, [cam, None]
    )

    cases = folder.read("cases.json")
    assert cases["best"] == [
        {
            "case": "ward/P7.dcm",
            "label": "a",
            "predicted": "b",
            "probability": 0.75,
            "picture": "pictures/best-1.png",
            "cam": "pictures/best-1-cam.png",
        }
    ]
    assert cases["worst"][0]["cam"] is None
    grey = np.asarray(Image.open(tmp_path / "pictures/best-1.png"))
    overlay = np.asarray(Image.open(tmp_path / "pictures/best-1-cam.png"))
    assert grey.shape == (256, 128, 3)
    assert (grey == 128).all()
    assert (overlay[200] == 128).all()  # no evidence: the picture unchanged
    assert overlay[50, :, 0].min() > overlay[50, :, 2].max()  # evidence: warm colours
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "best-1-cam.png", "best-1.png", "worst-1.png",
    ]  # fmt: skip


def test_three_channels_are_colours(tmp_path: Path) -> None:
    images = np.zeros((1, 3, 300, 300), dtype=np.float32)
    images[0, 2] = 1.0

    save_pictures(RunFolder(tmp_path), [("x", highlight("best", 0))], images, [None])

    assert Image.open(tmp_path / "pictures/best-1.png").getpixel((5, 5)) == (0, 0, 255)


def test_a_volume_is_shown_by_its_planes_through_the_evidence() -> None:
    volume = np.zeros((1, 10, 12, 8))
    volume[0, 2, 9, 5] = 1.0
    evidence = volume[0].copy()

    shown = planes_of(volume.shape[1:], evidence)(volume)

    axial, coronal, sagittal = shown[0, :, :10], shown[0, 2:10, 12:22], shown[0, 2:10, 24:]
    assert shown.shape == (1, 12, 10 + 2 + 10 + 2 + 12)
    # anterior and superior on top, the patient's right (large X) on the left
    assert np.argwhere(axial).tolist() == [[12 - 1 - 9, 10 - 1 - 2]]
    assert np.argwhere(coronal).tolist() == [[8 - 1 - 5, 10 - 1 - 2]]
    assert np.argwhere(sagittal).tolist() == [[8 - 1 - 5, 12 - 1 - 9]]
