"""Synthetic chest radiographs with several findings at once, small pictures with one column a finding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Advance
from .chest_anatomy import SIZE, draw_person, draw_view
from .chest_xray import expose
from .findings import FINDINGS, chest_with
from .shapes import retoned, to_bytes
from .writing import lettered, put_picture, put_table, resized

VERSION = 1
PIXELS = 128
_RATES = {"Cardiomegaly": 0.2, "Effusion": 0.24, "Nodule": 0.2, "Opacity": 0.28, "Pneumothorax": 0.16}
_UNKNOWN = 0.06  # share of the cells that nobody filled in
_TONES = (0.03, 0.13, 0.22, 0.31, 0.4, 0.48, 0.56, 0.63, 0.7, 0.78, 0.95)


def write_chest_findings(
    folder: Path, *, count: int = 600, seed: int = 0, advance: Advance | None = None
) -> None:
    """Write `images/*.png` and `labels.csv`.

    Columns: file, patient_id, follow_up, age, sex, view, source_split, then each finding as 1, 0 or nothing. As in the
    set this stands for, `source_split` was drawn by image and some patients are in two of its parts.

    Args:
        folder: Gets the files.
        count: Images; a patient has one to five.
        seed: The same seed gives the same files.
        advance: Called after each image.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    rng = np.random.default_rng([seed, 71])
    rows: list[tuple[object, ...]] = []
    patient = 0
    while len(rows) < count:
        patient += 1
        age, visits = int(rng.integers(18, 88)), int(rng.choice(5, p=(0.45, 0.2, 0.15, 0.1, 0.1))) + 1
        part = str(rng.choice(("train", "valid", "test"), p=(0.6, 0.2, 0.2)))
        has = {name for name in FINDINGS if rng.random() < _RATES[name]}
        for visit in range(min(visits, count - len(rows))):
            # What a patient has mostly stays from visit to visit; now and then something comes or goes.
            has = has.symmetric_difference({name for name in FINDINGS if visit and rng.random() < 0.08})
            view = "PA" if rng.random() < (0.55 if has else 0.75) else "AP"
            image, sex = make_picture(has, view, seed, patient, visit)
            name = f"images/{patient:05d}_{visit:03d}.png"
            put_picture(folder / name, image)
            cells = ["" if rng.random() < _UNKNOWN else int(finding in has) for finding in FINDINGS]
            given = part if rng.random() < 0.9 else str(rng.choice(("train", "valid", "test")))
            rows.append((name, patient, visit, age, sex, view, given, *cells))
            if advance:
                advance()
    columns = ("file", "patient_id", "follow_up", "age", "sex", "view", "source_split", *FINDINGS)
    put_table(folder / "labels.csv", columns, rows)


def make_picture(
    findings: set[str], view: str, seed: int, patient: int, visit: int
) -> tuple[NDArray[np.uint8], str]:
    """One picture, (128, 128), and the patient's sex."""
    person = draw_person(np.random.default_rng([seed, 72, patient]))
    # A heart of common size, so that an enlarged one can be told from it.
    person = dataclasses.replace(person, heart=0.85 + 0.75 * (person.heart - 0.85))
    rng = np.random.default_rng([seed, 73, patient, visit])
    chest, filled = chest_with(findings, person, draw_view(rng), seed, (patient, visit))
    pixels = expose(chest, person, filled, rng) / np.float32(4095)
    gamma, top = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.0)
    image = to_bytes(retoned(pixels, top * np.asarray(_TONES) ** gamma, rng.uniform(0.6, 0.9)))
    if rng.random() < 0.4:
        image = lettered(image, "R" if view == "PA" else "R  AP", (rng.uniform(0.02, 0.12), 0.03), size=16)
    return resized(image, PIXELS * image.shape[0] // SIZE, PIXELS), "F" if person.breast else "M"
