"""Projection of an abdomen: trunk, spine, pelvis, lower ribs, organs and gas in the bowel.

Lengths are in half image widths: x from -1 (image left, the patient's right) to 1, y from -1 (top) to 1. Attenuation
is in the chest generator's units: 0 is air.
"""

from __future__ import annotations

import numpy as np

from .chest_anatomy import SIZE
from .shapes import AnyFloat, Array, ball, blob, blurred, edge, noise, picture_grid, turned


def abdomen(rng: np.random.Generator) -> Array:
    """What the beam meets, (256, 256)."""
    x, y = _place(rng)
    width = rng.uniform(0.75, 1.05)
    waist = width * (1 - 0.08 * np.exp(-(((y + 0.1) / 0.4) ** 2)))
    chord = np.sqrt(np.maximum(1 - (x / waist) ** 2, 0))
    body = (0.6 + rng.uniform(-0.05, 0.1)) * chord + 0.2 * np.sqrt(chord)
    body = body + _organs(x, y, rng) * chord
    bone = rng.uniform(0.7, 1.25)
    body = body + np.float32(bone) * (_spine(x, y, rng) + _pelvis(x, y, rng) + _ribs(x, y, rng)) * (chord > 0)
    gas = _gas(x, y, rng)
    body = body - np.minimum(gas, 0.36) * chord
    if rng.random() < 0.2:
        body = body + _foreign(x, y, rng)
    mottle = 0.012 * noise(rng, x.shape, 40) + 0.02 * noise(rng, x.shape, 9)
    return np.asarray(np.maximum(body + mottle * chord, 0), np.float32)


def _place(rng: np.random.Generator) -> tuple[Array, Array]:
    """Where in the body each pixel looks: turned, scaled, shifted and slightly bent."""
    x, y = picture_grid((SIZE, SIZE))
    x, y = turned(
        x - np.float32(rng.normal(0, 0.04)), y - np.float32(rng.normal(0, 0.08)), rng.normal(0, 0.05)
    )
    zoom = rng.uniform(0.85, 1.3)
    x = x / np.float32(zoom) + np.float32(0.012) * noise(rng, x.shape, 4)
    y = y / np.float32(zoom * rng.uniform(0.94, 1.06)) + np.float32(0.012) * noise(rng, x.shape, 4)
    x = x - np.float32(rng.normal(0, 0.02)) * np.sin(2.5 * y)
    return x, y


