"""What the chest generator's healthy chests may have: five findings, each changing the beam's way in its own manner."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from .chest_anatomy import Chest, Map, Person, View, disc, project, step
from .opacities import pneumonia
from .shapes import noise

FINDINGS = ("Cardiomegaly", "Effusion", "Nodule", "Opacity", "Pneumothorax")


def chest_with(
    findings: Collection[str], person: Person, view: View, seed: int, image: tuple[int, ...]
) -> tuple[Chest, Map | None]:
    """A chest with findings.

    Args:
        findings: Some of `FINDINGS`.
        person: Whose chest.
        view: How it is seen.
        seed: Of the set.
        image: Numbers of the image; each finding draws from numbers of its own, so that none depends on another.

    Returns:
        The chest, and the share of the lungs' air that fluid replaces (256, 256), None where it is none.
    """
    if "Cardiomegaly" in findings:
        person = dataclasses.replace(person, heart=_rng(seed, image, 0).uniform(1.22, 1.5))
    chest = project(person, view, _rng(seed, image, 9))
    if "Pneumothorax" in findings:
        chest = _pneumothorax(chest, _rng(seed, image, 1))
    if "Nodule" in findings:
        chest = _nodules(chest, _rng(seed, image, 2))
    filled: Map | None = None
    if "Opacity" in findings:
        filled = pneumonia(chest, _rng(seed, image, 3))
    if "Effusion" in findings:
        fluid = _effusion(chest, _rng(seed, image, 4))
        filled = fluid if filled is None else np.maximum(filled, fluid)
    return chest, filled


def _rng(seed: int, image: tuple[int, ...], finding: int) -> np.random.Generator:
    return np.random.default_rng([seed, 70, *image, finding])


def _effusion(chest: Chest, rng: np.random.Generator) -> Map:
    """Fluid over a diaphragm: the sharp angle at the side is filled and the upper border rises towards the wall."""
    depth = np.zeros_like(chest.x)
    sides = (-1, 1) if rng.random() < 0.3 else (int(rng.choice((-1, 1))),)
    for side in sides:
        height, rise = rng.uniform(0.02, 0.26), rng.uniform(0.12, 0.35)
        surface = chest.dome - height - rise * np.maximum(chest.across - 0.35, 0) ** 2 / 0.42
        share = step(chest.y - surface, rng.uniform(0.015, 0.05)) * step(chest.x * side - 0.02, 0.01)
        depth = np.maximum(depth, share)
    return np.asarray(np.float32(rng.uniform(0.8, 0.97)) * depth, np.float32)


def _nodules(chest: Chest, rng: np.random.Generator) -> Chest:
    """One to three round shadows where there is lung."""
    rest = chest.rest.copy()
    places = np.argwhere(chest.lungs > 0.6)
    for _ in range(int(rng.choice((1, 2, 3), p=(0.6, 0.25, 0.15)))):
        row, column = places[int(rng.integers(len(places)))]
        radius = rng.uniform(0.035, 0.075)
        right, down = chest.x - chest.x[row, column], chest.y - chest.y[row, column]
        uneven = 1 + 0.12 * noise(rng, rest.shape, 24)
        ball = disc(right / (radius * uneven), down / (radius * rng.uniform(0.85, 1.15) * uneven))
        rest += np.float32(rng.uniform(0.14, 0.26)) * np.sqrt(ball)
    return dataclasses.replace(chest, rest=rest)


def _pneumothorax(chest: Chest, rng: np.random.Generator) -> Chest:
    """Air between lung and wall: no vessels there, and the lung's edge as a fine line."""
    side = int(rng.choice((-1, 1)))
    own = step(chest.x * side - 0.02, 0.01)
    top = chest.y[chest.lungs > 0.3].min()
    width = rng.uniform(0.14, 0.32)
    # Wider at the top, where air gathers in an upright patient.
    border = (
        1
        - width * (0.45 + np.exp(-np.maximum(chest.y - top, 0) / 0.35))
        + 0.012 * noise(rng, chest.x.shape, 6)
    )
    outside = own * step(chest.across - border, 0.006) * np.minimum(chest.lungs * 4, 1)
    line = own * np.exp(-(((chest.across - border) / 0.009) ** 2)) * np.minimum(chest.lungs * 4, 1)
    lungs = chest.lungs * (1 + 0.2 * outside) * (1 - rng.uniform(0.1, 0.28) * own * (1 - outside))
    return dataclasses.replace(
        chest,
        lungs=np.asarray(lungs, np.float32),
        vessels=np.asarray(chest.vessels * (1 - outside), np.float32),
        rest=np.asarray(chest.rest + np.float32(rng.uniform(0.08, 0.14)) * line, np.float32),
    )
