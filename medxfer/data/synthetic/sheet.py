"""A page of synthetic images side by side, to look at before believing them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw
from pydicom import dcmread
from scipy import ndimage

from ... import files
from .findings import FINDINGS

_TILE, _LINE, _TITLE = 256, 20, 34
_CONTOUR = (255, 90, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A file of the set, what stands over it, and its mask."""

    file: str
    label: str
    mask: str | None = None


def contact_sheet(folder: Path, path: Path, *, rows: int = 4, columns: int = 8) -> Path:
    """Draw images of a synthetic set with their labels or masks; the title says that they are synthetic.

    Args:
        folder: A set as `make` makes it: DICOM, PNG, JPEG or NIfTI files and a table or list that names them.
        path: The PNG to write.
        rows: Of pictures; each shows one class, in turn.
        columns: Of pictures.

    Returns:
        `path`.
    """
    entries = list(_entries(folder))
    classes = sorted({entry.label for entry in entries})
    waiting = {name: iter([entry for entry in entries if entry.label == name]) for name in classes}

    page = Picture.new("RGB", (columns * _TILE, _TITLE + rows * (_TILE + _LINE)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((8, 6), "Synthetic images, not patients", fill=0, font_size=20)
    for row in range(rows):
        label = classes[row % len(classes)]
        for column in range(columns):
            entry = next(waiting[label], None)
            if entry is None:
                break
            left, top = column * _TILE, _TITLE + row * (_TILE + _LINE)
            page.paste(_tile(folder, entry), (left, top + _LINE))
            draw.text(
                (left + 4, top + 3), f"{label} (synthetic)  {Path(entry.file).stem}", fill=0, font_size=12
            )
    shown = io.BytesIO()
    page.save(shown, format="PNG")
    return files.write_atomic(path, shown.getvalue())


def _entries(folder: Path) -> Iterator[_Entry]:
    """What the set's table or list names; class folders where there is neither."""
    if (folder / "dataset.json").is_file():
        listed = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        for case in listed["training"]:
            yield _Entry(file=case["image"], label=listed["modality"]["0"], mask=case["label"])
        return
    tables = [folder / name for name in ("labels.csv", "files.csv") if (folder / name).is_file()]
    if not tables:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")):
            yield _Entry(file=path.relative_to(folder).as_posix(), label=path.parent.name)
        return
    with tables[0].open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            yield _Entry(file=row.get("file") or row["image"], label=_label_of(row), mask=row.get("mask"))


def _label_of(row: dict[str, str]) -> str:
    for name in ("label", "class", "kind", "hospital"):
        if name in row:
            return row[name]
    return next((name for name in FINDINGS if row.get(name) == "1"), "no finding")


def _tile(folder: Path, entry: _Entry) -> Picture.Image:
    """One image as it is meant to be seen, the mask's outline on it, in a square."""
    image, mask = _seen(folder, entry)
    scale = _TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Picture.fromarray(image).convert("RGB").resize(size)
    if mask is not None:
        parts = np.asarray(Picture.fromarray(mask.astype(np.uint8)).resize(size, Picture.Resampling.NEAREST))
        colours = np.array(picture)
        colours[ndimage.maximum_filter(parts, 2) != ndimage.minimum_filter(parts, 2)] = _CONTOUR
        picture = Picture.fromarray(colours)
    square = Picture.new("RGB", (_TILE, _TILE), "black")
    square.paste(picture)
    return square


def _seen(folder: Path, entry: _Entry) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """Grey (rows, columns) or colour (rows, columns, 3), and the mask where there is one."""
    path = folder / entry.file
    if path.suffix == ".gz":
        return _slice(folder, entry)
    if path.suffix == ".dcm":
        dataset = dcmread(path)
        pixels = dataset.pixel_array.astype(np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = 2**dataset.BitsStored - 1 - pixels
        return _stretched(pixels), None
    with Picture.open(path) as picture:
        image = np.array(picture)
    if entry.mask is None:
        return image, None
    with Picture.open(folder / entry.mask) as picture:
        return image, np.array(picture)


def _slice(folder: Path, entry: _Entry) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """The axial slice of a volume with the most of its mask, or the middle one; front up, right side left."""
    import nibabel

    volume = nibabel.funcs.as_closest_canonical(nibabel.nifti1.load(folder / entry.file))
    voxels = np.asarray(volume.dataobj, np.float32)
    mask, index = None, voxels.shape[2] // 2
    if entry.mask is not None:
        labels = nibabel.funcs.as_closest_canonical(nibabel.nifti1.load(folder / entry.mask))
        whole = np.asarray(labels.dataobj)
        index = int((whole > 0).sum((0, 1)).argmax())
        mask = whole[::-1, ::-1, index].T
    flat = voxels[::-1, ::-1, index].T
    if float(voxels.min()) < 0:  # HU
        low, high = (-160, 240) if mask is not None else (-1100, 400)
        return np.asarray(np.clip((flat - low) / (high - low), 0, 1) * 255, np.uint8), mask
    return _stretched(flat), mask


def _stretched(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, (0.5, 99.5))
    return np.asarray(np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255, np.uint8)
