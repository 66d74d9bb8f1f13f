"""Files of synthetic sets: pictures, volumes, tables and Decathlon lists, the same bytes for the same values."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from ... import files


def put(path: Path, content: bytes) -> None:
    """Write one file of many, making its folder.

    Not through write_atomic: the whole set lies under another name until it is finished, and a sync a file would take
    longer than making it.
    """
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def encoded(image: NDArray[np.uint8] | NDArray[np.uint16], suffix: str, *, quality: int = 88) -> bytes:
    """A picture (rows, columns) or (rows, columns, 3) as the bytes of a PNG or JPEG file."""
    buffer = io.BytesIO()
    picture = Picture.fromarray(image)
    if suffix == ".png":
        picture.save(buffer, format="PNG", compress_level=4)
    else:
        picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def put_picture(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16], *, quality: int = 88) -> None:
    """Write a picture in the format its suffix names."""
    put(path, encoded(image, path.suffix, quality=quality))


def resized(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Another size, smoothly; grey or RGB."""
    return np.asarray(Picture.fromarray(image).resize((columns, rows), Picture.Resampling.LANCZOS))


def lettered(
    image: NDArray[np.uint8], text: str, place: tuple[float, float], *, size: int = 14, grey: int = 230
) -> NDArray[np.uint8]:
    """A grey picture with letters printed on it; `place` is x, y as shares of width and height."""
    picture = Picture.fromarray(image)
    left, top = int(place[0] * picture.width), int(place[1] * picture.height)
    ImageDraw.Draw(picture).text((left, top), text, fill=grey, font_size=size)
    return np.asarray(picture)


def put_volume(
    path: Path, voxels: NDArray[Any], affine: NDArray[np.floating[Any]], *, codes: tuple[int, int] = (1, 1)
) -> None:
    """Write a NIfTI file; a `.gz` one without the time, so that the same voxels give the same bytes.

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        voxels: (X, Y, Z) in the type to store.
        affine: (4, 4) voxel index -> mm, RAS.
        codes: Of qform and sform.
    """
    import nibabel

    image = nibabel.nifti1.Nifti1Image(voxels, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"synthetic, not a patient"
    content = image.to_bytes()
    put(path, gzip.compress(content, 4, mtime=0) if path.suffix == ".gz" else content)


def put_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    files.write_atomic(path, text.getvalue())


def put_decathlon(
    folder: Path, name: str, modality: str, labels: Mapping[int, str], cases: Sequence[str]
) -> None:
    """Write the `dataset.json` of a set in the Medical Segmentation Decathlon's layout."""
    value = {
        "name": name,
        "description": "Synthetic: made by a formula, no patient was imaged",
        "licence": "as medxfer",
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {str(number): label for number, label in labels.items()},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases
        ],
        "test": [],
    }
    files.write_atomic(folder / "dataset.json", json.dumps(value, indent=1) + "\n")
