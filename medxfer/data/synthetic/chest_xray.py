"""Synthetic chest radiographs, normal or with pneumonia: a small problem that is fair to learn from.

The class shows in the lungs alone. Patient, posture, exposure, photometric interpretation, letters and
harmless shadows are drawn without regard to it: neither brightness nor a header tag gives it away.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from ... import files
from ...progress import Advance
from .chest_anatomy import (
    SIZE,
    Chest,
    Map,
    Person,
    blur,
    blur_widely,
    draw_person,
    draw_view,
    project,
    smooth_noise,
    step,
)
from .dicom import BITS_STORED, Radiograph, write_radiograph
from .opacities import harmless, pneumonia

VERSION = 2  # counted up whenever the same seed gives other files
CLASSES = ("normal", "pneumonia")
LABELS = "labels.csv"
Label = Literal["normal", "pneumonia"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An image to be made: whose, of which class, and the numbers its random draws start from."""

    patient: int
    number: int
    label: Label


def write_chest_xrays(
    folder: Path, *, count: int = 800, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write DICOM files and their label table.

    Args:
        folder: Gets `images/*.dcm` and `labels.csv` (columns `file`, relative to `folder`, and `label`).
        count: Images; half of them, as near as patients allow, of each class.
        seed: The same seed gives the same files.
        advance: Called after each image.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    with files.explained(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "label"))
    for planned in plan(count, seed):
        name = f"images/p{planned.patient:04d}-{planned.number}.dcm"
        image = make_radiograph(planned, seed)
        with files.explained(folder / name):
            # Not one by one through write_atomic: a sync a file would take longer than making it.
            write_radiograph(folder / name, image)
        rows.writerow((name, planned.label))
        if advance:
            advance()
    files.write_atomic(folder / LABELS, table.getvalue())


def plan(count: int, seed: int) -> Iterator[Planned]:
    """Who is imaged how often: one patient in four comes back once or twice, seldom with another finding."""
    rng = np.random.default_rng([seed, 0])
    patient = made = 0
    balance = 0  # pneumonia minus normal so far
    while made < count:
        patient += 1
        images = 1 if rng.random() >= 0.25 else int(rng.integers(2, 4))
        # The class that is behind is likelier, so that even short series are balanced.
        is_sick = rng.random() < 1 / (1 + np.exp(1.5 * balance))
        for number in range(1, min(images, count - made) + 1):
            changed = number > 1 and rng.random() < 0.1
            label = CLASSES[int(is_sick != changed)]
            balance += 1 if label == "pneumonia" else -1
            made += 1
            yield Planned(patient=patient, number=number, label=label)  # type: ignore[arg-type]  # from CLASSES


def make_radiograph(planned: Planned, seed: int) -> Radiograph:
    """One image with its header."""
    patient_rng = np.random.default_rng([seed, 1, planned.patient])
    person = draw_person(patient_rng)
    age = int(patient_rng.integers(20, 90))
    rng = np.random.default_rng([seed, 2, planned.patient, planned.number])
    chest = project(person, draw_view(rng), rng)
    opacity = None
    if planned.label == "pneumonia":
        # From numbers of its own, so that nothing drawn afterwards depends on the class.
        opacity = pneumonia(chest, np.random.default_rng([seed, 3, planned.patient, planned.number]))
    pixels = expose(chest, person, opacity, rng)
    lettered = bool(rng.random() < 0.05)
    view: Literal["PA", "AP"] = "PA" if rng.random() < 0.7 else "AP"
    if lettered:
        pixels = _with_letters(pixels, view, rng)
    name = f"SYN{seed:03d}-{planned.patient:04d}"
    return Radiograph(
        pixels=pixels,
        patient=name,
        study=f"{name}-{planned.number}",
        name=f"{name}-{planned.number}-1",
        photometric="MONOCHROME1" if rng.random() < 0.4 else "MONOCHROME2",
        spacing_mm=float(rng.choice((1.39, 1.48, 1.6))),
        view=view,
        sex="F" if person.breast else "M",
        age_years=age,
        date=f"2020{int(rng.integers(1, 13)):02d}{planned.number * 7:02d}",
        burned_in=lettered,
    )


def expose(chest: Chest, person: Person, opacity: Map | None, rng: np.random.Generator) -> NDArray[np.uint16]:
    """From attenuation to the stored picture: scatter, noise, tone curve, collimation, 12 bits."""
    air, vessels = person.lung * chest.lungs, chest.vessels
    texture = 1 + np.float32(0.025) * smooth_noise(rng, 48)
    shadow = harmless(chest, rng)
    if opacity is not None:
        # Fluid replaces air; the vessels in it lose their outline.
        air, vessels = air * (1 - opacity), vessels * (1 - np.minimum(1.3 * opacity, 1))
    weakened = chest.rest + shadow * (chest.rest > 0.05) + vessels - air * texture
    weakened = np.float32(0.85) * weakened + np.float32(0.15) * blur_widely(weakened)

    dose = rng.uniform(0.004, 0.016)
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    weakened += np.float32(dose) * grain * np.exp(np.float32(0.9) * (weakened - np.float32(0.5)))
    weakened = blur(weakened, float(rng.choice((0.5, 0.7, 0.9))))

    middle, slope = rng.uniform(0.3, 0.62), rng.uniform(2.2, 4.0)
    tone = step(weakened - np.float32(middle), 1 / slope)
    dark, bright = rng.uniform(0.01, 0.1), rng.uniform(0.75, 0.98)
    tone = np.float32(dark) + np.float32(bright - dark) * tone
    if rng.random() < 0.2:
        tone = _collimated(tone, rng)
    largest = 2**BITS_STORED - 1
    return np.asarray(np.clip(tone * largest + 0.5, 0, largest), np.uint16)


def _collimated(tone: Map, rng: np.random.Generator) -> Map:
    """Dark borders where the beam was narrowed."""
    top, bottom, left, right = rng.integers(0, 18, 4)
    inside = np.zeros_like(tone)
    inside[top : SIZE - bottom, left : SIZE - right] = 1
    return np.asarray(tone * inside + np.float32(0.015) * (1 - inside), np.float32)


def _with_letters(pixels: NDArray[np.uint16], view: str, rng: np.random.Generator) -> NDArray[np.uint16]:
    """A side marker, and now and then a word, printed in a corner."""
    mask = Picture.new("L", (SIZE, SIZE), 0)
    draw = ImageDraw.Draw(mask)
    marks = ["R"] if rng.random() < 0.7 else ["R", str(rng.choice(("PORTABLE", "ERECT", view)))]
    for mark in marks:
        on_right = mark != "R"
        place = (
            int(rng.integers(175, 195)) if on_right else int(rng.integers(6, 30)),
            int(rng.integers(6, 40)),
        )
        draw.text(place, mark, fill=255, font_size=int(rng.integers(10, 18)) if mark == "R" else 10)
    share = np.asarray(mask, np.float32) / 255
    letters = rng.uniform(0.8, 1.0) * (2**BITS_STORED - 1)
    return np.asarray(pixels + share * np.maximum(letters - pixels, 0), np.uint16)
