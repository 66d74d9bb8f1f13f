"""Oral mucosa as amounts of stain: ordered layers of epithelium over fibres, or carcinoma growing into them."""

from __future__ import annotations

import numpy as np

from .cells import Nuclei, at, cells_of, chromatin, nucleoli, scattered
from .shapes import Array, blurred, edge, noise, picture_grid, retoned, turned

# Mean stain of a tile's tissue, drawn alike for both classes: brightness and colour do not tell them apart.
_HAEMATOXYLIN, _EOSIN = (0.32, 0.62), (0.3, 0.6)
# Quantiles of stain / mean stain that both classes are moved towards: how much of a tile is dark says little.
_SPREAD_H = (
    0.02,
    0.11,
    0.17,
    0.23,
    0.29,
    0.35,
    0.41,
    0.48,
    0.54,
    0.61,
    0.7,
    0.86,
    1.14,
    1.66,
    2.51,
    3.44,
    6.0,
)
_SPREAD_E = (
    0.09,
    0.38,
    0.48,
    0.59,
    0.71,
    0.83,
    0.93,
    1.01,
    1.07,
    1.12,
    1.16,
    1.21,
    1.26,
    1.33,
    1.41,
    1.51,
    2.07,
)


def tissue(cancer: bool, magnification: int, pixels: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Haematoxylin and eosin of one tile.

    Args:
        cancer: Carcinoma, or normal epithelium.
        magnification: 400 shows single cells, 100 the layers.
        pixels: Rows and columns.
        rng: Random numbers.

    Returns:
        Two maps (`pixels`, `pixels`) of stain, 0 on empty glass.
    """
    shape = (pixels, pixels)
    spacing = rng.uniform(6.2, 7.6) if magnification == 100 else rng.uniform(12, 17)
    depth = _depth(cancer, magnification, pixels, rng)
    growing = edge(depth, 0.6 / spacing)
    nuclei = _nuclei(cancer, depth, spacing, shape, rng)
    cells = cells_of(shape, nuclei, rng)
    clumps = rng.uniform(0.15, 0.45)
    stain = chromatin(cells, nuclei, rng, clumps=clumps, rim=rng.uniform(0.1, 0.4))
    stain = stain + 0.5 * nucleoli(cells, nuclei, 0.35 if cancer else 0.2, rng)
    haematoxylin = stain + 0.16 * growing * (1 - cells.share) * (1 + 0.2 * noise(rng, shape, 30))
    fibres = _fibres(shape, rng)
    outline = np.exp(-((cells.border / (0.06 * spacing)) ** 2)) * growing
    clear = edge(0.35 * spacing - cells.border, 0.05 * spacing)
    cytoplasm = growing * (0.5 + 0.33 * clear + 0.5 * rng.uniform(0.3, 1) * outline)
    eosin = (1 - 0.65 * cells.share) * (cytoplasm + (1 - growing) * fibres)
    eosin = eosin + _keratin(cancer, depth, growing, shape, rng) * (1 - 0.6 * cells.share)
    empty = _glass(shape, rng) if rng.random() < 0.3 else np.zeros(shape, np.float32)
    sharpness = rng.uniform(0.3, 0.8)
    stains = []
    for amount, mean, spread in ((haematoxylin, _HAEMATOXYLIN, _SPREAD_H), (eosin, _EOSIN, _SPREAD_E)):
        wanted = rng.uniform(*mean) * np.asarray(spread) ** rng.uniform(0.9, 1.1)
        moved = retoned(blurred(amount, sharpness), wanted, rng.uniform(0.9, 1.0), empty < 0.5)
        stains.append(np.asarray(moved * (1 - empty), np.float32))
    return stains[0], stains[1]


def _depth(cancer: bool, magnification: int, pixels: int, rng: np.random.Generator) -> Array:
    """How far above the basement membrane, in tile heights; below 0 is the tissue under the epithelium."""
    x, y = picture_grid((pixels, pixels), width=0.5, height=0.5)
    scale = 1.0 if magnification == 100 else 2.6
    along, up = turned(x, y, rng.uniform(0, 2 * np.pi))
    if not cancer:
        ridges = 0.09 * rng.uniform(0.3, 1.5) * np.sin(along / scale * rng.uniform(9, 16) + rng.uniform(0, 6))
        return np.asarray(scale * (up / scale + ridges + rng.uniform(-0.02, 0.42)), np.float32)
    islands = 0.4 * noise(rng, (pixels, pixels), 5 if magnification == 100 else 2)
    islands = islands + 0.15 * noise(rng, (pixels, pixels), 10 if magnification == 100 else 5)
    return np.asarray(0.25 * islands + rng.uniform(0.3, 0.8) * up + rng.uniform(0.0, 0.3), np.float32)


def _nuclei(
    cancer: bool, depth: Array, spacing: float, shape: tuple[int, int], rng: np.random.Generator
) -> Nuclei:
    """Normal ones are alike and change from layer to layer; malignant ones differ in size, shape and stain."""
    place = scattered(shape, spacing, rng.uniform(0.13, 0.2) if cancer else rng.uniform(0.1, 0.15), rng)
    height = at(depth, place)
    inside = height > 0
    layer = np.clip(height * shape[0] / (7 * spacing), 0, 1)  # 0 at the membrane, 1 some seven cells above
    draw = rng.random(len(place))
    lymphocytes = rng.uniform(0.05, 0.5)
    if cancer:
        kept = np.where(inside, draw > rng.uniform(0.05, 0.45), draw < lymphocytes)
        radius = spacing * rng.lognormal(np.log(0.285), rng.uniform(0.17, 0.34), len(place))
        stretch = 1 + np.abs(rng.normal(0, 0.25, len(place)))
        uneven, dark = rng.uniform(0.03, 0.17, len(place)), rng.lognormal(0, 0.22, len(place))
        angle = rng.uniform(0, np.pi, len(place))
    else:
        kept = np.where(inside, draw > 0.12 + 0.45 * layer, draw < lymphocytes)
        radius = spacing * (0.33 - 0.06 * layer) * rng.lognormal(0, rng.uniform(0.06, 0.15), len(place))
        flat = 0.18 * (layer < 0.15) + 0.35 * layer
        stretch = 1.04 + flat + np.abs(rng.normal(0, 0.05, len(place)))
        uneven, dark = (
            rng.uniform(0.02, 0.06, len(place)),
            (1.2 - 0.3 * layer) * rng.lognormal(0, 0.14, len(place)),
        )
        rise = np.gradient(blurred(depth, 3))
        uphill = np.arctan2(at(rise[0], place), at(rise[1], place))
        angle = uphill + np.where(layer < 0.15, 0, np.pi / 2)
    under = rng.random(len(place)) < 0.4  # of the cells below: round lymphocytes, or long fibre cells
    radius = np.where(inside, radius, spacing * np.where(under, 0.22, 0.17))
    stretch = np.where(inside, stretch, np.where(under, 1.05, 2.1))
    dark = np.where(inside, dark, 1.2)
    if not kept.any():
        kept[0] = True
    return Nuclei(
        place=place[kept],
        radius=radius[kept],
        stretch=stretch[kept],
        angle=angle[kept],
        uneven=np.where(inside, uneven, 0.03)[kept],
        dark=dark[kept],
    )


def _fibres(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Wavy collagen with gaps."""
    x, y = picture_grid(shape)
    along, across = turned(x, y, rng.uniform(0, np.pi))
    waves = across * rng.uniform(28, 50) + 2.2 * noise(rng, shape, 5) + 1.5 * np.sin(4 * along)
    strands = 0.7 + 0.3 * np.sin(waves) + 0.18 * noise(rng, shape, 40)
    gaps = edge(noise(rng, shape, 16) - 1.1, 0.15)
    return np.asarray(np.clip(strands, 0.1, 1.3) * (1 - 0.8 * gaps), np.float32)


def _keratin(
    cancer: bool, depth: Array, growing: Array, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Pink scales: a layer at the surface of normal epithelium, round pearls in carcinoma; either may be missing."""
    if rng.random() < 0.5:
        return np.zeros(shape, np.float32)
    if not cancer:
        surface = float(depth.max()) - rng.uniform(0.05, 0.2)
        scales = 0.8 + 0.3 * np.sin(depth * rng.uniform(60, 120) + noise(rng, shape, 6))
        return np.asarray(0.6 * edge(depth - surface, 0.02) * scales, np.float32)
    x, y = picture_grid(shape)
    away = np.hypot(x - rng.uniform(-0.7, 0.7), (y - rng.uniform(-0.7, 0.7)) * rng.uniform(0.8, 1.25))
    away = away * (1 + 0.15 * noise(rng, shape, 5))
    rings = 0.8 + 0.3 * np.sin(away * rng.uniform(30, 60))
    return np.asarray(0.7 * edge(rng.uniform(0.15, 0.35) - away, 0.05) * rings * growing, np.float32)


def _glass(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Where the slide is empty: beyond an uneven edge."""
    x, y = picture_grid(shape)
    along, _ = turned(x, y, rng.uniform(0, 2 * np.pi))
    return edge(along + 0.1 * noise(rng, shape, 6) - rng.uniform(0.4, 0.9), 0.02)
