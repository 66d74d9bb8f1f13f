"""Synthetic radiographs of abdomen or chest as pictures of unequal sizes, in class folders with a given split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .abdomen_anatomy import abdomen
from .chest_anatomy import draw_person, draw_view, project
from .chest_xray import expose
from .shapes import Array, blurred, picture_grid, retoned, to_bytes
from .writing import lettered, put_picture, resized

VERSION = 1
CLASSES = ("abd", "chst")
# Both classes are developed towards these grey values, so that counting bright pixels does not tell them apart.
_TONES = (0.02, 0.12, 0.24, 0.34, 0.43, 0.51, 0.58, 0.65, 0.72, 0.8, 0.97)


def write_abdomen_chest(
    folder: Path, *, count: int = 130, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write `train/abd`, `train/chst`, `val/abd` and `val/chst`: one image in five lies in `val`.

    Args:
        folder: Gets JPEG files, and PNG ones (one in five), of 150 to 460 pixels a side.
        count: Images, as many of each class.
        seed: The same seed gives the same files.
        advance: Called after each image.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    numbers = {(split, label): 0 for split in ("train", "val") for label in CLASSES}
    for index in range(count):
        label = CLASSES[index % 2]
        split = "val" if index // 2 % 5 == 4 else "train"
        numbers[split, label] += 1
        rng = np.random.default_rng([seed, 50, index])
        suffix = ".png" if rng.random() < 0.2 else ".jpg"
        # As in the set this stands for: the names of `val/chst` begin with abd; the folder is the class.
        stem = "abd" if label == "abd" or split == "val" else "chest"
        put_picture(
            folder / split / label / f"{stem}{numbers[split, label]}{suffix}", make_film(label, seed, index)
        )
        if advance:
            advance()


def make_film(label: str, seed: int, index: int) -> NDArray[np.uint8]:
    """One film, (rows, columns), as a journal would print it."""
    rng = np.random.default_rng([seed, 51, index])
    image = _abdomen(rng) if label == "abd" else _chest(rng)
    top, bottom, left, right = rng.integers(0, 22, 4)
    cut = image[top : 256 - bottom, left : 256 - right]
    developed = to_bytes(retoned(cut, _tones(rng), rng.uniform(0.85, 1.0)))
    longer, shape = int(rng.integers(220, 460)), rng.uniform(0.72, 1.28)
    rows, columns = (longer, int(longer * shape)) if shape < 1 else (int(longer / shape), longer)
    return _printed_over(resized(developed, rows, columns), rng)


def _tones(rng: np.random.Generator) -> NDArray[np.float64]:
    """The common grey values after a random tone curve."""
    gamma, low, high = rng.uniform(0.65, 1.5), rng.uniform(0, 0.08), rng.uniform(0.85, 1.0)
    return np.asarray(low + (high - low) * np.asarray(_TONES) ** gamma)


def _chest(rng: np.random.Generator) -> Array:
    person = draw_person(rng)
    chest = project(person, draw_view(rng), rng)
    return np.asarray(expose(chest, person, None, rng) / np.float32(4095), np.float32)


def _abdomen(rng: np.random.Generator) -> Array:
    """Scatter, noise and unsharpness, as on a film of the chest."""
    weakened = abdomen(rng)
    weakened = 0.85 * weakened + 0.15 * blurred(weakened, 14)
    dose = rng.uniform(0.006, 0.02)
    grain = rng.standard_normal(weakened.shape, dtype=np.float32) * np.exp(0.9 * (weakened - 0.5))
    return blurred(weakened + np.float32(dose) * grain, float(rng.choice((0.5, 0.7, 0.9))))


def _printed_over(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Side letters, a figure's letter, an arrow or a frame: on either class alike."""
    if rng.random() < 0.4:
        place = (rng.uniform(0.02, 0.9), rng.uniform(0.02, 0.9))
        image = lettered(image, str(rng.choice(("R", "L", "A", "B"))), place, size=int(rng.integers(12, 26)))
    if rng.random() < 0.25:
        x, y = picture_grid((image.shape[0], image.shape[1]))
        x, y = x - np.float32(rng.uniform(-0.6, 0.6)), y - np.float32(rng.uniform(-0.6, 0.6))
        angle = rng.uniform(0, 2 * np.pi)
        along, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        shaft = (np.abs(beside) < 0.008) & (along > 0) & (along < 0.2)
        tip = (np.abs(beside) < 0.5 * along) & (along > 0) & (along < 0.06)
        image = np.where(shaft | tip, 245, image).astype(np.uint8)
    if rng.random() < 0.12:
        image = image.copy()
        grey, wide = int(rng.choice((0, 255))), int(rng.integers(2, 7))
        image[:wide], image[-wide:], image[:, :wide], image[:, -wide:] = grey, grey, grey, grey
    return image
