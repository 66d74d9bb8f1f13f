"""Projection of a drawn-up chest: who the patient is, how he stands, and what the beam goes through.

Lengths are in half image widths: x runs from -1 (image left, the patient's right) to 1, y from -1 (top) to 1.
Attenuation is in units of the trunk's thickest part, so 1 is about the mediastinum and 0 is air.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIZE = 256
Map = NDArray[np.float32]
Field = NDArray[np.floating[Any]]  # what an expression of maps is to the type checker


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Anatomy: the same in every image of a patient."""

    width: float  # midline to the inner chest wall at the base
    fat: float  # chest wall beyond the ribs
    apex: float  # y of the lung tops
    dome: float  # y of the right diaphragm dome at middle inspiration
    scoliosis: float
    heart: float  # scale of the heart
    heart_tilt_deg: float
    aorta: float
    rib_spacing: float
    rib_drop: float  # how far a back rib falls from spine to side
    bone: float  # how dense bone is
    breast: float  # 0 for none
    nipples: bool
    vessels: float
    lung: float  # how much air the lungs hold
    seed: int  # of vessel tree and texture


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One exposure: different in every image of a patient."""

    rotation_deg: float
    scale: tuple[float, float]
    shift: tuple[float, float]
    turn: float  # of the patient about the long axis; the lung turned away is darker
    inspiration: float  # added to the domes' y
    scapula: float  # distance of its inner border from the midline
    bubble: float  # gas in the stomach, 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """What the beam meets, each (256, 256), before any disease."""

    x: Map  # from the midline, positive on the patient's left
    y: Map
    across: Map  # 0 at the midline, 1 at the inner chest wall
    dome: Map  # y of the diaphragm at each place
    lungs: Map  # air along the beam, 0 to 1
    vessels: Map
    rest: Map  # attenuation of everything but lungs and vessels


def draw_person(rng: np.random.Generator) -> Person:
    """One patient; man or woman, slim or stout."""
    return Person(
        width=rng.uniform(0.64, 0.8),
        fat=rng.uniform(0.05, 0.28),
        apex=rng.uniform(-0.84, -0.7),
        dome=rng.uniform(0.32, 0.62),
        scoliosis=rng.normal(0, 0.015),
        heart=rng.uniform(0.85, 1.25),
        heart_tilt_deg=rng.uniform(25, 50),
        aorta=rng.uniform(0.5, 1.2),
        rib_spacing=rng.uniform(0.135, 0.175),
        rib_drop=rng.uniform(0.12, 0.3),
        bone=rng.uniform(0.6, 1.2),
        breast=float(rng.random() < 0.5) * rng.uniform(0.05, 0.26),
        nipples=bool(rng.random() < 0.2),
        vessels=rng.uniform(0.6, 1.35),
        lung=rng.uniform(0.42, 0.66),
        seed=int(rng.integers(2**31)),
    )


def draw_view(rng: np.random.Generator) -> View:
    """One exposure of a patient who stands, or lies, more or less straight."""
    zoom = rng.uniform(0.87, 1.13)
    return View(
        rotation_deg=rng.normal(0, 2.2),
        scale=(zoom * rng.uniform(0.96, 1.04), zoom * rng.uniform(0.96, 1.04)),
        shift=(rng.normal(0, 0.04), rng.normal(0, 0.04)),
        turn=rng.normal(0, 0.11),
        inspiration=rng.normal(0, 0.06),
        scapula=rng.uniform(0.6, 0.95),
        bubble=float(rng.random() < 0.6) * rng.uniform(0.05, 0.3),
    )


def smooth_noise(rng: np.random.Generator, cells: int) -> Map:
    """Noise of mean 0 and deviation near 1 whose lumps are about 256 / `cells` pixels wide."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    up = _upsampler(cells)
    return np.asarray(up @ coarse @ up.T, np.float32)


