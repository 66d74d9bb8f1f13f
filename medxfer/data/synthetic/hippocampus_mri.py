"""Synthetic MR-like crops about a hippocampus: head and tail touch, every case has a grey scale of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .shapes import Array, blurred, edge, grid, noise
from .writing import put_decathlon, put_volume

VERSION = 1
LABELS = {0: "background", 1: "Anterior", 2: "Posterior"}


def write_hippocampi(folder: Path, *, count: int = 60, seed: int = 0, advance: Advance | None = None) -> None:
    """Write `imagesTr/*.nii.gz`, `labelsTr/*.nii.gz` and `dataset.json`: 1 mm, RAS, about 35 x 50 x 36 voxels.

    A fifth of the images is uint8, the others float32 with maxima from a hundred to a million.

    Args:
        folder: Gets the files.
        count: Volumes, each with its mask.
        seed: The same seed gives the same files.
        advance: Called after each case.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    cases = []
    for index in range(count):
        rng = np.random.default_rng([seed, 120, index])
        image, mask = make_case(rng)
        name = f"hippocampus_{index + 1:03d}"
        affine = np.eye(4)
        put_volume(folder / f"imagesTr/{name}.nii.gz", image, affine)
        put_volume(folder / f"labelsTr/{name}.nii.gz", mask, affine)
        cases.append(name)
        if advance:
            advance()
    put_decathlon(folder, "Synthetic hippocampus", "MRI", LABELS, cases)


def make_case(rng: np.random.Generator) -> tuple[NDArray[np.float32] | NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and mask, both (X, Y, Z) to the right, front and head."""
    shape = (int(rng.integers(31, 43)), int(rng.integers(44, 58)), int(rng.integers(30, 44)))
    head, tail = _parts(shape, rng)
    mask = np.where(head > np.maximum(tail, 0), 1, np.where(tail > 0, 2, 0)).astype(np.uint8)
    structure = edge(np.maximum(head, tail), 0.35)
    image = _around(np.maximum(head, tail), shape, rng)
    grey = rng.uniform(0.5, 0.6)
    image = image + structure * (grey * (1 + 0.05 * noise(rng, shape, 12)) - image)
    return _measured(image, rng), mask


def _parts(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    """How deep inside head and tail each voxel lies, mm; the border between them is common to both."""
    x, y, z = (axis + rng.normal(0, 1.2) for axis in grid(shape))
    side = rng.choice((-1, 1))
    bent = [1.1 * noise(rng, shape, 4) + 0.3 * noise(rng, shape, 9) for _ in range(3)]
    x, y, z = x * side + bent[0], y + bent[1], z + bent[2]
    half = rng.uniform(18, 21.5)
    t = y / half  # 1 at the front end, -1 at the back end
    # The body arches upward and towards the midline behind.
    middle_x = -2.6 + 4.6 * t * t * (t < 0) + 1.2 * t
    middle_z = 3.4 - 5.0 * np.maximum(t, 0) ** 2 - 2.2 * t + 2.0 * np.minimum(t, 0) ** 2
    size = rng.uniform(0.92, 1.12)
    thick = size * (4.4 + 2.0 * np.exp(-(((t - 0.62) / 0.3) ** 2)) - 0.4 * np.maximum(-t, 0))
    thick = thick * np.sqrt(np.maximum(1 - np.clip(np.abs(t), 0, 1) ** 6, 0))
    across = np.sqrt(((x - middle_x) / 1.12) ** 2 + ((z - middle_z) / 0.88) ** 2)
    inside = np.where(np.abs(t) < 1, thick - across, -across)
    border = y - half * rng.uniform(0.08, 0.26) - 0.25 * (z - middle_z)
    return (
        np.asarray(np.where(border >= 0, inside, -1), np.float32),
        np.asarray(np.where(border < 0, inside, -1), np.float32),
    )


def _around(inside: Array, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """White matter with folded grey matter of the same brightness as the structure, and fluid that touches it."""
    white, fluid, grey = 0.78, 0.16, rng.uniform(0.5, 0.58)
    folds = noise(rng, shape, 6)
    image = white - 0.04 * noise(rng, shape, 8) - (white - grey) * edge(folds - 0.35, 0.12)
    image = image + (fluid - image) * np.exp(-((folds - 1.0) ** 2) / 0.03) * 0.8
    # The temporal horn beside, grey matter of neighbours below, a thin white sheet above.
    x, _, z = grid(shape)
    at = np.exp(-(((inside + 1.4) / 0.9) ** 2))
    horn = at * edge(noise(rng, shape, 4) + 0.5 * x / shape[0], 0.25)
    sheet = np.exp(-(((inside + 0.9) / 0.6) ** 2)) * edge(z - 2, 1.0)
    image = image + (white - image) * np.minimum(0.9 * sheet + 0.4 * at, 1)
    image = image + (fluid - image) * 0.9 * horn
    near = edge(inside + 6, 1.0) * edge(-z - 3 + 1.5 * noise(rng, shape, 5), 0.6) * edge(-inside - 1, 0.5)
    return np.asarray(image + 0.85 * (grey - image) * near * edge(noise(rng, shape, 5), 0.2), np.float32)


def _measured(image: Array, rng: np.random.Generator) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Unsharpness, coil sensitivity, noise and a scale that means nothing."""
    shape = image.shape
    seen = blurred(image, rng.uniform(0.35, 0.65)) * (1 + rng.uniform(0.02, 0.12) * noise(rng, shape, 2))
    sigma = rng.uniform(0.012, 0.04)
    noisy = np.hypot(
        seen + sigma * rng.standard_normal(shape, dtype=np.float32),
        sigma * rng.standard_normal(shape, dtype=np.float32),
    )
    noisy = noisy / noisy.max()
    if rng.random() < 0.2:
        return np.asarray(np.rint(noisy * rng.uniform(90, 255)), np.uint8)
    return np.asarray(noisy * 10 ** rng.uniform(2, 6), np.float32)
