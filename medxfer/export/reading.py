"""What an exported bundle reads, one part of `inference.yaml` for pictures, volumes and slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..bundle.schema import DataSpec
from .reading_part import ReadingPart
from .reading_pictures import pictures
from .reading_volumes import slices, volumes

__all__ = ["READINGS", "ReadingPart", "reading_for"]

READINGS: Mapping[str, Callable[[DataSpec], ReadingPart]] = MappingProxyType(
    {"pictures": pictures, "volumes": volumes, "slices": slices}
)


def reading_for(data: DataSpec, dims: int) -> ReadingPart:
    """How a bundle's images are read in MONAI.

    Args:
        data: Slices, and what may be done with what is not plain.
        dims: Of what the network sees: 2 or 3.
    """
    kind = "slices" if data.slices is not None else "volumes" if dims == 3 else "pictures"
    return READINGS[kind](data)
