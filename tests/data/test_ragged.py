"""Rows of different sizes, and the cache that keeps them with their maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medxfer.bundle.schema import ImagesSpec, PatchSpec
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.case import Case
from medxfer.data.leaks import find_duplicates
from medxfer.data.masks import MaskRule
from medxfer.data.presets import steps_of
from medxfer.data.ragged import Ragged, rows_of
from medxfer.errors import DataError
from medxfer.progress import Progress

from .phantom import hand

QUIET = Progress(quiet=True)
RULE = MaskRule(classes=3)
SPEC = ImagesSpec(preset="mri", dims=3, size=(16, 16, 16), patches=PatchSpec())
SHAPES = ((14, 11, 9), (15, 12, 9), (14, 11, 10))


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=6
    ),
)
def test_each_row_is_a_view_of_its_own_values(shapes: list[tuple[int, int, int]]) -> None:
    flat = np.arange(sum(int(np.prod(shape)) for shape in shapes), dtype=np.int16)

    rows = rows_of(flat, shapes)

    assert isinstance(rows, Ragged) == (len(set(shapes)) > 1)
    assert (len(rows), rows.ndim, rows.dtype) == (len(shapes), 4, np.int16)
    assert [row.shape for row in rows] == shapes
    np.testing.assert_array_equal(np.concatenate([row.ravel() for row in rows]), flat)
    assert all(np.shares_memory(row, flat) for row in rows)


def test_values_that_do_not_fill_the_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="7 values for shapes of 8"):
        Ragged(np.zeros(7), [(2, 2), (1, 4)])


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def volumes(folder: Path, shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> list[Case]:
    folder.mkdir()
    cases = []
    for number, shape in enumerate(shapes):
        random = np.random.default_rng(number)
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        image = (random.random(shape) * 100 + 100 * hand(shape)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"i{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(hand(shape), affine), folder / f"m{number}.nii.gz")
        cases.append(
            Case(
                id=f"i{number}",
                images=(folder / f"i{number}.nii.gz",),
                patient=f"p{number}",
                label=folder / f"m{number}.nii.gz",
            )
        )
    return cases


def cached(
    cases: list[Case], rule: MaskRule | None = RULE, images: ImagesSpec = SPEC, **how: object
) -> Arrays:
    return cache_arrays(
        cases,
        steps_of(images, 1),
        images.store,
        QUIET,
        masks=rule,
        one_size=images.patches is None,
        **how,  # type: ignore[arg-type]
    )


def entries(home: Path) -> list[Path]:
    return sorted((home / "cache").iterdir())


def test_images_of_different_sizes_keep_them_and_their_maps(tmp_path: Path, own_home: Path) -> None:
    cases = volumes(tmp_path / "data")

    for _ in range(2):  # fresh, then from the cache
        arrays = cached(cases)
        assert arrays.is_ragged
        assert [one.shape for one in arrays.images] == [(1, *shape) for shape in SHAPES]
        assert arrays.maps is not None
        for one, shape in zip(arrays.maps, SHAPES, strict=True):
            np.testing.assert_array_equal(one, hand(shape))
        assert arrays.affines.shape == (3, 4, 4)
        assert arrays.batch([2]).shape == (1, 1, *SHAPES[2])
        assert 0 <= arrays.batch([1]).min() < arrays.batch([1]).max() <= 1
        assert arrays.together(64) == 1
        assert not find_duplicates(arrays).exact
    assert len(entries(own_home)) == 1


def test_images_of_one_size_are_one_array(tmp_path: Path) -> None:
    arrays = cached(volumes(tmp_path / "data", (SHAPES[0],) * 2))

    assert not arrays.is_ragged
    assert isinstance(arrays.images, np.ndarray)
    assert arrays.images.shape == (2, 1, *SHAPES[0])
    assert arrays.maps is not None
    assert isinstance(arrays.maps, np.ndarray)
    assert arrays.maps.shape == (2, *SHAPES[0])
    assert arrays.together(64) == 64


def test_large_images_are_held_a_few_at_a_time() -> None:
    images = np.zeros((3, 1, 512, 512, 100), np.uint8)
    arrays = Arrays(images=images, cases=(), sha256=(), affines=np.zeros((3, 4, 4)))

    assert arrays.together(64) == 1
    assert dataclasses.replace(arrays, images=images[..., :8]).together(64) == 4


def test_resized_images_have_maps_of_that_size(tmp_path: Path) -> None:
    whole = dataclasses.replace(SPEC, patches=None, transforms=None)

    arrays = cached(volumes(tmp_path / "data"), images=whole)

    assert isinstance(arrays.images, np.ndarray)
    assert arrays.maps is not None
    assert [one.shape for one in arrays.maps] == [(16, 16, 16)] * 3
    assert all(set(np.unique(one)) == {0, 1, 2, 3} for one in arrays.maps)


def test_images_of_different_sizes_without_patches_are_refused(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, size=(14, 11, 9))
    cases = volumes(tmp_path / "data")

    with pytest.raises(DataError, match="one shape for all cases"):
        cache_arrays(cases, steps_of(spec, 1), spec.store, QUIET, masks=RULE, one_size=True)


@pytest.mark.parametrize("name", ["maps.bin", "images.bin"])
@pytest.mark.parametrize("fault", ["flip", "cut", "absent"])
def test_damaged_maps_are_read_again(tmp_path: Path, own_home: Path, name: str, fault: str) -> None:
    cases = volumes(tmp_path / "data")
    cached(cases)
    file = entries(own_home)[0] / name
    content = bytearray(file.read_bytes())
    if fault == "absent":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)

    again = cached(cases)

    assert again.maps is not None
    for one, shape in zip(again.maps, SHAPES, strict=True):
        np.testing.assert_array_equal(one, hand(shape))


def test_the_key_changes_with_the_rule_the_mask_and_the_sizes_wanted(tmp_path: Path, own_home: Path) -> None:
    cases = volumes(tmp_path / "data", (SHAPES[0],) * 2)
    cached(cases)
    ignoring = cached(cases, MaskRule(classes=2, ignore=3))
    assert ignoring.maps is not None
    assert ignoring.maps[0].max() == 255
    assert len(entries(own_home)) == 2

    bare = cached(cases, None)
    assert bare.maps is None
    assert len(entries(own_home)) == 3

    changed = hand(SHAPES[0]).copy()
    changed[0, 0, 0] = 2
    assert isinstance(cases[1].label, Path)
    nibabel.save(nibabel.Nifti1Image(changed, np.diag([1.0, 1.0, 2.0, 1.0])), cases[1].label)
    again = cached(cases)
    assert again.maps is not None
    assert again.maps[1][0, 0, 0] == 2
    assert len(entries(own_home)) == 4

    cached(cases)
    assert len(entries(own_home)) == 4


def test_a_case_with_a_bad_mask_stops_or_is_left_out(tmp_path: Path) -> None:
    cases = volumes(tmp_path / "data")
    assert isinstance(cases[1].label, Path)
    nibabel.save(nibabel.Nifti1Image(hand(SHAPES[0]), np.eye(4)), cases[1].label)

    for _ in range(2):  # fresh, then from the cache
        with pytest.raises(
            DataError,
            match=r"1 of 3 cannot be used: i1: mask m1.nii.gz: a mask of 14 x 11 x 9(?s:.)*15 x 12 x 9",
        ):
            cached(cases)
    arrays = cached(cases, on_bad_image="skip")

    assert [case.id for case in arrays.cases] == ["i0", "i2"]
    assert [one.shape for one in arrays.maps or ()] == [SHAPES[0], SHAPES[2]]
    assert arrays.refused[0].case == "i1"


@pytest.mark.parametrize(
    ("fault", "seen", "todo"),
    [
        ("nothing", "0 bytes", "write the mask again"),
        ("cut", "truncated", "copy the file again"),
        ("nan", "1 value is NaN", "write whole numbers"),
        ("4D", "2 volumes", "write one label map"),
    ],
)
def test_a_bad_mask_is_named_with_a_remedy_for_masks(
    tmp_path: Path, fault: str, seen: str, todo: str
) -> None:
    cases = volumes(tmp_path / "data")
    path, voxels = cases[1].label, hand(SHAPES[1]).astype(np.float32)
    assert isinstance(path, Path)
    voxels[0, 0, 0] = np.nan if fault == "nan" else 0
    voxels = np.stack([voxels, voxels], -1) if fault == "4D" else voxels
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    if fault in ("nothing", "cut"):
        path.write_bytes(path.read_bytes()[: 0 if fault == "nothing" else -40])

    for _ in range(2):  # fresh, then from the cache
        with pytest.raises(DataError) as caught:
            cached(cases)
        assert caught.value.where == str(path)
        assert "mask m1.nii.gz: " in caught.value.seen
        assert seen in caught.value.seen
        assert todo in caught.value.todo
        assert "on_nonfinite" not in caught.value.todo
    assert cached(cases, on_bad_image="skip").refused[0].where == str(path)


def test_images_of_other_dimensions_than_the_network_looks_at_are_refused(tmp_path: Path) -> None:
    cases = volumes(tmp_path / "data")

    with pytest.raises(DataError) as caught:
        cached(cases, images=dataclasses.replace(SPEC, dims=2, patches=None, size=32), dims=2)

    assert "3 of 3 cannot be used: i0: a volume" in caught.value.seen
    assert (caught.value.accepted, caught.value.todo) == ("a picture", "this network looks at pictures")


def test_a_mask_beside_its_image_by_rounding_is_remarked_upon(tmp_path: Path) -> None:
    cases = volumes(tmp_path / "data")
    beside = np.diag([1.0, 1.0, 2.0, 1.0])
    beside[0, 3] = 0.05
    assert isinstance(cases[1].label, Path)
    nibabel.save(nibabel.Nifti1Image(hand(SHAPES[1]), beside), cases[1].label)

    arrays = cached(cases)

    assert [one for one in arrays.warnings if "1 of 3 cases: the mask lies beside its image" in one]


def test_a_mask_on_a_larger_padded_grid_is_background_there(tmp_path: Path) -> None:
    cases = volumes(tmp_path / "data", SHAPES[:1])
    spec = dataclasses.replace(SPEC, patches=None, spacing=(1.0, 1.0, 2.0), size=(18, 16, 16))

    arrays = cached(cases, images=spec)

    assert arrays.maps is not None
    np.testing.assert_array_equal(arrays.maps[0][2:16, 3:14, 4:13], hand(SHAPES[0]))
    assert int(np.count_nonzero(arrays.maps[0])) == int(np.count_nonzero(hand(SHAPES[0])))
    assert torch.equal(arrays.batch([0])[0, 0, 0], arrays.batch([0])[0, 0, 1])  # padding
