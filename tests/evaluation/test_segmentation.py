"""Measures of masks: by hand on tiny ones, against MONAI on others, and what empty ones give."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from medxfer.evaluation.segmentation import Measures, measure, measure_case

MM = (1.0, 1.0, 1.0)


def cube(start: int, stop: int, side: int = 12) -> np.ndarray:
    mask = np.zeros((side, side, side), dtype=bool)
    mask[start:stop, start:stop, start:stop] = True
    return mask


def blobs(seed: int, shape: tuple[int, ...], share: float = 0.8) -> np.ndarray:
    """Smooth random structures that reach the edge of the image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return noise > np.quantile(noise, share)


def one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


def test_overlap_and_volume_by_hand() -> None:
    true, predicted = np.zeros((4, 4, 4), dtype=bool), np.zeros((4, 4, 4), dtype=bool)
    true[0, 0, :4] = True
    predicted[0, 0, 1:3] = True
    predicted[1, 1, 1] = True

    found = measure(predicted, true, spacing=(10.0, 10.0, 5.0), tolerance=1.0)

    assert found.dice == pytest.approx(2 * 2 / (3 + 4))
    assert found.iou == pytest.approx(2 / 5)
    assert found.size == pytest.approx(1.5)  # 3 voxels of 0.5 ml
    assert found.true_size == pytest.approx(2.0)
    assert found.size_error == pytest.approx(-0.5)
    assert found.values()["volume_error_ml"] == pytest.approx(0.5)


def test_distance_of_two_single_voxels_is_that_of_their_centres_in_mm() -> None:
    one, other = np.zeros((9, 9, 9), dtype=bool), np.zeros((9, 9, 9), dtype=bool)
    one[1, 2, 3], other[4, 6, 3] = True, True

    found = measure(one, other, spacing=(2.0, 0.5, 7.0), tolerance=1.0)

    assert found.hd95 == pytest.approx(math.hypot(3 * 2.0, 4 * 0.5))


def test_surface_dice_of_a_shifted_cube_by_hand() -> None:
    """A cube one voxel aside: at 1 mm all is near; at 0.5 mm the faces across the shift are not."""
    true = cube(3, 8)
    predicted = np.roll(true, 1, axis=0)

    near = measure(predicted, true, spacing=MM, tolerance=1.0)
    exact = measure(predicted, true, spacing=MM, tolerance=0.5)
    wide = measure(predicted, true, spacing=(3.0, 1.0, 1.0), tolerance=1.0)

    assert near.surface_dice == 1.0
    assert 0.5 < exact.surface_dice < 0.75
    assert exact.surface_dice < wide.surface_dice < 1.0  # the long sides have more of the area


def test_surface_dice_of_lines_by_hand_in_a_picture() -> None:
    """Nikolov's elements in two dimensions: of a square the corners count less than the sides."""
    true = np.zeros((10, 10), dtype=bool)
    true[2:6, 2:6] = True  # length: 4 sides of 3 mm and 4 cut corners of sqrt(0.5) mm
    predicted = true.copy()
    predicted[2:6, 6:9] = True  # 3 mm longer

    found = measure(predicted, true, spacing=(1.0, 1.0), tolerance=0.5)

    corner = math.sqrt(0.5)
    of_true = (
        3 + 3 + 3 + 4 * corner
    )  # left, top, bottom and all corners lie on the other; the right side does not
    of_predicted = 3 + 4 + 4 + 2 * corner  # left, and of top and bottom as far as the corner of the true one
    total = (12 + 4 * corner) + (18 + 4 * corner)
    assert found.surface_dice == pytest.approx((of_true + of_predicted) / total, abs=1e-6)
    assert found.size_unit == "cm2"
    assert found.true_size == pytest.approx(0.16)


def test_both_empty_is_not_defined_and_one_empty_is_the_worst() -> None:
    nothing, something = np.zeros((3, 4, 12), dtype=bool), np.zeros((3, 4, 12), dtype=bool)
    something[1, 1, 1] = True

    neither = measure(nothing, nothing, spacing=MM, tolerance=1.0)
    missed = measure(nothing, something, spacing=MM, tolerance=1.0)
    invented = measure(something, nothing, spacing=MM, tolerance=1.0)

    assert all(math.isnan(value) for value in (neither.dice, neither.iou, neither.hd95, neither.surface_dice))
    assert neither.size_error == 0.0
    assert neither.fault == ""
    for one in (missed, invented):
        assert (one.dice, one.iou, one.surface_dice) == (0.0, 0.0, 0.0)
        assert one.hd95 == 13.0  # the diagonal of 3 x 4 x 12 mm
    assert missed.fault == "missed"
    assert invented.fault == "called where there is none"
    assert missed.size_error == -invented.size_error < 0