def _spine(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Lumbar vertebrae with discs, pedicles and processes, ending in the sacrum."""
    height = rng.uniform(0.2, 0.24)
    wide = rng.uniform(0.1, 0.125) * (1 + 0.18 * y)
    number = (y + 0.02) / height
    gap = np.abs(number - np.round(number))  # 0.5 in the disc
    above = edge(0.36 - y, 0.03)
    body = edge(wide * (1 - 0.12 * np.cos(2 * np.pi * (number - np.round(number)))) - np.abs(x), 0.01)
    vertebrae = body * (0.05 + 0.1 * edge(0.4 - gap, 0.02) + 0.05 * np.exp(-(((gap - 0.38) / 0.03) ** 2)))
    local = (number - np.round(number)) * height
    pedicles = blob((np.abs(x) - 0.65 * wide) / 0.026, (local + 0.03) / 0.04, 0.3)
    spinous = blob(x / 0.018, (local - 0.035) / 0.05, 0.3)
    across = edge(0.018 - np.abs(local + 0.01 - 0.1 * (np.abs(x) - wide)), 0.006)
    processes = across * edge(np.abs(x) - wide, 0.01) * edge(wide + 0.11 - np.abs(x), 0.015)
    return np.asarray(above * (vertebrae + 0.07 * pedicles + 0.07 * spinous + 0.06 * processes), np.float32)


def _pelvis(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Iliac wings, sacrum, hip joints and the ring below."""
    aside, top = np.abs(x), rng.uniform(0.1, 0.26)
    low = y - np.float32(top)
    crest = 0.06 + 1.5 * (aside - 0.42) ** 2
    wing = edge(low - crest, 0.012) * edge(0.47 - low - 0.35 * (aside - 0.3), 0.02)
    wing = wing * edge(aside - 0.15 - 0.22 * low, 0.012) * edge(0.72 - aside - 0.25 * low, 0.02)
    rim = np.exp(-(((low - crest - 0.02) / 0.02) ** 2)) + 0.8 * np.exp(
        -(((aside - 0.17 - 0.22 * low) / 0.016) ** 2)
    )
    bone = wing * (0.08 + 0.09 * rim)
    taper = 0.17 - 0.26 * (low - 0.12)
    sacrum = edge(taper - aside, 0.012) * edge(low - 0.12, 0.03) * edge(0.62 - low, 0.05)
    holes = blob((aside - 0.45 * taper) / 0.03, (np.mod(low, 0.12) - 0.06) / 0.03, 0.4)
    bone = bone + sacrum * (0.09 - 0.04 * holes)
    socket = ball((aside - 0.52) / 0.13, (low - 0.6) / 0.13)
    bone = bone + 0.1 * socket
    outer = blob((aside - 0.2) / 0.2, (low - 0.74) / 0.16, 0.1)
    inner = blob((aside - 0.2) / 0.12, (low - 0.76) / 0.08, 0.15)
    ring = np.maximum(outer - inner, 0) * edge(low - 0.6, 0.02)
    shaft = edge(0.08 - np.abs(aside - 0.68 + 0.1 * (low - 0.8)), 0.01) * edge(low - 0.66, 0.04)
    return np.asarray(bone + 0.1 * ring + 0.12 * shaft, np.float32)


def _ribs(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """The last ribs, falling to the sides above."""
    aside = np.abs(x)
    bone: AnyFloat = np.zeros_like(x)
    slope, reach = rng.uniform(0.35, 0.7), rng.uniform(0.55, 0.85)
    for number in range(3):
        start = -0.98 + 0.19 * number + rng.normal(0, 0.01)
        line = y - start - slope * (aside - 0.1) + 0.25 * (aside - 0.1) ** 2
        length = reach - 0.17 * number
        bar = np.exp(-((line / 0.02) ** 4)) + 0.4 * np.exp(-(((np.abs(line) - 0.018) / 0.007) ** 2))
        bone = bone + 0.07 * bar * edge(aside - 0.12, 0.02) * edge(length - aside, 0.04)
    return np.asarray(bone, np.float32)


def _organs(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Liver, spleen, kidneys, the psoas muscles' edges and a filled bladder."""
    liver = edge(0.75 + 0.9 * (-x - 0.55) - (y + 0.9), 0.06) * edge(-x - 0.02 + 0.2 * (y + 0.6), 0.08)
    body: AnyFloat = rng.uniform(0.04, 0.09) * liver + 0.03 * blob((x - 0.6) / 0.16, (y + 0.6) / 0.25, 0.2)
    for side in (-1, 1):
        along, beside = turned(x - side * 0.32, y + 0.28 + 0.04 * side, -side * 0.25)
        body = body + rng.uniform(0.01, 0.04) * blob(along / 0.1, beside / 0.2, 0.12)
    psoas = 0.13 + 0.28 * (y + 0.45)
    body = body + rng.uniform(0.01, 0.045) * edge(psoas - np.abs(x), 0.015) * edge(y + 0.45, 0.05) * edge(
        0.5 - y, 0.1
    )
    bladder = blob(x / rng.uniform(0.15, 0.28), (y - 0.78) / rng.uniform(0.12, 0.2), 0.12)
    return np.asarray(body + rng.uniform(0, 0.06) * bladder, np.float32)


def _gas(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Gas and stool along the colon, loops of small bowel, stomach and rectum: each may be missing."""
    colon = np.array([(-0.58, 0.42), (-0.6, 0.05), (-0.56, -0.35), (-0.2, -0.3 + rng.normal(0, 0.08))])
    colon = np.concatenate(
        [colon, [(0.2, -0.32 + rng.normal(0, 0.08)), (0.58, -0.52), (0.62, 0.0), (0.56, 0.42), (0.2, 0.55)]]
    )
    count = 44
    lumps = np.linspace(0, len(colon) - 1, count)
    path = np.stack([np.interp(lumps, np.arange(len(colon)), colon[:, axis]) for axis in (0, 1)], 1)
    path = path + 0.03 * np.stack([noise(rng, (count,), 9), noise(rng, (count,), 9)], 1)
    filled = noise(rng, (count,), 7) + rng.normal(0.1, 0.5)
    width = rng.uniform(0.05, 0.085) * (1 + 0.3 * noise(rng, (count,), 14))
    mottled = 0.45 + 0.45 * np.clip(noise(rng, x.shape, 46), -1, 1)
    clear = np.ones_like(x)
    for (centre_x, centre_y), full, radius in zip(path, filled, np.maximum(width, 0.03), strict=True):
        if full < 0.1:
            continue
        along, beside = turned(x - centre_x, y - centre_y, rng.uniform(0, np.pi))
        lump = ball(along / radius, beside / (radius * rng.uniform(0.7, 0.95)))
        clear = clear * (1 - 0.6 * lump * (mottled if full < 0.7 else np.float32(1)))
    gas = rng.uniform(0.16, 0.27) * (1 - clear)
    for _ in range(int(rng.integers(0, 7))):
        along, beside = turned(
            x - rng.uniform(-0.35, 0.35), y - rng.uniform(-0.2, 0.45), rng.uniform(0, np.pi)
        )
        bend = beside - 0.8 * along * along
        loop = ball(along / rng.uniform(0.1, 0.22), bend / rng.uniform(0.035, 0.06))
        folds = 1 + 0.2 * np.sin(along * rng.uniform(90, 160))  # of the small bowel
        gas = np.maximum(gas, rng.uniform(0.06, 0.18) * loop * folds)
    stomach = ball((x - 0.32) / rng.uniform(0.15, 0.24), (y + 0.78) / rng.uniform(0.09, 0.16))
    gas = np.maximum(gas, float(rng.random() < 0.6) * rng.uniform(0.1, 0.25) * np.sqrt(stomach))
    rectum = ball(x / 0.08, (y - 0.72) / 0.12)
    gas = np.maximum(gas, float(rng.random() < 0.5) * rng.uniform(0.1, 0.25) * np.sqrt(rectum))
    return blurred(gas, 1.0)


def _foreign(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """A stone, clips or a tube."""
    kind = int(rng.integers(3))
    if kind == 0:
        return 0.15 * blob((x - rng.uniform(-0.4, 0.4)) / 0.025, (y + rng.uniform(-0.2, 0.4)) / 0.02, 0.3)
    if kind == 1:
        start, bend = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)
        line = x - start - bend * y - 0.1 * np.sin(3 * y)
        return np.asarray(0.09 * np.exp(-((line / 0.008) ** 2)) * edge(0.3 - y, 0.02), np.float32)
    clips = np.zeros_like(x)
    for _ in range(4):
        along, beside = turned(x + rng.uniform(0.15, 0.4), y + rng.uniform(-0.1, 0.35), rng.uniform(0, np.pi))
        clips = clips + 0.3 * (np.abs(beside) < 0.006) * (np.abs(along) < 0.03)
    return np.asarray(clips, np.float32)
