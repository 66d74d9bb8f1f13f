"""Synthetic nuclei with instance masks: fluorescence, stained and brightfield pictures in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .cells import Cells, Nuclei, cells_of, chromatin, scattered
from .shapes import Array, blurred, edge, noise, to_bytes
from .stains import LABORATORIES, coloured
from .writing import put_picture, put_table

VERSION = 1
Kind = Literal["fluorescence", "stained_colour", "brightfield"]
_KINDS: tuple[Kind, ...] = (
    "fluorescence",
    "stained_colour",
    "fluorescence",
    "stained_colour",
    "fluorescence",
)
_SMALLEST = 12  # px; parts of nuclei cut off by the edge and smaller than this have no label


def write_nuclei(folder: Path, *, count: int = 160, seed: int = 0, advance: Advance | None = None) -> None:
    """Write `images/ID.png` (grey) or `images/ID.jpg` (RGB), `masks/ID.png` and `files.csv`.

    Masks hold 0 for background and 1..n for the nuclei. `files.csv` has the columns id, image, mask, split, kind,
    nuclei, foreground. Bright on dark, dark on light and grey on grey lie in one folder; some are nearly black.

    Args:
        folder: Gets the files, of 128 to 256 pixels a side.
        count: Pairs; one in fifteen is brightfield.
        seed: The same seed gives the same files.
        advance: Called after each pair.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: list[tuple[object, ...]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, 100, index])
        kind: Kind = "brightfield" if index % 15 == 14 else _KINDS[index % 5]
        split = ("train", "train", "train", "val", "train", "test", "train", "test")[index // 5 % 8]
        image, mask = make_pair(kind, rng)
        name = f"n{seed:02d}{index:04d}"
        suffix = ".png" if image.ndim == 2 else ".jpg"
        put_picture(folder / "images" / f"{name}{suffix}", image, quality=92)
        put_picture(folder / "masks" / f"{name}.png", mask)
        share = f"{(mask > 0).mean():.4f}"
        rows.append(
            (name, f"images/{name}{suffix}", f"masks/{name}.png", split, kind, int(mask.max()), share)
        )
        if advance:
            advance()
    put_table(folder / "files.csv", ("id", "image", "mask", "split", "kind", "nuclei", "foreground"), rows)


def make_pair(kind: Kind, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture, (rows, columns) grey or (rows, columns, 3), and its mask (rows, columns), 0 to n."""
    shape = (int(rng.integers(128, 257)), int(rng.integers(128, 257)))
    nuclei = _nuclei(kind, shape, rng)
    cells = cells_of(shape, nuclei, rng)
    mask = _mask(cells)
    if kind == "fluorescence":
        return _glowing(cells, nuclei, rng), mask
    if kind == "stained_colour":
        return _stained(cells, nuclei, rng), mask
    return _brightfield(cells, rng), mask


def _nuclei(kind: Kind, shape: tuple[int, int], rng: np.random.Generator) -> Nuclei:
    """Single ones and crowds, of one cell type a picture."""
    radius = rng.uniform(4, 6) if kind == "brightfield" else rng.uniform(5, 15)
    place = scattered(shape, radius * rng.uniform(2.0, 3.0), 0.2, rng)
    crowd = noise(rng, shape, 4)
    rows = np.clip(place[:, 0].astype(int), 0, shape[0] - 1)
    columns = np.clip(place[:, 1].astype(int), 0, shape[1] - 1)
    wanted = 1.2 if kind == "brightfield" else rng.uniform(-0.6, 0.7)
    kept = crowd[rows, columns] > wanted
    kept[rng.integers(len(kept), size=2)] = True
    place = place[kept]
    count = len(place)
    return Nuclei(
        place=place,
        radius=radius * rng.lognormal(0, rng.uniform(0.1, 0.28), count),
        stretch=1 + np.abs(rng.normal(0, rng.uniform(0.1, 0.35), count)),
        angle=rng.normal(rng.uniform(0, np.pi), rng.choice((0.3, 2.0)), count),
        uneven=rng.uniform(0.02, 0.09, count),
        dark=rng.lognormal(0, 0.28, count),
    )


def _mask(cells: Cells) -> NDArray[np.uint8]:
    """Numbers from 1 in order of appearance, without gaps; at most 255."""
    inside = cells.share > 0.5
    sizes = np.bincount(cells.owner[inside], minlength=int(cells.owner.max()) + 1)
    kept = np.flatnonzero(sizes >= _SMALLEST)[:255]
    numbers = np.zeros(len(sizes), np.uint8)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(np.where(inside, numbers[cells.owner], 0), np.uint8)


def _glowing(cells: Cells, nuclei: Nuclei, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bright on dark, unsharp, with haze from above and below; one in six nearly black."""
    light = chromatin(cells, nuclei, rng, clumps=0.18, rim=0.0) * (1.05 - 0.3 * cells.inward * cells.share)
    haze = rng.uniform(0.02, 0.25) * blurred(light, 9) + rng.uniform(0, 0.12) * edge(
        noise(rng, light.shape, 5) - 1, 0.5
    )
    light = blurred(light, rng.uniform(0.5, 1.5)) + haze
    top = rng.uniform(0.08, 0.2) if rng.random() < 0.17 else rng.uniform(0.3, 0.8)
    light = top * light / max(float(np.quantile(light, 0.995)), 1e-3) + rng.uniform(0.01, 0.08) * top
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    return to_bytes(light + rng.uniform(0.01, 0.05) * top * grain)


def _stained(cells: Cells, nuclei: Nuclei, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Purple nuclei among pink fibres, pale cells and debris."""
    shape = cells.share.shape
    stain = chromatin(cells, nuclei, rng, clumps=0.25, rim=0.25) * rng.uniform(0.6, 1.2)
    pink = rng.uniform(0.1, 0.5) * np.clip(
        0.7 + 0.4 * noise(rng, shape, 14) + 0.2 * noise(rng, shape, 50), 0, 2
    )
    pale = rng.uniform(0.05, 0.3) * edge(noise(rng, shape, 9) - 0.7, 0.2)  # folds and cells out of focus
    eosin: Array = np.asarray(pink * (1 - cells.share) + 0.1, np.float32)
    laboratory = LABORATORIES[int(rng.integers(2))]
    blur = rng.uniform(0.4, 1.1)
    return coloured(blurred(stain + pale, blur), blurred(eosin, blur), laboratory, rng)


def _brightfield(cells: Cells, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey rings on a light ground, stored in colour."""
    ring = np.exp(-(((cells.inward - 1) / 0.25) ** 2))
    light = 0.82 - 0.25 * cells.share - 0.2 * ring + 0.1 * np.exp(-(((cells.inward - 1.6) / 0.3) ** 2))
    light = blurred(light + 0.03 * noise(rng, light.shape, 4), 0.8)
    light = light + 0.015 * rng.standard_normal(light.shape, dtype=np.float32)
    return np.repeat(to_bytes(light)[..., None], 3, -1)
