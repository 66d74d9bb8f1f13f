"""Synthetic CT-like crops of a limb with one soft-tissue mass, hardly darker than the muscle it grows in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .lung_nodule_ct import oriented
from .shapes import Array, blurred, edge, grid, noise
from .writing import put_decathlon, put_volume

VERSION = 1
SPACING = (3.0, 3.0, 3.27)
LABELS = {0: "background", 1: "GTV_Mass"}
AIR, FAT, MUSCLE = -1000.0, -100.0, 58.0


def write_sarcomas(folder: Path, *, count: int = 51, seed: int = 0, advance: Advance | None = None) -> None:
    """Write `imagesTr/*.nii.gz` (HU, int16), `labelsTr/*.nii.gz` and `dataset.json`, stored LPS.

    Args:
        folder: Gets the files.
        count: Volumes of some 50 x 50 x 53 voxels of 3 x 3 x 3.27 mm, each with its mask.
        seed: The same seed gives the same files.
        advance: Called after each case.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    cases = []
    for index in range(count):
        rng = np.random.default_rng([seed, 130, index])
        image, mask = make_case(rng)
        origin = rng.uniform(-200, 200, 3)
        name = f"STS_{index + 1:03d}"
        for part, voxels in (("imagesTr", image), ("labelsTr", mask)):
            stored, affine = oriented(voxels.astype(np.int16), SPACING, "LPS", origin)
            put_volume(folder / part / f"{name}.nii.gz", stored.astype(voxels.dtype), affine)
        cases.append(name)
        if advance:
            advance()
    put_decathlon(folder, "Synthetic sarcoma", "CT", LABELS, cases)


def make_case(rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and mask, both (X, Y, Z) to the right, front and head, cropped unevenly about the mass."""
    shape = (64, 64, int(rng.integers(44, 80)))
    x, y, z = (np.broadcast_to(axis, shape) for axis in grid(shape, SPACING))
    mass = _mass(x, y, z, rng)
    # Muscle gives way, so that the limb bulges over the mass.
    bulge = 9 * np.exp(-((np.minimum(mass, 0) / 25) ** 2))
    limb, bone = _limb(x, y, z, bulge, shape, rng)
    soft = MUSCLE - rng.uniform(8, 30) + rng.uniform(5, 14) * noise(rng, shape, 14)
    core = edge(mass - rng.uniform(6, 22) + 5 * noise(rng, shape, 7), 2.5)
    soft = soft - rng.uniform(0, 28) * core
    inside = edge(mass, rng.uniform(1.0, 2.5))
    hu = limb + inside * (soft - limb) * ~bone * (limb > -600)
    hu = blurred(hu, 0.45) + rng.uniform(6, 14) * blurred(rng.standard_normal(shape, dtype=np.float32), 0.5)
    mask = (mass > 0) & ~bone & (limb > -600)
    kept = _crop(mask, rng)
    return (
        np.asarray(np.clip(np.rint(hu[kept]), -1024, 3071), np.int16),
        np.asarray(mask[kept], np.uint8),
    )


def _mass(x: Array, y: Array, z: Array, rng: np.random.Generator) -> Array:
    """How deep inside the mass each voxel lies, mm."""
    shape = (x.shape[0], x.shape[1], x.shape[2])
    size = float(np.clip(rng.lognormal(np.log(34), 0.38), 16, 58))
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(22, 48)
    right, front, up = x - away * np.cos(angle), y - away * np.sin(angle), z - rng.normal(0, 8)
    long = rng.uniform(1.0, 1.7)
    radius = np.sqrt(
        (right / rng.uniform(0.75, 1.1)) ** 2 + (front / rng.uniform(0.75, 1.1)) ** 2 + (up / long) ** 2
    )
    uneven = 1 + 0.17 * noise(rng, shape, 4) + 0.07 * noise(rng, shape, 9)
    return np.asarray(size * uneven - radius, np.float32)


def _limb(
    x: Array, y: Array, z: Array, bulge: Array, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Skin, fat, muscles between sheets of fat, vessels and a bone: HU, and where the bone is, marrow included."""
    girth, stout = rng.uniform(62, 95), rng.uniform(6, 26)
    wobble = 4 * noise(rng, shape, 4)
    radius = np.hypot(x - rng.normal(0, 5), (y - rng.normal(0, 5)) / rng.uniform(0.9, 1.2)) - 0.12 * z
    skin = girth + bulge + wobble - radius
    hu = AIR + edge(skin, 0.8) * (FAT + 12 * noise(rng, shape, 16) - AIR)
    hu = hu + edge(skin, 0.8) * edge(3.5 - skin, 0.8) * 90
    deep = skin - stout - 3 * noise(rng, shape, 6)
    muscle = MUSCLE + rng.normal(0, 4) + 7 * noise(rng, shape, 18)
    # Sheets of fat run along the limb: the noise that parts the muscles changes slowly along z.
    parting = noise(rng, shape, (7, 7, 2))
    muscle = muscle - 110 * np.exp(-((parting / rng.uniform(0.06, 0.16)) ** 2))
    hu = hu + edge(deep, 1.2) * (muscle - hu)
    for _ in range(3):
        at = rng.uniform(-35, 35, 2)
        vessel = edge(rng.uniform(2.5, 5) - np.hypot(x - at[0] - 0.1 * z, y - at[1]), 0.8)
        hu = hu + vessel * edge(deep, 1.2) * (rng.uniform(40, 160) - hu)
    at = rng.normal(0, 9, 2)
    thick = rng.uniform(13, 18)
    bone = np.hypot(x - at[0], y - at[1] - 0.06 * z)
    hu = hu + edge(thick - bone, 0.8) * (rng.uniform(20, 120) - hu)
    ring = edge(thick - bone, 0.8) * edge(bone - rng.uniform(0.5, 0.65) * thick, 0.8)
    return np.asarray(hu + ring * (rng.uniform(800, 1200) - hu), np.float32), np.asarray(bone < thick)


def _crop(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[slice, slice, slice]:
    """The mass with 6 to 50 mm about it, another margin at each face."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(others))
        margin = rng.uniform(6, 50, 2) / SPACING[axis]
        low = max(0, int(filled[0] - margin[0]))
        slices.append(slice(low, min(mask.shape[axis], int(filled[-1] + margin[1]) + 1)))
    return slices[0], slices[1], slices[2]