def test_equal_masks_are_perfect() -> None:
    mask = blobs(0, (14, 15, 16))

    found = measure(mask, mask, spacing=(1.0, 2.0, 3.0), tolerance=0.0)

    assert (found.dice, found.iou, found.hd95, found.surface_dice) == (1.0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((20, 24, 18), (1.0, 1.0, 1.0)),
        ((20, 24, 10), (0.7, 0.9, 5.0)),
        ((40, 31), (1.0, 1.0)),
        ((40, 31), (0.5, 2.0)),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_measures_are_those_of_monai(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    from monai.metrics import (
        compute_dice,
        compute_hausdorff_distance,
        compute_iou,
        compute_surface_dice,
    )

    predicted, true = blobs(seed, shape), blobs(seed, shape, 0.7)
    predicted = np.roll(predicted, 2, axis=1)

    found = measure(predicted, true, spacing=spacing, tolerance=1.5)

    pair = (one_hot(predicted), one_hot(true))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=list(spacing)
        )
        near = compute_surface_dice(
            *pair, [1.5], include_background=True, spacing=list(spacing), use_subvoxels=True
        )
    assert found.dice == pytest.approx(compute_dice(*pair).item(), abs=1e-6)
    assert found.iou == pytest.approx(compute_iou(*pair).item(), abs=1e-6)
    assert found.hd95 == pytest.approx(distance.item(), rel=1e-5)
    assert found.surface_dice == pytest.approx(near.item(), abs=1e-5)


def test_where_monai_differs_empty_masks_count_as_the_diagonal_not_as_infinite() -> None:
    from monai.metrics import compute_hausdorff_distance

    nothing, something = np.zeros((6, 6, 6), dtype=bool), cube(1, 3, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = compute_hausdorff_distance(
            one_hot(nothing), one_hot(something), include_background=True, percentile=95
        )

    assert not np.isfinite(theirs.item())
    assert measure(nothing, something, spacing=MM, tolerance=1.0).hd95 == pytest.approx(6 * math.sqrt(3))


def test_the_place_in_the_image_does_not_matter() -> None:
    predicted, true = blobs(3, (16, 16, 16)), blobs(4, (16, 16, 16))
    around = [(9, 3), (0, 20), (5, 5)]

    inside = measure(predicted, true, spacing=(1.0, 0.5, 2.0), tolerance=1.0)
    placed = measure(np.pad(predicted, around), np.pad(true, around), spacing=(1.0, 0.5, 2.0), tolerance=1.0)

    assert placed == inside


def test_every_class_is_measured_by_its_number() -> None:
    true = np.zeros((8, 8, 8), dtype=np.uint8)
    true[:4], true[4:] = 1, 2
    predicted = true.copy()
    predicted[4] = 1

    found = measure_case(
        predicted, true, classes=["a", "b", "c"], spacing=MM, tolerance={"a": 1, "b": 0.4, "c": 1}
    )

    assert found["a"].dice == pytest.approx(2 * 4 / 9)
    assert found["b"].dice == pytest.approx(2 * 3 / 7)
    assert math.isnan(found["c"].dice)
    assert found["a"].surface_dice == 1.0 > found["b"].surface_dice


def test_overlapping_regions_are_a_stack() -> None:
    whole, core = cube(1, 9), cube(3, 6)

    found = measure_case(
        np.stack([whole, whole]),
        np.stack([whole, core]),
        classes=["whole", "core"],
        spacing=MM,
        tolerance=1.0,
    )

    assert found["whole"].dice == 1.0
    assert found["core"].dice == pytest.approx(2 * 27 / (27 + 512))


def test_voxels_to_ignore_count_on_neither_side() -> None:
    true, predicted = np.zeros((6, 6, 6), dtype=np.uint8), np.zeros((6, 6, 6), dtype=np.uint8)
    true[1:3], predicted[1:4] = 1, 1
    true[3] = 255

    found = measure_case(predicted, true, classes=["a"], spacing=MM, tolerance=0.0, ignore=255)["a"]
    by_mask = measure_case(predicted, true, classes=["a"], spacing=MM, tolerance=0.0, ignore=true == 255)["a"]

    assert found == by_mask
    assert (found.dice, found.hd95, found.surface_dice) == (1.0, 0.0, 1.0)
    assert found.size == found.true_size
    with pytest.raises(ValueError, match="give a boolean array"):
        measure_case(true[None] > 0, true[None] > 0, classes=["a"], spacing=MM, tolerance=0.0, ignore=255)


def test_without_a_spacing_lengths_are_voxels() -> None:
    found = measure(cube(1, 3), cube(1, 4), spacing=None, tolerance=1.0)

    assert set(found.values()) == {"dice", "iou", "hd95_voxels", "surface_dice", "volume_error_voxels"}
    assert (found.size, found.true_size) == (8, 27)


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\), truth \(2, 2, 3\)"):
        measure_case(
            np.zeros((2, 2, 2), np.uint8),
            np.zeros((2, 2, 3), np.uint8),
            classes=["a"],
            spacing=MM,
            tolerance=1,
        )
    with pytest.raises(ValueError, match="2 masks for 1 classes"):
        measure_case(
            np.zeros((2, 2, 2, 2), bool), np.zeros((2, 2, 2, 2), bool), classes=["a"], spacing=MM, tolerance=1
        )


def test_a_row_holds_plain_values_and_leaves_empty_what_is_not_defined() -> None:
    nothing = np.zeros((3, 3, 3), dtype=bool)

    row = measure(nothing, nothing, spacing=MM, tolerance=1.0).to_row()

    assert row["dice"] == ""
    assert row["volume_ml"] == 0.0
    assert isinstance(Measures.__doc__, str)
