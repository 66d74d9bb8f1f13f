"""95 % intervals by bootstrap over patients: images of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
_BLOCK = 4_000_000  # weights held at once (32 MB), so that 100,000 images fit as well


def patient_weights(patients: Sequence[str], *, samples: int, seed: int) -> Iterator[Floats]:
    """How often each image counts in each resample of patients.

    Args:
        patients: Patient of each image, length N.
        samples: Resamples in all.
        seed: Same seed, same resamples; two networks scored with one seed are compared in pairs.

    Yields:
        Arrays (resamples, N) whose rows together are `samples`.
    """
    _, of_image = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = int(of_image.max()) + 1
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(of_image))
    for start in range(0, samples, rows):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(rows, samples - start))
        yield drawn[:, of_image].astype(np.float64)


def interval(draws: Floats, value: float) -> tuple[float, float]:
    """Percentile interval of resampled values.

    Args:
        draws: The score in each resample; NaN where it was not defined (a class was not drawn).
        value: The score on all cases.

    Returns:
        (low, high); NaN when the value or more than half of the resamples are not defined.
    """
    defined = draws[np.isfinite(draws)]
    if math.isnan(value) or len(defined) * 2 < len(draws) or len(defined) == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # a calibration error grows in every resample, so the value itself may lie outside the percentiles
    return float(min(low, value)), float(max(high, value))


def wilson(share: float, patients: int) -> tuple[float, float]:
    """Interval of a share of few patients (Wilson 1927).

    A bootstrap of cases without a single fault knows no faults and gives 1.0 to 1.0; this one stays honest.
    """
    if patients == 0 or math.isnan(share):
        return math.nan, math.nan
    z = 1.959964  # 97.5 % point of the normal distribution, for `LEVEL`
    middle = (share + z * z / (2 * patients)) / (1 + z * z / patients)
    half = z / (1 + z * z / patients) * math.sqrt(share * (1 - share) / patients + z * z / (4 * patients**2))
    return max(0.0, middle - half), min(1.0, middle + half)
