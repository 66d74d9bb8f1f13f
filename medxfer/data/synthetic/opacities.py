"""Pneumonia as a radiograph shows it, and the harmless shadows that healthy people have too."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .chest_anatomy import Chest, Map, disc, smooth_noise, step

Side = Literal[-1, 1]  # of the image; -1 is the patient's right lung
VISIBLE = (0.06, 0.17)  # share of the lungs' air that pneumonia replaces


def pneumonia(chest: Chest, rng: np.random.Generator) -> Map:
    """Share of the air that is replaced by fluid, 0 to 1, (256, 256).

    Drawn again, a few times at most, when too little of it would be seen (a label that nobody could give
    teaches nothing), or when it fills so much of the lungs that counting grey pixels would find it.
    """
    air = float(chest.lungs.sum())
    for _ in range(6):
        opacity = _infiltrate(chest, rng)
        if VISIBLE[0] < float((opacity * chest.lungs).sum()) / air < VISIBLE[1]:
            break
    return opacity


def _infiltrate(chest: Chest, rng: np.random.Generator) -> Map:
    """One of four kinds: a lobe, patches in one lung or both, a round focus, a haze about a hilum.

    How dense, how large, how soft at the edge and how mottled each is varies by itself.
    """
    kind = rng.choice(4, p=(0.38, 0.38, 0.12, 0.12))
    side: Side = -1 if rng.random() < 0.55 else 1
    if kind == 0:
        shape = _lobe(chest, side, rng)
    elif kind == 1:
        shape = _patches(chest, side, rng)
    elif kind == 2:
        shape = _focus(chest, side, rng, size=rng.uniform(0.15, 0.25), softness=rng.uniform(0.08, 0.3))
    else:
        shape = _perihilar(chest, side, rng)
    mottle = 0.35 * smooth_noise(rng, 14) + 0.4 * smooth_noise(rng, 28) + 0.3 * smooth_noise(rng, 56)
    coarse = rng.uniform(0.4, 0.85)
    textured = shape * np.clip(1 + np.float32(coarse) * mottle, 0.3, 1.8)
    density = 0.7 + 0.3 * rng.beta(1.4, 1.4)
    return np.asarray(np.minimum(np.float32(density) * textured, 0.95), np.float32)


def _lobe(chest: Chest, side: Side, rng: np.random.Generator) -> Map:
    """A lobe or a part of one: sharp along the fissure, fading elsewhere."""
    lobe = rng.choice(3, p=(0.3, 0.25, 0.45))
    own = step(chest.x * side - 0.02, 0.01)
    tilt = rng.uniform(-0.1, 0.2)
    fissure = chest.y - rng.uniform(-0.12, 0.04) - tilt * (np.abs(chest.x) - 0.35)
    sharp, soft = rng.uniform(0.006, 0.03), rng.uniform(0.05, 0.12)
    if lobe == 0:
        shape = step(-fissure, sharp) * step(fissure + rng.uniform(0.2, 0.4), soft)
    elif lobe == 1:
        reach = rng.uniform(0.3, 0.5)
        shape = (
            step(fissure, sharp)
            * step(reach - fissure, soft)
            * step(rng.uniform(0.5, 0.9) - chest.across, soft)
        )
    else:
        shape = step(chest.y - chest.dome + rng.uniform(0.2, 0.4), soft)
        shape = shape * step(chest.across - rng.uniform(0, 0.3), soft)
    return np.asarray(own * shape, np.float32)


def _patches(chest: Chest, side: Side, rng: np.random.Generator) -> Map:
    """Three to eight clouds that run together, in one lung or in both."""
    both = rng.random() < 0.45
    clear = np.ones_like(chest.x)
    for _ in range(int(rng.integers(3, 9))):
        here: Side = (-1 if rng.random() < 0.5 else 1) if both else side
        cloud = _focus(chest, here, rng, size=rng.uniform(0.09, 0.2), softness=rng.uniform(0.15, 0.5))
        clear *= 1 - np.float32(rng.uniform(0.55, 1)) * cloud
    return np.asarray(1 - clear, np.float32)


def _focus(chest: Chest, side: Side, rng: np.random.Generator, *, size: float, softness: float) -> Map:
    """One roundish cloud, lower in the lung more often than higher."""
    centre_x, centre_y = side * rng.uniform(0.2, 0.55), rng.uniform(-0.45, 0.45)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.7, 1.4)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    right, down = chest.x - np.float32(centre_x), chest.y - np.float32(centre_y)
    along = (right * cosine + down * sine) / np.float32(size * stretch)
    beside = (down * cosine - right * sine) / np.float32(size / stretch)
    return step(1 - np.sqrt(along * along + beside * beside), softness)


def _perihilar(chest: Chest, side: Side, rng: np.random.Generator) -> Map:
    """A haze that spreads from a hilum and spares the outer lung."""
    reach = rng.uniform(0.24, 0.38)
    away = np.hypot(chest.x - np.float32(side * 0.16), (chest.y - np.float32(rng.uniform(-0.05, 0.2))) * 0.8)
    return np.asarray(step(reach - away, 0.05) * step(chest.x * side - 0.02, 0.01), np.float32)


def harmless(chest: Chest, rng: np.random.Generator) -> Map:
    """Attenuation of what may be taken for disease: drawn alike for the healthy and the sick.

    Crowded vessels over the diaphragm, a skin fold, scars, calcified spots, and uneven soft tissue.
    """
    shadow = np.float32(rng.uniform(0.02, 0.085)) * smooth_noise(rng, 3)
    if rng.random() < 0.35:
        height = rng.uniform(0.08, 0.25)
        streaks = 1 + 0.35 * smooth_noise(rng, 40)
        crowding = np.exp(-np.maximum(chest.dome - chest.y, 0) / np.float32(height))
        shadow += np.float32(rng.uniform(0.02, 0.075)) * crowding * streaks * np.minimum(chest.lungs * 3, 1)
    if rng.random() < 0.15:
        edge = np.abs(chest.x) - rng.uniform(0.4, 0.65) - 0.15 * chest.y
        side = rng.choice((-1, 1))
        shadow += (
            np.float32(rng.uniform(0.02, 0.05))
            * step(edge, 0.006)
            * np.exp(-np.maximum(edge, 0) * 8)
            * (chest.x * side > 0)
        )
    for _ in range(int(rng.integers(0, 3))):
        tilt, length = rng.normal(0, 0.3), rng.uniform(0.03, 0.09)
        right = chest.x - np.float32(rng.choice((-1, 1)) * rng.uniform(0.25, 0.5))
        down = chest.y - np.float32(rng.uniform(-0.1, 0.4)) - np.float32(tilt) * right
        scar = np.exp(-((down / np.float32(0.009)) ** 2) - (right / np.float32(length)) ** 2)
        shadow += np.float32(rng.uniform(0.02, 0.07)) * scar
    if rng.random() < 0.12:
        spot = disc((chest.x - rng.uniform(-0.5, 0.5)) / 0.018, (chest.y - rng.uniform(-0.5, 0.3)) / 0.018)
        shadow += np.float32(rng.uniform(0.05, 0.14)) * spot
    return np.asarray(shadow, np.float32)
