"""The first batch is looked at, and advice given only with evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from medxfer.data.synthetic.chest_xray import make_radiograph, plan
from medxfer.encoders.adapt import ExpandChannels
from medxfer.encoders.first_batch import check_first_batch
from medxfer.plugin import Encoder, Normalise

IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Bare(Encoder):
    """An encoder of which only the normalisation is asked."""

    def __init__(self, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise


@pytest.fixture(scope="module")
def radiographs() -> Tensor:
    """Synthetic chest X-rays as they should be: air black; `(B, 1, rows, columns)` in [0, 1]."""
    images = []
    for planned in plan(16, seed=3):
        made = make_radiograph(planned, seed=3)
        pixels = np.asarray(made.pixels, np.float32)
        picture = Image.fromarray((pixels - pixels.min()) / np.ptp(pixels)).resize(
            (96, 96), Image.Resampling.BOX
        )
        grey = torch.from_numpy(np.array(picture))
        images.append(1 - grey if made.photometric == "MONOCHROME1" else grey)
    return torch.stack(images)[:, None]


def grey_encoder() -> Encoder:
    return Bare(nn.Sequential(ExpandChannels(1, 3), IMAGENET))


def advice(images: Tensor, preset: str = "xray", **others: bool) -> list[str]:
    return check_first_batch(images, grey_encoder(), preset=preset, **others)


def test_images_as_they_should_be_get_no_advice(radiographs: Tensor) -> None:
    assert advice(radiographs) == []


def test_inverted_chest_xrays_are_suspected_and_said(radiographs: Tensor) -> None:
    (said,) = advice(1 - radiographs)

    assert "look inverted" in said
    assert "MONOCHROME1" in said


def test_a_quarter_of_them_inverted_is_enough(radiographs: Tensor) -> None:
    images = radiographs.clone()
    images[::3] = 1 - images[::3]

    assert any("look inverted" in said for said in advice(images))


def test_polarity_is_a_question_of_xrays_only(radiographs: Tensor) -> None:
    assert advice(1 - radiographs, preset="dermatology") == []
    assert check_first_batch((1 - radiographs)[..., None].expand(-1, -1, -1, -1, 8), grey_encoder()) == []


@pytest.mark.parametrize("negative", [True, False])
def test_real_chest_xrays_are_judged_rightly(shared: object, negative: bool) -> None:
    folder = shared / "data" / "lung_xray_seg" / "images"  # type: ignore[operator]
    files = sorted(folder.iterdir())[:24]
    pictures = [Image.open(file).convert("L").resize((96, 96)) for file in files]
    images = torch.stack([torch.from_numpy(np.array(p, np.float32)) / 255 for p in pictures])[:, None]

    said = advice(1 - images if negative else images)

    assert [("look inverted" in one) for one in said] == [True] * negative


@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (2.0, -1.0), (2048.0, -1024.0)])
def test_values_outside_0_to_1_are_named(radiographs: Tensor, scale: float, shift: float) -> None:
    (said,) = advice(radiographs * scale + shift)

    assert f"{float(radiographs.max()) * scale + shift:.4g}" in said
    assert "0 to 1" in said


def test_overshoot_of_interpolation_is_none(radiographs: Tensor) -> None:
    assert advice(radiographs * 1.03 - 0.015) == []


def test_scaled_twice(radiographs: Tensor) -> None:
    (said,) = advice(radiographs / 255)

    assert "twice" in said


def test_flat_images_are_counted(radiographs: Tensor) -> None:
    images = radiographs.clone()
    images[:5] = 0.4

    assert any(said.startswith("5 of 16 images have next to no contrast") for said in advice(images))


@pytest.mark.parametrize(("factor", "kind"), [(0.03, "darker"), (-0.03, "brighter")])
def test_far_from_the_weights_images(radiographs: Tensor, factor: float, kind: str) -> None:
    images = radiographs * factor if factor > 0 else 1 + radiographs * factor
    said = advice(images, preset="")

    assert any(f"far {kind}" in one for one in said)
    assert not any(f"far {kind}" in one for one in advice(images, preset="", pretrained=False))


def test_constants_that_only_set_a_range_tell_nothing_of_brightness(radiographs: Tensor) -> None:
    encoder = Bare(Normalise((0.5,), (1 / 2048,)))

    assert check_first_batch(radiographs, encoder, preset="xray") == []


def test_noise_is_no_evidence() -> None:
    assert advice(torch.rand(64, 1, 64, 64, generator=torch.Generator().manual_seed(0))) == []


def test_numbers_that_are_none_are_said(radiographs: Tensor) -> None:
    images = radiographs.clone()
    images[3, 0, 5, 5] = float("nan")

    assert advice(images)[0].startswith("1 of 16 images hold NaN")
