"""Synthetic lung nodules in CT, benign or malignant: cut-out pictures, and volumes in HU in many orientations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .nodules import LUNG_HU, Label, draw_nodule, paint, scanned, surroundings
from .shapes import edge, to_bytes
from .writing import put_picture, put_table, put_volume

VERSION = 1
PIXELS = 64
CLASSES: tuple[Label, ...] = ("benign", "malignant")
_MALIGNANT = 0.38
# Voxels of the file point this way; readers turn all of them to the closest RAS.
ORIENTATIONS = ("RAS", "LPS", "LAS", "LPI", "PIR", "SRP", "ASL")


def plan(count: int, seed: int, part: int) -> list[tuple[int, int, Label]]:
    """Exam, number in it and class of each nodule; an exam has one or two, which mostly are alike."""
    rng = np.random.default_rng([seed, 110, part])
    planned: list[tuple[int, int, Label]] = []
    exam = 0
    while len(planned) < count:
        malignant = rng.random() < _MALIGNANT
        for number in range(min(1 + int(rng.random() < 0.4), count - len(planned))):
            other = number > 0 and rng.random() < 0.35
            planned.append((exam, number, CLASSES[int(malignant != other)]))
        exam += 1
    return planned


def write_nodule_slices(
    folder: Path, *, count: int = 500, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write `benign/*.png`, `malignant/*.png` (64 x 64, everything but the nodule is 0) and `labels.csv`.

    Args:
        folder: Gets the files; `labels.csv` has the columns file, exam, nodule, label, y, area_px.
        count: Nodules; group them by exam.
        seed: The same seed gives the same files.
        advance: Called after each picture.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: list[tuple[object, ...]] = []
    for exam, number, label in plan(count, seed, 0):
        rng = np.random.default_rng([seed, 111, exam, number])
        picture = make_slice(label, rng)
        name = f"{label}/e{exam:03d}_n{number:02d}.png"
        put_picture(folder / name, picture)
        area = int((picture > 0).sum())
        rows.append((name, f"e{exam:03d}", number, label, CLASSES.index(label), area))
        if advance:
            advance()
    put_table(folder / "labels.csv", ("file", "exam", "nodule", "label", "y", "area_px"), rows)


def make_slice(label: Label, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The nodule's largest slice, cut out, in a lung window, (64, 64)."""
    spacing = float(rng.uniform(0.6, 0.8))
    step = (spacing, spacing, 1.0)
    share, hu = paint(draw_nodule(label, rng), (PIXELS, PIXELS, 1), step, rng.normal(0, 0.8, 3) * (1, 1, 0))
    lung = LUNG_HU + rng.normal(0, 25)
    seen = scanned((1 - share) * lung + share * hu, step, rng)[..., 0]
    low, high = rng.uniform(-1050, -950), rng.uniform(150, 450)
    cut = share[..., 0] > rng.uniform(0.15, 0.35)
    return np.asarray(np.where(cut, np.maximum(to_bytes((seen - low) / (high - low)), 1), 0), np.uint8)


def write_nodule_volumes(
    folder: Path, *, count: int = 160, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write `images/*.nii.gz` (HU, int16) and `labels.csv`.

    Args:
        folder: Gets the files; `labels.csv` has the columns file, exam, nodule, label, y, axes.
        count: Nodules, one a volume, near its middle; group them by exam.
        seed: The same seed gives the same files.
        advance: Called after each volume.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rows: list[tuple[object, ...]] = []
    for exam, number, label in plan(count, seed, 1):
        rng = np.random.default_rng([seed, 112, exam, number])
        voxels, spacing = make_volume(label, rng)
        axes = str(rng.choice(ORIENTATIONS))
        stored, affine = oriented(voxels, spacing, axes, rng.uniform(-150, 150, 3))
        name = f"images/e{exam:03d}_n{number:02d}.nii.gz"
        put_volume(folder / name, stored, affine, codes=(1, int(rng.choice((0, 1, 2)))))
        rows.append((name, f"e{exam:03d}", number, label, CLASSES.index(label), axes))
        if advance:
            advance()
    put_table(folder / "labels.csv", ("file", "exam", "nodule", "label", "y", "axes"), rows)


def make_volume(
    label: Label, rng: np.random.Generator
) -> tuple[NDArray[np.int16], tuple[float, float, float]]:
    """A cube of some 32 to 40 mm about a nodule, axes to the right, front and head; HU and spacing in mm."""
    in_plane, between = float(rng.uniform(0.7, 1.1)), float(rng.choice((1.0, 1.25, 2.0, 2.5)))
    spacing = (in_plane, in_plane, between)
    side = rng.uniform(32, 40)
    shape = (round(side / in_plane), round(side / in_plane), round(side / between))
    nodule = draw_nodule(label, rng)
    share, hu = paint(nodule, shape, spacing, rng.normal(0, 2.0, 3))
    clear = surroundings(shape, spacing, rng)
    # Voxels in which nodule and vessel meet stay soft tissue.
    return scanned(clear + edge(share - 0.5, 0.2) * (hu - clear), spacing, rng), spacing


def oriented(
    voxels: NDArray[np.int16], spacing: tuple[float, float, float], axes: str, origin_mm: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """A volume with axes to the right, front and head, stored along other axes, and its affine (4, 4) to RAS."""
    import nibabel

    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin_mm
    orientation = nibabel.orientations
    change = orientation.ornt_transform(orientation.axcodes2ornt("RAS"), orientation.axcodes2ornt(axes))
    stored = np.ascontiguousarray(orientation.apply_orientation(voxels, change))
    return stored, np.asarray(affine @ orientation.inv_ornt_aff(change, voxels.shape))
