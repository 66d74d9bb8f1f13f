"""What is there, as figures: cases, patients, classes, kinds, sizes, spacings and values of a data set."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case
from ..cases import Found
from ..image import shown
from ..listing.patients import ALONE
from .looks import Look


def facts_of(
    root: Path, found: Found, cases: Sequence[Case], looks: Sequence[Look], sides: Mapping[str, int]
) -> dict[str, Any]:
    """What is there.

    Args:
        root: The folder.
        found: How its cases were found.
        cases: All of them.
        looks: Those that could be read.
        sides: Split -> cases, as a run would make it.

    Returns:
        Plain data: counts, ranges and names of columns; patients as counts and pseudonyms.
    """
    facts: dict[str, Any] = {
        "source": shown(root),
        "layout": "folder without labels" if found.layout == "auto" else found.layout,
        "labels": None if found.labels is None else shown(found.labels.name),
        "cases": len(cases),
        "readable": len(looks),
        "patients": len({case.patient for case in cases}),
        "patient_key": found.patient_key,
        "patients_told_apart": found.patient_key != ALONE,
        "most_cases_of_a_patient": max(Counter(case.patient for case in cases).values(), default=0),
        "patients_as_pseudonyms": _pseudonyms(cases),
        "classes": _classes(cases),
        "given_splits": dict(Counter(case.split for case in cases if case.split)),
        "splits_of_a_run": dict(sides),
    }
    return facts | _measures(looks)


def _classes(cases: Sequence[Case]) -> dict[str, int]:
    """Cases of each class, or with each finding; cases with a mask."""
    counts: Counter[str] = Counter()
    for case in cases:
        if isinstance(case.label, str):
            counts[case.label] += 1
        elif isinstance(case.label, Path):
            counts["with a mask"] += 1
        elif case.label is not None:
            counts.update({name: int(bool(value)) for name, value in case.label.items()})
            counts["none"] += not any(case.label.values())
    return dict(counts.most_common())


def _pseudonyms(cases: Sequence[Case]) -> dict[str, int]:
    """Patients with most cases, by a hash whose key is thrown away."""
    key = secrets.token_bytes(16)
    counts = Counter(case.patient for case in cases)
    return {
        f"p_{hmac.new(key, patient.encode(errors='surrogateescape'), hashlib.sha256).hexdigest()[:10]}": count
        for patient, count in counts.most_common(5)
        if count > 1
    }


def _measures(looks: Sequence[Look]) -> dict[str, Any]:
    """Kinds, sizes, spacings and values."""
    spacings = [look.spacing for look in looks if look.spacing is not None]
    masks = [look.mask for look in looks if look.mask is not None]
    values = sorted({value for mask in masks for value in mask.values})
    return {
        "kinds": dict(Counter(look.kind for look in looks).most_common()),
        "modalities": dict(Counter(look.tags.modality or "not told" for look in looks).most_common()),
        "channels": {
            "colour" if colour else str(count): number
            for (colour, count), number in Counter((look.is_colour, look.channels) for look in looks).items()
        },
        "sizes": _range_of([look.shape for look in looks if len(look.shape) == 2], "columns x rows"),
        "volumes": _range_of([look.shape for look in looks if len(look.shape) == 3], "X x Y x Z"),
        "spacings_mm": {
            "known": len(spacings),
            **_ends([min(one) for one in spacings], [max(one) for one in spacings]),
        },
        "values": {
            **_ends([look.spread.low for look in looks], [look.spread.high for look in looks]),
            "median_of_means": float(np.median([look.spread.mean for look in looks])) if looks else None,
        },
        "mask_values": values[:32],
        "mask_share": [min(mask.foreground for mask in masks), max(mask.foreground for mask in masks)]
        if masks
        else [],
    }


def _range_of(shapes: Sequence[tuple[int, ...]], axes: str) -> dict[str, Any]:
    """Smallest, median and largest extent along each axis; pictures as width and height."""
    if not shapes:
        return {}
    sides = np.array([shape[::-1] if len(shape) == 2 else shape for shape in shapes])
    found = {"axes": axes, "different": len(set(shapes))}
    for name, one in (("least", sides.min(0)), ("median", np.median(sides, axis=0)), ("most", sides.max(0))):
        found[name] = [int(side) for side in one]
    return found


def _ends(lows: Sequence[float], highs: Sequence[float]) -> dict[str, float]:
    return {"least": float(min(lows)), "most": float(max(highs))} if lows else {}
