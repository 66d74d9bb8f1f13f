"""Synthetic tiles of oral tissue in H&E, normal or squamous cell carcinoma, from two laboratories and magnifications.

What tells the classes apart is how cells lie and how unlike each other their nuclei are. The amount of either stain,
laboratory, magnification and empty glass are drawn without regard to the class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ... import files
from ...progress import Advance
from .oral_tissue import tissue
from .stains import LABORATORIES, coloured
from .writing import encoded, put, put_table, resized

VERSION = 1
PIXELS = 128
CLASSES = ("normal", "oscc")
EXCLUDED = "exclude.txt"
_AUGMENTED = 0.08  # share of the files that are turned copies
_BOTH_LABELS = 4  # pairs of files with one picture under both labels
_STEMS = {"normal": "Normal", "oscc": "OSCC"}

_Rows = list[tuple[object, ...]]
_Made = dict[str, tuple[str, NDArray[np.uint8]]]  # file -> class, picture


def write_pathology(folder: Path, *, count: int = 480, seed: int = 0, advance: Advance | None = None) -> None:
    """Write `train|test/normal|oscc/*.jpg`, `files.csv` and `exclude.txt`.

    With the faults of the set this stands for: `aug_*` files are turned copies of originals that may lie in the other
    split, some pictures lie under both labels, one in both splits. `exclude.txt` names them, with the reasons as
    comments, in the form that `data.exclude` reads.

    Args:
        folder: Gets the files; `files.csv` has the columns file, split, class, augmented, magnification, laboratory.
        count: Files, copies included; half of each class, a quarter in `test`.
        seed: The same seed gives the same files.
        advance: Called after each file.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: _Rows = []
    made: _Made = {}
    copies = _BOTH_LABELS + 1 if count >= 40 else 0
    augmented = round(count * _AUGMENTED)
    for index in range(count - copies - augmented):
        label = CLASSES[index % 2]
        split = "test" if index // 2 % 4 == 3 else "train"
        rng = np.random.default_rng([seed, 90, index])
        laboratory, magnification = int(rng.integers(2)), int(rng.choice((100, 400)))
        name = f"{split}/{label}/{_STEMS[label]}_{magnification}x_{index + 1}.jpg"
        picture = make_tile(label, laboratory, magnification, rng)
        put(folder / name, encoded(picture, ".jpg", quality=86))
        made[name] = (label, picture)
        rows.append((name, split, label, 0, magnification, laboratory))
        if advance:
            advance()
    rng = np.random.default_rng([seed, 91])
    reasons = {
        "a turned copy of an image that may lie in the other split": _augmented(
            folder, made, augmented, rows, rng
        ),
        "one picture under both labels": _under_both(folder, made, copies and _BOTH_LABELS, rows),
        "the same picture as one in train": _in_both_splits(folder, made, copies and 1, rows),
    }
    for _ in range(augmented + copies):
        if advance:
            advance()
    lines = [line for reason, names in reasons.items() if names for line in (f"# {reason}", *names)]
    files.write_atomic(folder / EXCLUDED, "\n".join(lines) + "\n")
    columns = ("file", "split", "class", "augmented", "magnification", "laboratory")
    put_table(folder / "files.csv", columns, sorted(rows, key=lambda row: str(row[0])))


def make_tile(label: str, laboratory: int, magnification: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One tile, (128, 128, 3)."""
    haematoxylin, eosin = tissue(label == "oscc", magnification, PIXELS, rng)
    return coloured(haematoxylin, eosin, LABORATORIES[laboratory], rng)


def _augmented(folder: Path, made: _Made, count: int, rows: _Rows, rng: np.random.Generator) -> list[str]:
    """Mirrored, turned, cut and enlarged copies, named as such."""
    names = []
    for number, original in enumerate(rng.choice(sorted(made), count, replace=False)):
        label, picture = made[str(original)]
        split = "test" if rng.random() < 0.25 else "train"
        turned = np.rot90(picture, int(rng.integers(4)))
        turned = turned[:, ::-1] if rng.random() < 0.5 else turned
        top, left = rng.integers(0, 12, 2)
        cut = np.ascontiguousarray(turned[top : top + PIXELS - 12, left : left + PIXELS - 12])
        name = f"{split}/{label}/aug_{number + 1}_{_STEMS[label]}.jpg"
        put(folder / name, encoded(resized(cut, PIXELS, PIXELS), ".jpg", quality=86))
        rows.append((name, split, label, 1, "", ""))
        names.append(name)
    return sorted(names)


def _under_both(folder: Path, made: _Made, count: int, rows: _Rows) -> list[str]:
    """The first files of train, copied to the other class; both are then of unknown class."""
    names = []
    for number, original in enumerate([name for name in made if name.startswith("train/")][:count]):
        label, picture = made[original]
        other = CLASSES[1 - CLASSES.index(label)]
        magnification = original.split("_")[1][:-1]
        name = f"train/{other}/{_STEMS[other]}_{magnification}x_{9000 + number}.jpg"
        put(folder / name, encoded(picture, ".jpg", quality=86))
        rows.append((name, "train", other, 0, magnification, ""))
        names += [original, name]
    return sorted(names)


def _in_both_splits(folder: Path, made: _Made, count: int, rows: _Rows) -> list[str]:
    """One file of train, from behind those that have two labels, copied to test."""
    names = []
    for original in [name for name in made if name.startswith("train/")][_BOTH_LABELS : _BOTH_LABELS + count]:
        label, picture = made[original]
        magnification = original.split("_")[1][:-1]
        name = f"test/{label}/{_STEMS[label]}_{magnification}x_9900.jpg"
        put(folder / name, encoded(picture, ".jpg", quality=86))
        rows.append((name, "test", label, 0, magnification, ""))
        names.append(name)
    return names
