"""Mask files as they are meant: of a picture with a palette of colours the numbers, not the colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..errors import DataError
from .image import Image, shown
from .policy import STRICT, ReadPolicy
from .readers import read_image


def read_mask(path: Path, *, policy: ReadPolicy = STRICT) -> Image:
    """As `read_image`; many programs store class numbers with a palette so that people see colours (PASCAL VOC).

    A palette of greys is none of that: there the grey levels are the values.

    Raises:
        DataError: As `read_image`, with what is to be done about a mask.
    """
    try:
        image = read_image(path, policy=policy)
    except DataError as error:
        raise DataError(error.where, error.seen, error.accepted, _todo(error)) from error
    if "palette to RGB" not in image.applied or "three equal channels" in image.applied:
        return image
    from .formats.pictures import palette_numbers

    return dataclasses.replace(image, array=palette_numbers(path, policy=policy))


def one_channel(path: Path, values: np.ndarray) -> np.ndarray:
    """The one value a voxel of a mask as read; a colour picture of grey levels has one, too.

    Args:
        path: For messages.
        values: (C, *spatial).

    Returns:
        (*spatial).

    Raises:
        DataError: Channels that differ.
    """
    if len(values) > 1 and not all(np.array_equal(values[0], other) for other in values[1:]):
        is_picture = values.ndim == 3
        seen = (
            f"a mask in colour ({len(values)} channels)"
            if is_picture
            else f"a 4D mask ({len(values)} volumes)"
        )
        todo = "write one label map; task.regions makes classes overlap"
        raise DataError(shown(path), seen, "one value a voxel", todo)
    first: np.ndarray = values[0]
    return first


def _todo(error: DataError) -> str:
    """The reader's remedy, unless it is one for images: a mask is never chosen from, filled in or excluded."""
    if "NaN or infinite" in error.seen:
        return "write whole numbers into the mask"
    if "data.volume" in error.todo:
        return "write one label map; task.regions makes classes overlap"
    if "data.exclude" in error.todo:
        return "write the mask again"
    return error.todo
