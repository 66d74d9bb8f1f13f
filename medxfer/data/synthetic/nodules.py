"""A lung nodule in CT, benign or malignant, in three dimensions and Hounsfield units.

Sizes, mean densities and surroundings overlap: how smooth the border is, whether fine strands leave it, and how its
density is spread tell the classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .shapes import AnyFloat, Array, blurred, edge, grid, noise

Label = Literal["benign", "malignant"]
LUNG_HU, TISSUE_HU = -860.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodule:
    """One nodule's form; lengths in mm."""

    radius: float
    stretch: tuple[float, float, float]
    lobes: float  # how far the border departs from an ellipsoid, share of the radius
    lobe_mm: float  # width of its bumps
    strands: int  # spicules
    reach: float  # of the strands beyond the border, share of the radius
    softness_mm: float
    density: float  # HU
    mottle: float  # deviation of the density inside, HU
    halo: float  # HU of ground glass about it above the lung, 0 for none
    calcium: Literal["none", "centre", "popcorn", "whole", "aside"]
    seed: int


def draw_nodule(label: Label, rng: np.random.Generator) -> Nodule:
    """One nodule of a class."""
    malignant = label == "malignant"
    kinds = ("none", "centre", "popcorn", "whole", "aside")
    chances = (0.86, 0.0, 0.0, 0.02, 0.12) if malignant else (0.66, 0.12, 0.1, 0.04, 0.08)
    return Nodule(
        radius=float(rng.lognormal(np.log(5.95 if malignant else 5.3), 0.3)),
        stretch=tuple(rng.uniform(0.8, 1.25, 3).tolist()),
        lobes=rng.uniform(0.07, 0.28) if malignant else rng.uniform(0.01, 0.13),
        lobe_mm=rng.uniform(3, 6),
        strands=int(rng.integers(5, 22)) if malignant else int(rng.integers(0, 5)),
        reach=rng.uniform(0.5, 1.2),
        softness_mm=rng.uniform(0.25, 0.6),
        density=rng.uniform(-60, 60) if malignant else rng.uniform(-80, 50),
        mottle=rng.uniform(40, 180) if malignant else rng.uniform(5, 90),
        halo=float(rng.random() < (0.4 if malignant else 0.15)) * rng.uniform(120, 350),
        calcium=kinds[int(rng.choice(5, p=chances))],  # type: ignore[arg-type]  # from kinds
        seed=int(rng.integers(2**31)),
    )


def paint(
    nodule: Nodule,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    centre_mm: NDArray[np.float64],
) -> tuple[Array, Array]:
    """The nodule on a grid.

    Args:
        nodule: What to paint.
        shape: Voxels.
        spacing: mm along each axis.
        centre_mm: Of the nodule, from the middle of the grid.

    Returns:
        Share of each voxel that it fills, strands and halo included, and its HU there.
    """
    rng = np.random.default_rng(nodule.seed)
    x, y, z = (axis - np.float32(at) for axis, at in zip(grid(shape, spacing), centre_mm, strict=True))
    away = np.sqrt(
        sum((axis / np.float32(s)) ** 2 for axis, s in zip((x, y, z), nodule.stretch, strict=True))
    )
    cells = [max(2, round(size * step / nodule.lobe_mm)) for size, step in zip(shape, spacing, strict=True)]
    bumps = 1 + np.float32(nodule.lobes) * noise(rng, shape, cells)
    inward = nodule.radius * bumps - away  # mm inside the border
    solid = edge(inward, nodule.softness_mm)
    hu = nodule.density + nodule.mottle * _texture(rng, shape, spacing, 2.2)
    if nodule.mottle > 120:  # a bubble or a dead middle
        hu = hu - 450 * edge(0.28 * nodule.radius - away + 1.2 * (bumps - 1) * nodule.radius, 0.4)
    hu = hu + _calcium(nodule, away, shape, spacing, rng)
    share = np.maximum(solid, _strands(nodule, x, y, z, rng))
    if nodule.halo:
        cloud = edge(inward + 0.6 * nodule.radius, 0.12 * nodule.radius)
        share = np.maximum(share, cloud * nodule.halo / (nodule.density - LUNG_HU))
    return np.asarray(share, np.float32), np.asarray(hu, np.float32)


