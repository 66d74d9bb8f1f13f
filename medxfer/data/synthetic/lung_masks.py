"""Synthetic chest radiographs with the lungs' outline as a mask: the generator knows where it put the air."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...progress import Advance
from .chest_anatomy import SIZE, Chest, draw_person, draw_view, project, step
from .chest_xray import expose
from .opacities import pneumonia
from .writing import lettered, put_picture, put_table

VERSION = 1
HOSPITALS = ("North", "South")
# Share of a lung's greatest depth that counts as lung; more beside the heart, whose border is soft.
_AIR, _AIR_BY_HEART = 0.3, 0.55


def write_lung_masks(
    folder: Path, *, count: int = 140, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write `images/ID.jpg` (256 x 256), `masks/ID.png` (0 or 255) and `files.csv`.

    `files.csv` has the columns id, image, mask, split (train, val, test), hospital, disease and lung_fraction. The two
    hospitals differ in contrast, black bars and letters.

    Args:
        folder: Gets the files.
        count: Pairs; half of each hospital, half with an opacity.
        seed: The same seed gives the same files.
        advance: Called after each image.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: list[tuple[object, ...]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, 80, index])
        hospital, sick = HOSPITALS[index % 2], bool(index // 2 % 2)
        split = ("train", "train", "train", "train", "val", "test", "test")[index // 4 % 7]
        image, mask = make_pair(hospital, sick, rng)
        name = f"{hospital.upper()}_{index:04d}_{int(sick)}"
        put_picture(folder / "images" / f"{name}.jpg", image, quality=90)
        put_picture(folder / "masks" / f"{name}.png", np.where(mask, 255, 0).astype(np.uint8))
        share = f"{mask.mean():.4f}"
        rows.append((name, f"images/{name}.jpg", f"masks/{name}.png", split, hospital, int(sick), share))
        if advance:
            advance()
    columns = ("id", "image", "mask", "split", "hospital", "disease", "lung_fraction")
    put_table(folder / "files.csv", columns, rows)


def make_pair(
    hospital: str, sick: bool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Picture (256, 256) and where its lungs are, an opacity in them included."""
    person = draw_person(rng)
    chest = project(person, draw_view(rng), rng)
    image = expose(chest, person, pneumonia(chest, rng) if sick else None, rng) / np.float32(4095)
    mask = lung_mask(chest)
    if hospital == HOSPITALS[0]:
        image = image ** np.float32(rng.uniform(0.7, 1.0))
        stored = lettered(np.asarray(image * 255, np.uint8), "R 12", (0.03, 0.03), size=11)
        bar = int(rng.integers(0, 18))
        stored = stored.copy()
        stored[:, :bar], stored[:, SIZE - bar :] = 0, 0
        mask[:, :bar], mask[:, SIZE - bar :] = False, False
    else:
        stored = np.asarray(np.clip(image ** np.float32(rng.uniform(1.0, 1.5)) * 265, 0, 255), np.uint8)
        if rng.random() < 0.5:
            stored = lettered(stored, "L", (0.9, 0.05), size=16)
    return stored, mask


def lung_mask(chest: Chest) -> NDArray[np.bool_]:
    """Both lungs as a reader outlines them: above the diaphragm, without the heart; the two largest parts, filled."""
    needed = _AIR + (_AIR_BY_HEART - _AIR) * step(chest.y + 0.35, 0.1)
    air = (chest.lungs > needed) & (chest.y < chest.dome)
    parts, count = ndimage.label(ndimage.binary_opening(air, iterations=4))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(sizes)[::-1][:2] + 1
    return np.asarray(ndimage.binary_fill_holes(np.isin(parts, largest)), np.bool_)
