"""Haematoxylin and eosin on a lit slide: from the amount of stain to colour, differently in two laboratories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import Array, to_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """Optical density of one unit of each stain in red, green and blue, and the lamp's colour."""

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    lamp: tuple[float, float, float]


# Directions of the stains after Ruifrok and Johnston 2001, the second shifted towards blue.
LABORATORIES = (
    Laboratory(haematoxylin=(0.65, 0.70, 0.29), eosin=(0.10, 0.95, 0.25), lamp=(0.98, 0.96, 0.97)),
    Laboratory(haematoxylin=(0.77, 0.58, 0.25), eosin=(0.32, 0.78, 0.26), lamp=(0.86, 0.90, 0.93)),
)


def coloured(
    haematoxylin: Array, eosin: Array, laboratory: Laboratory, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Light through the slide (Beer-Lambert), (rows, columns, 3), with stain, lamp and camera varying a little."""
    density = np.zeros((*haematoxylin.shape, 3), np.float32)
    for amount, direction in ((haematoxylin, laboratory.haematoxylin), (eosin, laboratory.eosin)):
        density += amount[..., None] * (np.asarray(direction) * rng.uniform(0.88, 1.12, 3)).astype(np.float32)
    lamp = np.asarray(laboratory.lamp) * rng.uniform(0.9, 1.0) * rng.uniform(0.97, 1.03, 3)
    light = lamp.astype(np.float32) * np.exp(-density)
    return to_bytes(light + 0.012 * rng.standard_normal(light.shape, dtype=np.float32))
