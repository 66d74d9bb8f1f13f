"""Synthetic MR slices of the head, with a tumour or without, of unequal sizes and several weightings.

The class shows in the brain alone. Size, weighting, brightness, captions, colour mode, wide ventricles, small white
spots and contrast in vessels are drawn without regard to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from ...progress import Advance
from .brain_tumour import Tumour, draw_tumour, push, tumour_layers
from .shapes import AnyFloat, Array, blob, edge, noise, picture_grid, retoned, to_bytes, turned
from .writing import encoded, lettered, put, put_table, resized

VERSION = 1
CLASSES = ("no", "yes")
_TUMOUR_SHARE = 0.6
_EXACT, _NEAR = 0.08, 0.1  # share of the files that are a copy of another one of their class
# Grey values inside the head that all slices are moved towards, so that counting bright pixels is not enough.
_TONES = (0.0, 0.1, 0.19, 0.26, 0.31, 0.35, 0.39, 0.43, 0.5, 0.62, 1.0)
_SUFFIX = ".jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """Brightness of each tissue, 0 to 1."""

    fluid: float
    grey: float
    white: float
    fat: float
    oedema: float
    core: float
    rim: float


WEIGHTINGS = (
    Weighting(fluid=0.1, grey=0.42, white=0.56, fat=0.95, oedema=0.36, core=0.22, rim=0.3),  # T1
    Weighting(
        fluid=0.12, grey=0.38, white=0.48, fat=0.8, oedema=0.33, core=0.2, rim=0.95
    ),  # T1 with contrast
    Weighting(fluid=0.95, grey=0.52, white=0.38, fat=0.6, oedema=0.78, core=0.88, rim=0.72),  # T2
    Weighting(fluid=0.12, grey=0.5, white=0.42, fat=0.55, oedema=0.85, core=0.65, rim=0.8),  # FLAIR
)


def write_brain_mri(folder: Path, *, count: int = 253, seed: int = 0, advance: Advance | None = None) -> None:
    """Write `yes/Y1.jpg`, `no/N1.jpg`, ... and `files.csv`; some files are copies of others of their class.

    Args:
        folder: Gets the files; `files.csv` has the columns file, class, copy_of, kind (new, exact, near), width,
            height.
        count: Images, three in five with a tumour, copies included.
        seed: The same seed gives the same files.
        advance: Called after each image.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: list[tuple[object, ...]] = []
    with_tumour = round(count * _TUMOUR_SHARE)
    for label, images in (("yes", with_tumour), ("no", count - with_tumour)):
        made: list[tuple[str, int]] = []
        for number in range(1, images + 1):
            rng = np.random.default_rng([seed, 60, CLASSES.index(label), number])
            draw = rng.random() if made else 1.0
            name = f"{label}/{label[0].upper()}{number}{_SUFFIX}"
            kind = "exact" if draw < _EXACT else "near" if draw < _EXACT + _NEAR else "new"
            origin, source = ("", number) if kind == "new" else made[int(rng.integers(len(made)))]
            image = make_slice(label, seed, source)
            if kind == "near":
                image = _almost(image, rng)
            put(folder / name, encoded(image, _SUFFIX, quality=85))
            if kind == "new":
                made.append((name, number))
            rows.append((name, label, origin, kind, image.shape[1], image.shape[0]))
            if advance:
                advance()
    put_table(folder / "files.csv", ("file", "class", "copy_of", "kind", "width", "height"), rows)