def _texture(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    width_mm: float,
) -> Array:
    return noise(rng, shape, [max(1, round(n * s / width_mm)) for n, s in zip(shape, spacing, strict=True)])


def _strands(nodule: Nodule, x: AnyFloat, y: AnyFloat, z: AnyFloat, rng: np.random.Generator) -> AnyFloat:
    """Fine lines that leave the border outward and end in the lung."""
    found: AnyFloat = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
    for _ in range(nodule.strands):
        heading = rng.normal(0, 1, 3)
        heading /= np.linalg.norm(heading)
        along = x * heading[0] + y * heading[1] + z * heading[2]
        beside = np.sqrt(np.maximum(x * x + y * y + z * z - along * along, 0))
        length = nodule.radius * (1 + nodule.reach * rng.uniform(0.4, 1))
        width = np.maximum(rng.uniform(0.5, 0.9) * (1.3 - 0.8 * along / length), 0.25)
        line = edge(width - beside, 0.25) * edge(length - along, 0.5) * edge(along, 0.5)
        found = np.maximum(found, 0.85 * line)
    return found


def _calcium(
    nodule: Nodule,
    away: AnyFloat,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> AnyFloat:
    """HU added by calcium."""
    dense = rng.uniform(180, 550)
    if nodule.calcium == "centre":
        return dense * edge(0.45 * nodule.radius - away, 0.5)
    if nodule.calcium == "popcorn":
        return dense * edge(_texture(rng, shape, spacing, 2.6) - 0.7, 0.2)
    if nodule.calcium == "whole":
        return np.full_like(away, 0.6 * dense)
    if nodule.calcium == "aside":
        return dense * edge(_texture(rng, shape, spacing, 3.5) - 1.4, 0.2)
    return np.zeros_like(away)


def surroundings(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator
) -> Array:
    """Lung with vessels, and often the chest wall with a rib at one side: HU, as an exact scanner would see it."""
    x, y, z = grid(shape, spacing)
    lung = LUNG_HU + rng.normal(0, 25) + 35 * _texture(rng, shape, spacing, 9)
    extent = float(min(n * s for n, s in zip(shape, spacing, strict=True))) / 2
    for _ in range(int(rng.integers(3, 9))):
        heading = rng.normal(0, 1, 3)
        heading /= np.linalg.norm(heading)
        start = rng.uniform(-0.9, 0.9, 3) * extent
        right, down, up = x - start[0], y - start[1], z - start[2]
        bend = 0.02 * rng.normal(0, 1, 3)
        along = right * heading[0] + down * heading[1] + up * heading[2]
        square = sum(
            (part - along * heading[axis] - bend[axis] * along * along) ** 2
            for axis, part in enumerate((right, down, up))
        )
        vessel = edge(rng.uniform(0.7, 2.4) - np.sqrt(square), 0.4)
        lung = lung + vessel * (TISSUE_HU - lung)
    if rng.random() < 0.6:
        heading = rng.normal(0, 1, 3) * (1, 1, 0.25)
        heading /= np.linalg.norm(heading)
        outward = x * heading[0] + y * heading[1] + z * heading[2] - rng.uniform(0.62, 0.95) * extent
        wall = edge(outward + 1.5 * _texture(rng, shape, spacing, 14), 0.5)
        lung = lung + wall * (TISSUE_HU - 60 * edge(_texture(rng, shape, spacing, 7), 0.3) - lung)
        beside = np.hypot(outward - 6, z * 0.9 - rng.uniform(-10, 10))
        rib = edge(4.5 - beside, 0.5)
        lung = lung + rib * (250 + 700 * edge(beside - 3, 0.4) - lung)
    return np.asarray(lung, np.float32)


def scanned(hu: AnyFloat, spacing: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.int16]:
    """What a scanner makes of it: unsharpness of its kernel and slice, noise, whole numbers."""
    sharp = rng.uniform(0.25, 0.6)
    seen = blurred(hu, [sharp / step for step in spacing])
    grain = blurred(rng.standard_normal(hu.shape, dtype=np.float32), 0.5)
    return np.asarray(np.clip(np.rint(seen + rng.uniform(25, 80) * grain), -1024, 3071), np.int16)
