"""Only a box about what was called is brought to the file's grid: the mask is that of the whole prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.data.formats.grids import SourceGrid
from medxfer.data.regrid import affine_of_box, called_box, decided_on_grid

AFFINE = np.array([[2.0, 0, 0, -17], [0, 2.5, 0, 4], [0, 0, 3.0, 30], [0, 0, 0, 1]])


def turned(degrees: float) -> np.ndarray:
    """A finer grid that lies beside and within the prediction's, its axes aslant or not."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return AFFINE @ turn @ np.diag([-0.41, 0.37, 0.8, 1]) + np.array(
        [[0] * 3 + [33], [0] * 3 + [5], [0] * 4, [0] * 4]
    )


def blobs(place: str) -> np.ndarray:
    """Probabilities (3, 20, 18, 14) with two classes in the middle, at an edge, or nowhere."""
    x, y, z = np.meshgrid(*(np.arange(side) for side in (20, 18, 14)), indexing="ij")
    at = {"middle": (9, 8, 6), "edge": (0, 16, 6), "nowhere": (90, 90, 90)}[place]
    distance = np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2)
    rough = np.random.default_rng(0).normal(0, 0.4, (3, *x.shape))
    logits = np.stack([np.zeros(x.shape), 4 - distance, 3 - 2 * np.abs(distance - 5)]) + rough * (
        distance < 8
    )
    return torch.from_numpy(logits.astype(np.float32)).softmax(0).numpy()


@pytest.mark.parametrize("place", ["middle", "edge", "nowhere"])
@pytest.mark.parametrize("degrees", [0.0, 7.0])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_box_gives_the_mask_of_the_whole(place: str, degrees: float, threshold: float | None) -> None:
    p = blobs(place) if threshold is None else blobs(place)[1:]
    grid = SourceGrid(path=Path(), kind="NIfTI", shape=(48, 46, 17), affine=turned(degrees))
    called = p.argmax(0) > 0 if threshold is None else (p >= threshold).any(0)
    box = called_box(called)

    whole = decided_on_grid(p, AFFINE, grid, threshold=threshold)
    part = decided_on_grid(p[(slice(None), *box)], affine_of_box(AFFINE, box), grid, threshold=threshold)

    assert np.array_equal(part, whole)
    assert whole.any() == (place != "nowhere")
    assert np.prod([one.stop - one.start for one in box]) < called.size


def test_a_box_is_one_voxel_wider_inside_the_image() -> None:
    called = np.zeros((6, 7), dtype=bool)
    called[3, 0], called[4, 5] = True, True

    assert called_box(called) == (slice(2, 6), slice(0, 7))
    assert np.array_equal(
        affine_of_box(np.diag([2.0, 3.0, 1.0]), (slice(2, 6), slice(1, 7)))[:2, 2], [4.0, 3.0]
    )