def blur(image: Map, sigma_px: float) -> Map:
    """Gaussian blur as two matrix products, several times as fast as a convolution at this size."""
    kernel = _blurrer(sigma_px)
    return np.asarray(kernel @ image @ kernel.T, np.float32)


def blur_widely(image: Map) -> Map:
    """What scattered rays make of an image: a blur of some 14 pixels, done on a grid of 32 x 32."""
    cells = image.reshape(32, SIZE // 32, 32, SIZE // 32).mean((1, 3), dtype=np.float32)
    smoothed = ndimage.gaussian_filter(cells, 1.6, mode="nearest")
    up = _upsampler(32)
    return np.asarray(up @ smoothed @ up.T, np.float32)


def step(value: Field, softness: float) -> Map:
    """0 far below 0, 1 far above, through a slope `softness` wide."""
    slope = np.asarray(value * np.float32(0.5 / softness), np.float32)
    np.tanh(slope, out=slope)
    slope += 1
    slope *= 0.5
    return slope


def disc(x: Field, y: Field) -> Map:
    """Thickness of a ball of radius 1 seen from the front."""
    rest = np.asarray(1 - x * x, np.float32)
    rest -= y * y
    np.maximum(rest, 0, out=rest)
    return np.sqrt(rest, out=rest)


@cache
def _upsampler(cells: int) -> Map:
    matrix = ndimage.zoom(np.eye(cells), (SIZE / cells, 1), order=3, mode="nearest", grid_mode=True)
    return np.asarray(matrix, np.float32)


@cache
def _blurrer(sigma_px: float) -> Map:
    matrix = ndimage.gaussian_filter1d(np.eye(SIZE), sigma_px, axis=0, mode="nearest")
    return np.asarray(matrix, np.float32)


def project(person: Person, view: View, rng: np.random.Generator) -> Chest:
    """Everything healthy that stands between the tube and the detector."""
    x, y = _place(view, rng)
    x = np.asarray(x - np.float32(person.scoliosis) * np.sin(3 * y + 1), np.float32)
    left = x > 0
    wall = _chest_wall(person, y) * _by_side(left, 1 + 0.5 * view.turn, 1 - 0.5 * view.turn)
    across = np.abs(x) / wall
    dome = _diaphragm(person, view, x, left)
    heart = _heart(person, x, y)
    lungs = _lungs(person, view, x, y, wall, dome, left)
    lungs *= 1 - 0.85 * np.sqrt(heart)
    rest = _soft_tissue(person, view, x, y, dome) + 0.15 * heart
    rest += np.float32(person.bone) * (_rib_cage(person, across, y) + _other_bones(view, x, y))
    vessels = _vessels(person, view) * np.minimum(lungs * 4, 1)
    return Chest(x=x, y=y, across=across, dome=dome, lungs=lungs, vessels=vessels, rest=rest)


def _place(view: View, rng: np.random.Generator) -> tuple[Map, Map]:
    """Where in the body each pixel looks: turned, scaled, shifted and slightly bent."""
    line = ((np.arange(SIZE, dtype=np.float32) + 0.5) * (2 / SIZE) - 1).astype(np.float32)
    column, row = line[None, :] - np.float32(view.shift[0]), line[:, None] - np.float32(view.shift[1])
    angle = np.deg2rad(view.rotation_deg)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x = (column * cosine + row * sine) / np.float32(view.scale[0]) + 0.008 * smooth_noise(rng, 4)
    y = (row * cosine - column * sine) / np.float32(view.scale[1]) + 0.012 * smooth_noise(rng, 4)
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _by_side(left: NDArray[np.bool_], right_value: float, left_value: float) -> Map:
    """One value for the patient's right half, another for the left."""
    return np.where(left, np.float32(left_value), np.float32(right_value))


def _chest_wall(person: Person, y: Map) -> Map:
    """Distance of the inner chest wall from the midline: narrow at the apex, widest at the base."""
    table_y = np.linspace(-1.4, 1.4, 1024)
    down = np.clip((table_y - person.apex) / (0.72 - person.apex), 0, 1)
    table = 0.27 + (person.width - 0.27) * (1 - (1 - down) ** 2.9) ** 0.6
    index = np.clip((y + 1.4) * (1023 / 2.8), 0, 1023).astype(np.int16)
    return np.asarray(table.astype(np.float32)[index], np.float32)


def _diaphragm(person: Person, view: View, x: Map, left: NDArray[np.bool_]) -> Map:
    """Height of the domes; the right one is higher, both fall steeply to the sharp angle at the side."""
    top = _by_side(left, person.dome, person.dome + 0.05) + np.float32(view.inspiration)
    away = np.abs(x) - np.float32(0.55 * person.width)
    beyond = np.maximum(away - 0.1, 0)
    return np.asarray(top + 0.8 * away * away + 2.4 * beyond * beyond, np.float32)


def _lungs(person: Person, view: View, x: Map, y: Map, wall: Map, dome: Map, left: NDArray[np.bool_]) -> Map:
    """Air along the beam: lens-shaped between mediastinum and wall, thin at the top, cut by the diaphragm."""
    below_apex = np.maximum(y - np.float32(person.apex), 0)
    inner = 0.1 + 0.15 * np.exp(below_apex * -14) + _by_side(left, 0.0, 0.02)
    between = (np.abs(x) - inner) / np.maximum(wall - inner, 0.02)
    lens = np.maximum(4 * between * (1 - between), 0)
    depth = np.sqrt(np.sqrt(lens)) * (0.75 + 0.25 * lens)
    depth *= np.minimum(np.sqrt(below_apex * 2.2), 1)
    behind = 0.13 * np.exp(np.minimum(dome - y, 0) * 9)  # lung behind the dome shines through the liver
    depth *= behind + (1 - behind) * step(dome - y, 0.008)
    return np.asarray(depth * _by_side(left, 1 - view.turn, 1 + view.turn), np.float32)


def _heart(person: Person, x: Map, y: Map) -> Map:
    """Heart, right atrium and aortic knob, as thickness 0 to 1."""
    size, tilt = person.heart, np.deg2rad(person.heart_tilt_deg)
    right, down = (x - 0.13 * size) / size, (y - person.dome + 0.19 * size) / size
    along = right * np.float32(np.cos(tilt)) + down * np.float32(np.sin(tilt))
    beside = down * np.float32(np.cos(tilt)) - right * np.float32(np.sin(tilt))
    ventricle = disc(along / 0.36, beside / 0.255)
    atrium = disc((right + 0.15) / 0.17, (down + 0.0) / 0.27)
    great_vessels = disc((x - 0.035) / 0.16, (y - person.dome + 0.66) / 0.42)
    knob = disc((x - 0.1) / 0.085, (y + 0.3) / 0.1) * np.float32(person.aorta)
    # A smooth union: the silhouettes run into each other, as the borders of the mediastinum do.
    joined = sum(part * part for part in (ventricle, atrium, great_vessels, knob))
    return np.minimum(np.sqrt(np.asarray(joined, np.float32)), np.float32(1))


def _soft_tissue(person: Person, view: View, x: Map, y: Map, dome: Map) -> Map:
    """Trunk, arms, neck, breasts, mediastinum, airway, belly and stomach gas."""
    aside = np.abs(x)
    trunk = person.width + person.fat
    outline = trunk + (1.3 - trunk) * step(-0.4 - y, 0.045)
    chord = np.sqrt(np.maximum(1 - (aside / outline) ** 2, 0))
    body = 0.6 * chord + 0.4 * np.sqrt(chord)
    shoulder = -1.35 + 0.42 * step(aside - 0.24, 0.03) + 0.24 * np.maximum(aside - 0.24, 0)
    body = body * step(y - shoulder, 0.012) * (0.86 - 0.16 * step(-0.55 - y, 0.1))
    body = body + 0.07 * np.exp(-((x / 0.13) ** 2)) + 0.1 * step(y - dome, 0.03) * body
    windpipe = np.exp(-np.square(np.square((x - 0.012) / 0.036))) * step(-0.24 - y, 0.03)
    fork = np.exp(-(((y + 0.23 - 0.7 * (aside - 0.02)) / 0.03) ** 2)) * step(0.17 - aside, 0.02)
    body = body - 0.14 * windpipe - 0.06 * fork
    if person.breast:
        fold = disc((aside - 0.42) / 0.32, (y - 0.16) / 0.34)
        body = body + np.float32(person.breast) * fold * step(y - 0.1, 0.12)
    if person.nipples:
        body = body + 0.07 * step(0.024 - np.hypot(aside - 0.4, y - 0.3), 0.006)
    if view.bubble:
        gas = disc((x - 0.33) / 0.15, (y - dome - 0.1) / 0.085)
        body = body - np.float32(view.bubble) * np.sqrt(gas)
    return np.asarray(body, np.float32)


def _bar(distance: Field, half_width: float) -> Map:
    """A bone seen from the side: a shell, denser at its two edges."""
    index = np.minimum(np.abs(distance) * np.float32(512 / half_width), 1023).astype(np.int16)
    return np.asarray(_bar_table()[index], np.float32)


@cache
def _bar_table() -> Map:
    """Density at 0 to 2 half widths from a bone's axis."""
    scaled = np.arange(1024) / 512
    edge = (scaled - 0.85) * 4
    table = 0.6 * np.exp(-(scaled**6)) + 0.45 * np.exp(-(edge**2))
    table[-1] = 0
    return np.asarray(table, np.float32)


def _rib_cage(person: Person, across: Map, y: Map) -> Map:
    """Back ribs fall gently from spine to side; front ribs go on from there, steeply, then fade."""
    spacing, drop = np.float32(person.rib_spacing), np.float32(person.rib_drop)
    inside = step(1.03 - across, 0.012)
    tangent = 1 + 0.9 * np.exp(-(((across - 1) / 0.06) ** 2))  # the beam runs along the bone at the side
    start = y - np.float32(person.apex) - 0.03
    high_enough = step(start + 0.02, 0.02) * step(0.62 - y, 0.08)

    back = start / spacing - (drop * across * across - 0.05 * np.sin(3 * across)) / spacing
    back_ribs = 0.1 * _bar(back - np.round(back), 0.21) * step(across - 0.1, 0.03)

    forward = np.maximum(1 - across, 0)
    front = start / spacing - (drop - 0.01 + 0.42 * forward) / spacing
    front_ribs = 0.085 * _bar(front - np.round(front), 0.27) * step(across - 0.45, 0.05)
    front_ribs *= step(front + 0.5, 0.1) * step(6.6 - front, 0.1)
    return np.asarray((back_ribs + front_ribs) * tangent * inside * high_enough, np.float32)


def _other_bones(view: View, x: Map, y: Map) -> Map:
    """Spine with discs, collar bones, shoulder blades and the heads of the arms."""
    aside = np.abs(x)
    vertebra = y / 0.118
    gap = vertebra - np.round(vertebra)
    spine = step(0.078 - aside, 0.008) * (0.085 - 0.05 * np.exp(-((gap / 0.12) ** 2)))
    spine = spine + 0.03 * np.exp(-((x / 0.018) ** 2)) * step(gap, 0.1)
    collar_y = -0.57 - 0.17 * aside + 0.03 * np.sin(8 * aside)
    collar = (
        0.14
        * _bar(y - collar_y - 0.25 * view.turn * x, 0.03)
        * step(aside - 0.06, 0.01)
        * step(0.8 - aside, 0.02)
    )
    border = view.scapula + 0.12 * (y + 0.25) ** 2 + 0.2 * np.maximum(y, -0.3)
    flat = step(aside - border, 0.006) * step(0.02 - y, 0.04) * step(y + 0.66, 0.03)
    blade = flat * (0.03 + 0.07 * np.exp(-(((aside - border) / 0.025) ** 2)))
    arm = 0.11 * np.sqrt(disc((aside - 1.02) / 0.13, (y + 0.56) / 0.13))
    arm = np.maximum(arm, 0.1 * _bar(aside - 1.06 - 0.35 * (y + 0.5), 0.07) * step(y + 0.56, 0.05))
    return np.asarray(spine + collar + blade + arm, np.float32)


def _vessels(person: Person, view: View) -> Map:
    """Both lungs' vessel trees, grown from the hila and thinning outward."""
    rng = np.random.default_rng(person.seed)
    thick = np.zeros((SIZE, SIZE), np.float32)
    thin = np.zeros((SIZE, SIZE), np.float32)
    layers = (
        (14, 7, thick, 1.0),
        (30, 12, thin, 0.36),
        (64, 14, thin, 0.2),
    )  # branches, steps, where, weight
    tips, headings = _hilum(rng)
    for branches, steps, image, weight in layers:
        parents = rng.integers(len(tips), size=2 * branches)
        place, heading = tips[parents], headings[parents] + rng.normal(0, 0.42, 2 * branches)
        turns = rng.normal(0, 0.1, (3 * steps, 2 * branches)).cumsum(0) * 0.6
        angles = heading + turns
        paths = place + np.cumsum(np.stack([np.cos(angles), np.sin(angles)], -1) * 0.0085, 0)
        fade = np.linspace(1, 0.55, 3 * steps)[:, None] * np.ones(2 * branches)
        image += np.float32(weight) * _splat(paths.reshape(-1, 2), fade.ravel(), person, view)
        tips, headings = paths[-1], angles[-1]
    return np.asarray((blur(thick, 1.9) + blur(thin, 0.9)) * np.float32(0.32 * person.vessels), np.float32)


def _hilum(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the first branches of both sides begin, and where they head."""
    side = np.repeat([-1.0, 1.0], 12)
    spread = np.tile(np.linspace(-1.25, 1.35, 12), 2) + rng.normal(0, 0.15, 24)
    place = np.stack([side * 0.15 + rng.normal(0, 0.012, 24), -0.04 + 0.1 * np.sin(spread) - 0.02 * side], -1)
    return place, np.where(side > 0, spread, np.pi - spread)


def _splat(points: NDArray[np.float64], weights: NDArray[np.float64], person: Person, view: View) -> Map:
    """Points of the body as dots on the image, shared among the four nearest pixels."""
    angle = np.deg2rad(view.rotation_deg)
    across = (points[:, 0] + person.scoliosis * np.sin(3 * points[:, 1] + 1)) * view.scale[0]
    down = (points[:, 1] + 0.5 * view.inspiration * points[:, 1]) * view.scale[1]
    column = ((across * np.cos(angle) - down * np.sin(angle) + view.shift[0] + 1) * SIZE - 1) / 2
    row = ((across * np.sin(angle) + down * np.cos(angle) + view.shift[1] + 1) * SIZE - 1) / 2
    column, row = np.clip(column, 0, SIZE - 2), np.clip(row, 0, SIZE - 2)
    first_column, first_row = column.astype(np.int64), row.astype(np.int64)
    right, low = column - first_column, row - first_row
    flat = first_row * SIZE + first_column
    index = np.concatenate([flat, flat + 1, flat + SIZE, flat + SIZE + 1])
    share = np.concatenate([(1 - low) * (1 - right), (1 - low) * right, low * (1 - right), low * right])
    image = np.bincount(index, share * np.tile(weights, 4), SIZE * SIZE)
    return np.asarray(image.reshape(SIZE, SIZE), np.float32)
