from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medxfer.bundle.schema import DataSpec, ImagesSpec
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.case import Case
from medxfer.data.cases import find_cases
from medxfer.data.leaks import find_duplicates
from medxfer.data.presets import steps_of
from medxfer.progress import Progress

from .faults import chest


def arrays_of(pictures: list[np.ndarray]) -> Arrays:
    cases = tuple(
        Case(id=f"c{row}", images=(Path(f"c{row}"),), patient=f"p{row}") for row in range(len(pictures))
    )
    return Arrays(
        images=np.stack(pictures)[:, None],
        cases=cases,
        sha256=("0" * 64,) * len(pictures),
        affines=np.zeros((len(pictures), 3, 3)),
    )


def again(picture: np.ndarray, quality: int = 60, side: int = 96) -> np.ndarray:
    """Resized, saved as JPEG and resized back."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((side, side)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).resize(picture.shape[::-1]))


def test_equal_pixels_are_one_exact_group() -> None:
    pictures = [chest(seed, 64) for seed in range(20)]

    found = find_duplicates(arrays_of([*pictures, pictures[3], pictures[3], pictures[7]]))

    assert sorted(found.exact) == [(3, 20, 21), (7, 22)]
    assert found.near == ()


def test_resized_and_compressed_copies_are_near() -> None:
    pictures = [chest(seed, 64) for seed in range(30)]

    found = find_duplicates(arrays_of([*pictures, *(again(picture) for picture in pictures)]))

    assert found.exact == ()
    assert sorted(found.near) == [(row, row + 30) for row in range(30)]


def test_copies_of_an_exact_pair_join_its_group() -> None:
    pictures = [chest(seed, 64) for seed in range(5)]

    found = find_duplicates(arrays_of([*pictures, pictures[0], again(pictures[0])]))

    assert found.exact == ((0, 5),)
    assert found.near == ((0, 5, 6),)


def test_constant_pictures_are_near_to_nothing() -> None:
    pictures = [chest(seed, 64) for seed in range(5)]

    found = find_duplicates(
        arrays_of([*pictures, np.zeros((64, 64), np.uint8), np.full((64, 64), 9, np.uint8)])
    )

    assert found == find_duplicates(arrays_of(pictures))


def test_thousands_are_compared() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6000, 32, 32)).astype(np.uint8)

    found = find_duplicates(arrays_of([*noise, noise[5]]))

    assert found.exact == ((5, 6000),)


def real(shared: Path, name: str) -> Arrays:
    root = shared / "data" / name
    cases = find_cases(DataSpec(source=str(root)), root).cases
    return cache_arrays(cases, steps_of(ImagesSpec(size=128), 1), "uint8", Progress(quiet=True))


@pytest.mark.parametrize(
    ("name", "groups", "files", "near"),
    [
        ("pneumonia", 30, 62, 0),
        ("brain_mri", 22, 47, 20),
        ("abdomen_chest", 1, 2, 0),
        ("pathology_cls", 7, 14, 2),
    ],
)
def test_real_folders_have_the_duplicates_that_were_counted(
    shared: Path, name: str, groups: int, files: int, near: int
) -> None:
    found = find_duplicates(real(shared, name))

    assert (len(found.exact), sum(map(len, found.exact)), len(found.near)) == (groups, files, near)
