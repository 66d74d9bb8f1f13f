"""Mask files as they are meant: of a picture with a palette of colours the numbers, not the colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .image import Image
from .policy import STRICT, ReadPolicy
from .readers import read_image


def read_mask(path: Path, *, policy: ReadPolicy = STRICT) -> Image:
    """As `read_image`; many programs store class numbers with a palette so that people see colours (PASCAL VOC).

    A palette of greys is none of that: there the grey levels are the values.

    Raises:
        DataError: As `read_image`.
    """
    image = read_image(path, policy=policy)
    if "palette to RGB" not in image.applied or "three equal channels" in image.applied:
        return image
    from .formats.pictures import palette_numbers

    return dataclasses.replace(image, array=palette_numbers(path, policy=policy))
