"""A brain tumour as MR shows it: a lobed mass with core and rim, swelling about it, and neighbours pushed away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .shapes import AnyFloat, Array, edge, noise

Tissue = Literal["oedema", "core", "rim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tumour:
    """Where, how large and of which kind; lengths in half head heights."""

    x: float
    y: float
    size: float
    stretch: float
    lobes: float  # how uneven its border is
    solid: bool  # enhances throughout, without a core
    rim: float  # thickness of the rim, share of the size
    swelling: float  # reach of the oedema beyond the mass, 0 for none
    density: float  # how clearly it differs from the brain


def draw_tumour(rng: np.random.Generator) -> Tumour:
    """One tumour, in either half, seldom at the midline."""
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6)
    return Tumour(
        x=0.75 * distance * np.cos(angle),
        y=distance * np.sin(angle),
        size=rng.uniform(0.09, 0.24),
        stretch=rng.uniform(0.75, 1.3),
        lobes=rng.uniform(0.08, 0.3),
        solid=bool(rng.random() < 0.4),
        rim=rng.uniform(0.15, 0.4),
        swelling=float(rng.random() < 0.7) * rng.uniform(0.15, 0.8),
        density=rng.uniform(0.7, 1.0),
    )


def push(x: AnyFloat, y: AnyFloat, tumour: Tumour) -> tuple[Array, Array]:
    """Where in the undisturbed brain each place was before the mass pushed it away."""
    right, down = x - tumour.x, y - tumour.y
    away = np.hypot(right, down)
    moved = 0.45 * tumour.size * np.exp(-away / (1.2 * tumour.size)) * away / (away + 0.5 * tumour.size)
    shift = moved / np.maximum(away, 1e-3)
    return np.asarray(x - right * shift, np.float32), np.asarray(y - down * shift, np.float32)


def tumour_layers(
    x: AnyFloat, y: AnyFloat, tumour: Tumour, rng: np.random.Generator
) -> list[tuple[Array, Tissue]]:
    """Share of each place that a tissue of the tumour takes, to be laid over the brain in this order."""
    shape = (x.shape[0], x.shape[1])
    right, down = (x - tumour.x) / tumour.stretch, (y - tumour.y) * tumour.stretch
    uneven = 1 + tumour.lobes * noise(rng, shape, 9) + 0.5 * tumour.lobes * noise(rng, shape, 18)
    radius = np.hypot(right, down) / tumour.size / np.maximum(uneven, 0.5)
    layers: list[tuple[Array, Tissue]] = []
    if tumour.swelling:
        fingers = 1 + tumour.swelling * (1 + 0.9 * noise(rng, shape, 14))
        layers.append((0.85 * tumour.density * edge(fingers - radius, 0.08), "oedema"))
    mottle = 1 + 0.2 * noise(rng, shape, 30)
    mass = edge(1 - radius, 0.05)
    inner: Tissue = "rim" if tumour.solid else "core"
    layers.append((np.asarray(tumour.density * mass * np.clip(mottle, 0.5, 1.1), np.float32), inner))
    if not tumour.solid:
        ring = mass * edge(radius - (1 - tumour.rim * (1 + 0.4 * noise(rng, shape, 12))), 0.06)
        layers.append((np.asarray(tumour.density * ring, np.float32), "rim"))
    return layers
