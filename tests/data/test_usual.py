"""Images unlike the training images are told, like ones hardly ever."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.data.cache import Arrays
from medxfer.data.case import Case
from medxfer.data.placed import Placed
from medxfer.data.usual import Seen, Usual, seen_of, seen_row, unlike_rows, usual_from, usual_of
from medxfer.errors import DataError

SIDE = 32
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5


def body(seed: int) -> np.ndarray:
    """A bright oval with two dark ones in it, on black, every one a little different: (1, rows, columns) uint8."""
    random = np.random.default_rng(seed)
    place, size = random.normal(0, 0.03, 4), random.normal(1, 0.08, 3)
    x, y = _COLUMNS - place[0], _ROWS - place[1]
    image = 0.7 * ((x / 0.42 / size[0]) ** 2 + (y / 0.46) ** 2 < 1)
    for side in (-0.18, 0.18):
        image -= 0.5 * (((x - side - place[2]) / 0.1 / size[1]) ** 2 + ((y - place[3]) / 0.25) ** 2 < 1)
    noisy = np.clip(image * size[2] + random.normal(0, 0.03, image.shape), 0, 1)
    return (noisy[None] * 255).astype(np.uint8)


def arrays_of(
    images: np.ndarray, *, suffix: str = ".png", spacing: float = 20.0, patients: int | None = None
) -> Arrays:
    count = patients or len(images)
    cases = tuple(
        Case(id=f"c{row}", images=(Path(f"c{row}{suffix}"),), patient=f"p{row % count}")
        for row in range(len(images))
    )
    affines = np.stack([np.diag([*[spacing] * (images.ndim - 2), 1.0])] * len(images))
    return Arrays(images=images, cases=cases, sha256=("",) * len(images), affines=affines)


BODIES = np.stack([body(seed) for seed in range(400)])
ROWS = range(100)


@pytest.fixture(scope="module")
def usual() -> Usual:
    found = usual_of(arrays_of(BODIES), ROWS)
    assert found is not None
    return found


def test_images_of_the_same_kind_are_hardly_ever_told(usual: Usual) -> None:
    told = [row for row in unlike_rows(usual, arrays_of(BODIES)) if row not in ROWS]

    assert len(told) <= 0.02 * 300


def test_inverted_images_are_told_and_what_they_would_need(usual: Usual) -> None:
    seen = seen_row(arrays_of(BODIES), 200)

    (said,) = usual.remarks(dataclasses.replace(seen, values=1 - seen.values))

    assert said.startswith("unlike the training images: ")
    assert "after preprocessing (theirs " in said
    assert said.endswith("inverted it would be like them")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image * 0.3,
        lambda image: np.random.default_rng(0).random(image.shape),
        lambda image: np.full_like(image, 0.5),
    ],
    ids=["dark", "noise", "one value"],
)
def test_other_images_are_told(usual: Usual, change: Callable[[np.ndarray], np.ndarray]) -> None:
    seen = seen_row(arrays_of(BODIES), 200)

    assert usual.remarks(dataclasses.replace(seen, values=change(seen.values).astype(np.float32)))


def test_a_thumbnail_is_told_by_its_size_and_a_larger_picture_is_not(usual: Usual) -> None:
    small = seen_row(arrays_of(BODIES, spacing=2.0), 200)
    large = seen_row(arrays_of(BODIES, spacing=90.0), 200)

    assert usual.remarks(small) == [
        "smaller than the training images: 64 x 64 pixels (theirs at least 640 x 640)"
    ]
    assert usual.remarks(large) == []


def test_a_figure_that_decided_nothing_is_not_named(usual: Usual) -> None:
    moved = np.roll(BODIES[200], SIDE // 2, axis=2).astype(np.float32) / 255
    spacing = (20.0, 20.0)
    (remark,) = usual.remarks(Seen(moved, spacing, "pixels"))
    assert "its brightness is spread otherwise over levels and places" in remark
    (black,) = usual.remarks(Seen(np.zeros_like(moved), spacing, "pixels"))
    assert "e-" not in black


def test_steps_in_mm_are_told_both_ways_but_not_against_pixels() -> None:
    found = usual_of(arrays_of(BODIES, suffix=".dcm", spacing=1.0), ROWS)
    assert found is not None
    seen = seen_row(arrays_of(BODIES, suffix=".dcm", spacing=1.0), 200)

    for spacing in (0.5, 2.0):
        (said,) = found.remarks(dataclasses.replace(seen, spacing=(spacing, spacing)))
        assert f"the network sees steps of {spacing:g} x {spacing:g} mm (theirs 1 x 1)" in said
    assert found.remarks(dataclasses.replace(seen, spacing=(9.0, 9.0), unit="pixels")) == []


def test_pixels_are_counted_where_a_picture_was_read_without_a_spacing() -> None:
    image = Placed(torch.zeros(1, 4, 4), np.diag([8.0, 8.0, 1.0]))

    units = [seen_of(image, Placed(torch.zeros(1, 32, 32), np.diag([mm, mm, 1.0]))).unit for mm in (1, 0.14)]

    assert units == ["pixels", "mm"]


def test_few_images_or_one_patient_say_too_little() -> None:
    assert usual_of(arrays_of(BODIES), range(11)) is None
    assert usual_of(arrays_of(BODIES, patients=1), ROWS) is None


@pytest.mark.parametrize("shape", [(3, 20, 24), (6, 20, 24), (1, 12, 10, 8), (2, 90, 80, 70)])
def test_channels_and_volumes_have_figures_too(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    images = (random.random((14, *[1] * len(shape))) * random.random((14, *shape)) * 255).astype(np.uint8)
    arrays = arrays_of(images, suffix=".nii.gz")

    found = usual_of(arrays, range(13))

    assert found is not None
    other = Seen(np.ones(shape, np.float32), tuple([20.0] * (len(shape) - 1)), "mm")
    assert "share of white" in found.remarks(other)[0]


def test_written_and_read_again_it_says_the_same(usual: Usual) -> None:
    again = usual_from(json.loads(json.dumps(usual.to_plain())), "training_images.json")

    seen = seen_row(arrays_of(BODIES), 3)
    other = dataclasses.replace(seen, values=1 - seen.values)
    assert again.remarks(other) == usual.remarks(other)
    assert again.remarks(seen) == usual.remarks(seen)


@pytest.mark.parametrize(
    "change",
    [{"mean": [1.0]}, {"precision": None}, {"channels": 3}, {"limit": "x"}, {"low": [float("nan")] * 5}],
)
def test_a_damaged_file_is_refused(usual: Usual, change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="train again"):
        usual_from({**usual.to_plain(), **change}, "training_images.json")