def _almost(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same picture from another page: another size, a little brighter or darker."""
    scale = rng.uniform(0.88, 1.12)
    other = resized(image, round(image.shape[0] * scale), round(image.shape[1] * scale))
    return np.asarray(np.clip(other * rng.uniform(0.94, 1.06), 0, 255), np.uint8)


def make_slice(label: str, seed: int, number: int) -> NDArray[np.uint8]:
    """One picture: (rows, columns), or (rows, columns, 3) where it was stored in colour."""
    rng = np.random.default_rng([seed, 61, CLASSES.index(label), number])
    longer, slim = int(rng.integers(170, 320)), rng.uniform(0.74, 1.0)
    shape = (longer, round(longer * slim))
    x, y = picture_grid(shape, width=1.06 * rng.uniform(1.0, 1.3), height=1.06 * rng.uniform(1.0, 1.15))
    x, y = turned(
        x + np.float32(rng.normal(0, 0.03)), y + np.float32(rng.normal(0, 0.03)), rng.normal(0, 0.06)
    )
    weighting = WEIGHTINGS[int(rng.choice(4, p=(0.2, 0.35, 0.2, 0.25)))]
    # Both draws happen in either class, so that what follows does not depend on it.
    tumour = draw_tumour(np.random.default_rng([seed, 62, CLASSES.index(label), number]))
    image, head = _head(x, y, weighting, tumour if label == "yes" else None, rng)
    return _photographed(image, head, rng)


def _head(
    x: Array, y: Array, weighting: Weighting, tumour: Tumour | None, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Scalp, skull, fluid, folded brain, ventricles and, where given, the tumour."""
    shape = (x.shape[0], x.shape[1])
    wobble = 0.012 * noise(rng, shape, 5)
    narrow, egg = rng.uniform(0.84, 0.96), rng.uniform(-0.06, 0.1)
    radius = np.hypot(x / (narrow * (1 + egg * y)), y) + wobble
    skull, scalp = rng.uniform(0.045, 0.08), rng.uniform(0.04, 0.09)
    brain_edge = 1 - skull - scalp - 0.02
    image = weighting.fat * rng.uniform(0.6, 1) * edge(1 - radius, 0.012) * edge(radius - (1 - scalp), 0.012)
    image = image + rng.uniform(0.02, 0.3) * edge(1 - scalp - radius, 0.012) * edge(
        radius - (1 - scalp - skull * 0.6), 0.015
    )
    inside = edge(brain_edge - radius, 0.008)
    if tumour is not None:
        x, y = push(x, y, tumour)
    brain = _brain(x, y, radius / brain_edge, weighting, rng)
    if tumour is not None:
        for layer, tissue in tumour_layers(x, y, tumour, rng):
            layer = layer * edge(0.98 * brain_edge - radius, 0.02)
            brain = brain * (1 - layer) + layer * getattr(weighting, tissue)
    around = weighting.fluid * edge(1 - scalp - skull - radius, 0.01)
    return np.asarray(image + around * (1 - inside) + brain * inside, np.float32), radius < 1


def _brain(x: Array, y: Array, depth: AnyFloat, weighting: Weighting, rng: np.random.Generator) -> Array:
    """Grey matter folded about white matter, the midline, ventricles and deep nuclei."""
    shape = (x.shape[0], x.shape[1])
    folds = noise(rng, shape, int(rng.integers(15, 22)))
    deep = noise(rng, shape, 9)
    atrophy = rng.uniform(0.05, 0.2)
    sulci = np.exp(-((folds / atrophy) ** 2)) * edge(depth - 0.74 + 0.07 * deep, 0.03)
    ribbon = edge(depth - 0.8 + 0.075 * deep + 0.05 * np.abs(folds), 0.02)
    lining = np.exp(-((folds / (atrophy + 0.3)) ** 2)) * edge(depth - 0.64 + 0.07 * deep, 0.04)
    share = np.maximum(ribbon, lining)
    level = rng.uniform(0, 1)  # 0: above the ventricles, 1: through the deep nuclei
    nuclei = np.zeros_like(x)
    if level > 0.45:
        for side in (-1, 1):
            along, beside = turned(x - side * 0.25, y + 0.08, side * 0.35)
            nuclei = np.maximum(nuclei, 0.8 * blob(along / 0.11, beside / 0.24, 0.12))
            nuclei = np.maximum(nuclei, 0.7 * blob((x - side * 0.12) / 0.11, (y - 0.2) / 0.14, 0.12))
    share = np.maximum(share, nuclei)
    brain = weighting.white + (weighting.grey - weighting.white) * share
    fluid = np.maximum(
        sulci, np.exp(-((x / 0.016) ** 2)) * edge(np.abs(y) - 0.3, 0.04) * edge(depth - 0.3, 0.1)
    )
    fluid = np.maximum(fluid, _ventricles(x, y, level, rng))
    brain = brain + (weighting.fluid - brain) * fluid
    return np.asarray(brain + _harmless(x, y, depth, weighting, rng), np.float32)


def _ventricles(x: Array, y: Array, level: float, rng: np.random.Generator) -> Array:
    """Two wings in front, two behind, the slit between the nuclei; they may be wide or unequal."""
    wide, uneven = rng.uniform(0.5, 1.5), rng.normal(0, 0.14)
    if level < 0.2:
        return np.zeros_like(x)
    fluid = np.zeros_like(x)
    for side in (-1, 1):
        size = wide * (1 + side * uneven)
        along, beside = turned(x - side * (0.09 + 0.03 * size), y + 0.22, -side * 0.3)
        bend = along + side * 0.9 * beside * beside
        fluid = np.maximum(fluid, blob(bend / (0.055 * size), beside / (0.22 + 0.04 * size), 0.12))
        along, beside = turned(x - side * (0.2 + 0.02 * size), y - 0.34, side * 0.45)
        fluid = np.maximum(fluid, blob(along / (0.05 * size), beside / 0.19, 0.12))
        if level < 0.55:
            along, beside = turned(x - side * 0.13, y - 0.08, -side * 0.12)
            fluid = np.maximum(fluid, blob(along / (0.045 * size), beside / 0.26, 0.12))
    third = blob(x / (0.015 + 0.012 * wide), (y - 0.12) / 0.13, 0.2) if level > 0.5 else 0
    return np.asarray(np.maximum(fluid, third), np.float32)


def _harmless(x: Array, y: Array, depth: AnyFloat, weighting: Weighting, rng: np.random.Generator) -> Array:
    """White spots of age, vessels with contrast, a calcified pineal gland: either class has them."""
    shape = (x.shape[0], x.shape[1])
    added = np.zeros_like(x)
    for _ in range(int(rng.poisson(2.2))):
        at, size = rng.uniform(-0.55, 0.55, 2), rng.uniform(0.015, 0.05)
        spot = blob((x - at[0]) / size, (y - at[1]) / (size * rng.uniform(0.7, 1.5)), 0.3)
        added = added + (weighting.oedema - weighting.white) * rng.uniform(0.5, 1) * spot
    if rng.random() < 0.4:
        vessels = np.exp(-((noise(rng, shape, 13) / 0.07) ** 2)) * edge(noise(rng, shape, 7) - 0.9, 0.15)
        added = added + rng.uniform(0.15, 0.5) * vessels * edge(0.95 - depth, 0.03)
    if rng.random() < 0.3:
        added = added + rng.uniform(-0.3, 0.5) * blob(x / 0.03, (y - 0.3) / 0.03, 0.3)
    if rng.random() < 0.3:  # the sinus behind, filled with contrast
        added = added + rng.uniform(0.2, 0.5) * blob(x / 0.05, (y - 0.8) / 0.05, 0.3)
    return added


def _photographed(image: AnyFloat, head: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Coil sensitivity, noise, ghosts, window, captions and how the file was stored."""
    shape = (image.shape[0], image.shape[1])
    image = image * (1 + rng.uniform(0.03, 0.14) * noise(rng, shape, 3))
    image = image * (1 + 0.05 * noise(rng, shape, 26))
    if rng.random() < 0.2:
        image = image + rng.uniform(0.02, 0.06) * np.roll(
            image, int(rng.integers(15, 60)), int(rng.integers(2))
        )
    sigma = rng.uniform(0.01, 0.05)
    real = image + sigma * rng.standard_normal(shape, dtype=np.float32)
    image = np.hypot(real, sigma * rng.standard_normal(shape, dtype=np.float32))
    gamma, top = rng.uniform(0.7, 1.4), rng.uniform(0.75, 1.0)
    image = retoned(image, top * np.asarray(_TONES) ** gamma, rng.uniform(0.55, 0.85), head)
    stored = to_bytes(np.where(head, image, np.minimum(image, 0.3)))
    if rng.random() < 0.25:
        place = (rng.uniform(0.01, 0.85), rng.choice((0.01, 0.92)))
        stored = lettered(stored, str(rng.choice(("R", "L", "A", "T1", "T2", "AX"))), place, size=12)
    if rng.random() < 0.12:
        return stored
    colour = np.asarray(Picture.fromarray(stored).convert("RGB"))
    if rng.random() < 0.06:
        colour = np.asarray(np.minimum(colour * np.array([0.95, 1.0, 1.1]), 255), np.uint8)
    return colour
