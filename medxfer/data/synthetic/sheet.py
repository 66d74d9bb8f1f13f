"""A page of synthetic images side by side, to look at before believing them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw
from pydicom import dcmread

from ... import files

_TILE, _LINE, _TITLE = 256, 20, 34


def contact_sheet(folder: Path, path: Path, *, rows: int = 4, columns: int = 8) -> Path:
    """Draw images of a synthetic set with their labels; the title says that they are synthetic.

    Args:
        folder: Holds `labels.csv` and the DICOM files it names.
        path: The PNG to write.
        rows: Of pictures; even ones come from the first class, odd ones from the second.
        columns: Of pictures.

    Returns:
        `path`.
    """
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as text:
        table = [(row["file"], row["label"]) for row in csv.DictReader(text)]
    classes = sorted({label for _, label in table})
    waiting = {name: iter([file for file, label in table if label == name]) for name in classes}

    page = Picture.new("L", (columns * _TILE, _TITLE + rows * (_TILE + _LINE)), 255)
    draw = ImageDraw.Draw(page)
    draw.text((8, 6), "Synthetic chest radiographs, not patients", fill=0, font_size=20)
    for row in range(rows):
        label = classes[row % len(classes)]
        for column in range(columns):
            file = next(waiting[label], None)
            if file is None:
                break
            left, top = column * _TILE, _TITLE + row * (_TILE + _LINE)
            page.paste(_tile(folder / file), (left, top + _LINE))
            draw.text((left + 4, top + 3), f"{label} (synthetic)  {Path(file).stem}", fill=0, font_size=12)
    shown = io.BytesIO()
    page.save(shown, format="PNG")
    return files.write_atomic(path, shown.getvalue())


def _tile(path: Path) -> Picture.Image:
    """One image as it is meant to be seen: MONOCHROME1 turned round, the grey values stretched."""
    dataset = dcmread(path)
    pixels = dataset.pixel_array.astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2**dataset.BitsStored - 1 - pixels
    low, high = np.percentile(pixels, (0.5, 99.5))
    grey = np.clip((pixels - low) / max(high - low, 1), 0, 1) * 255
    return Picture.fromarray(grey.astype(np.uint8)).resize((_TILE, _TILE))
