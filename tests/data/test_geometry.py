from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medxfer.data.formats.geometry import (
    axis_codes,
    largest_distance,
    lps_to_ras,
    picture_affine,
    refuse_impossible,
    shear_of,
    spacing_of,
    to_closest_ras,
    unsheared,
)
from medxfer.errors import DataError

SIDES = some.tuples(some.integers(1, 5), some.integers(1, 5), some.integers(1, 5))
SMALL = some.floats(-0.4, 0.4)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    turns = []
    for angle, (i, j) in zip((x, y, z), ((1, 2), (0, 2), (0, 1)), strict=True):
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    return turns[0] @ turns[1] @ turns[2]


@some.composite
def affines(draw: some.DrawFn) -> np.ndarray:
    """Any rotation, anisotropic, mirrored or not, axes in any order, a little sheared or not."""
    angles = [draw(some.floats(-3.2, 3.2)) for _ in range(3)]
    sizes = [draw(some.floats(0.2, 6)) for _ in range(3)]
    shear = np.eye(3)
    shear[0, 2], shear[1, 2] = draw(SMALL), draw(SMALL)
    signs = [draw(some.sampled_from((-1.0, 1.0))) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = (rotation(*angles) @ shear @ np.diag(signs) * sizes)[
        :, draw(some.permutations(range(3)))
    ]
    affine[:3, 3] = [draw(some.floats(-200, 200)) for _ in range(3)]
    return affine


def voxels(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)


def world(array: np.ndarray, affine: np.ndarray) -> dict[float, tuple[float, ...]]:
    """Value of each voxel to its place in the patient."""
    places = {}
    for index in np.ndindex(array.shape[1:]):
        places[float(array[(0, *index)])] = tuple(affine[:3, :3] @ index + affine[:3, 3])
    return places


@given(affine=affines(), shape=SIDES)
@settings(max_examples=60)
def test_turning_to_ras_moves_no_voxel_in_the_patient(
    affine: np.ndarray, shape: tuple[int, int, int]
) -> None:
    array = voxels(shape)

    turned, new = to_closest_ras(array, affine)

    before, after = world(array, affine), world(turned, new)
    assert before.keys() == after.keys()
    assert all(np.allclose(before[value], after[value], atol=1e-9) for value in before)
    assert axis_codes(new) == "RAS"
    assert sorted(spacing_of(new)) == pytest.approx(sorted(spacing_of(affine)))


@given(affine=affines(), shape=SIDES)
@settings(max_examples=60)
def test_turning_to_ras_is_nibabels_and_a_second_turn_changes_nothing(
    affine: np.ndarray, shape: tuple[int, int, int]
) -> None:
    array = voxels(shape)
    theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(array[0], affine))

    turned, new = to_closest_ras(array, affine)
    again, same = to_closest_ras(turned, new)

    np.testing.assert_array_equal(turned[0], np.asarray(theirs.dataobj))
    np.testing.assert_allclose(new, theirs.affine, atol=1e-12)
    np.testing.assert_array_equal(again, turned)
    np.testing.assert_array_equal(same, new)


@given(affine=affines())
@settings(max_examples=30)
def test_lps_and_ras_turn_into_each_other(affine: np.ndarray) -> None:
    np.testing.assert_array_equal(lps_to_ras(lps_to_ras(affine)), affine)
    assert spacing_of(lps_to_ras(affine)) == pytest.approx(spacing_of(affine))


@pytest.mark.parametrize("degrees", [0.0, 0.05, 14.0, 30.0])
def test_shear_is_the_tilt_in_degrees(degrees: float) -> None:
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[1, 2] = 3.0 * np.tan(np.radians(degrees))
    affine[:3, :3] = rotation(0.3, -0.2, 1.0) @ affine[:3, :3]

    assert shear_of(affine) == pytest.approx(degrees, abs=1e-6)


def test_undoing_a_shear_puts_every_value_where_it_was_in_the_patient() -> None:
    affine = np.diag([1.0, 0.8, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(14))
    affine[:3, 3] = (-10, 5, 40)
    affine[:3, :3] = rotation(0.2, 0.1, -0.3) @ affine[:3, :3]
    shape = (9, 11, 7)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    mm = np.einsum("ij,jxyz->ixyz", affine[:3, :3], places) + affine[:3, 3, None, None, None]
    array = (mm[0] + 2 * mm[1] - 3 * mm[2] + 500)[None].astype(
        np.float32
    )  # linear in space: interpolated exactly

    straight, new = unsheared(array, affine)

    assert shear_of(new) == pytest.approx(0, abs=1e-6)
    places = np.stack(np.meshgrid(*map(np.arange, straight.shape[1:]), indexing="ij"))
    new_mm = np.einsum("ij,jxyz->ixyz", new[:3, :3], places) + new[:3, 3, None, None, None]
    expected = new_mm[0] + 2 * new_mm[1] - 3 * new_mm[2] + 500
    old = np.einsum("ij,jxyz->ixyz", np.linalg.inv(affine)[:3, :3], new_mm)
    old += np.linalg.inv(affine)[:3, 3, None, None, None]
    inside = np.all([(old[i] >= 0) & (old[i] <= shape[i] - 1) for i in range(3)], axis=0)
    assert inside.sum() > 0.6 * np.prod(shape)
    np.testing.assert_allclose(straight[0][inside], expected[inside], atol=2e-3)


def test_undoing_a_shear_of_a_mask_keeps_its_values() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 0.7
    mask = (np.random.default_rng(0).random((1, 8, 8, 8)) > 0.5).astype(np.float32)

    straight, _ = unsheared(mask, affine, nearest=True)

    assert set(np.unique(straight)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1.0, 1.0, 0.0, 1.0]), "voxels of size"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.diag([1.0, 1.0, 1e9, 1.0]), "voxels of size"),
        (np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1.0]]), "one plane"),
    ],
)
def test_d26_an_affine_that_places_nothing_is_refused(affine: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        refuse_impossible(Path("a.nii"), affine, "export it again")


def test_distance_of_two_affines_is_that_of_the_worst_corner() -> None:
    other = np.eye(4)
    other[0, 0] = 1.1

    assert largest_distance(np.eye(4), other, (11, 5, 5)) == pytest.approx(1.0)


def test_a_slice_lies_where_its_rows_and_columns_run() -> None:
    affine = picture_affine((10, -20, 30), (0, 1, 0, 0, 0, -1), (0.5, 1.25))

    assert affine is not None
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-10, 20, 30, 1])
    np.testing.assert_allclose(affine @ [2, 0, 0, 1], [-10, 20, 29, 1])  # two rows on: down
    np.testing.assert_allclose(affine @ [0, 4, 0, 1], [-10, 15, 30, 1])  # four columns on: to the back
    assert picture_affine(None, (1, 0, 0, 0, 1, 0), (1, 1)) is None
    assert picture_affine((0, 0, 0), (1, 0, 0, 0.7, 0.7, 0), (1, 1)) is None
