"""What looks wrong in one picture by itself: constant, clipped, next to empty, a mask among images, text burned in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_SIDES = {
    "values": {2: 192, 3: 64},
    "text": {2: 512, 3: 96},
}  # larger images are thinned out before they are looked at
_CLIPPED = 0.1  # share of pixels at the highest value of a grey picture
_EMPTY = 0.95  # share of pixels at the lowest value
_LEVELS = 8  # as few values has no image, but a mask
_LARGE = 50e6  # pixels
_BORDER = 0.2  # of each side, where text is burned in
_SMALLEST = 64  # pixels a side; text in less cannot be read
_CONTRAST = 0.25  # of the range, between a letter and what is behind it
_HEIGHT = (5, 0.06)  # of a word: at least pixels, at most share of the shorter side


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Statistics of the values of an image, thinned out where it is large."""

    low: float
    high: float
    upper: float  # 99th percentile
    mean: float
    levels: int  # different values
    at_low: float  # share of values
    at_high: float


def spread_of(array: np.ndarray) -> Spread:
    """Statistics of an image, (C, *spatial)."""
    values = np.sort(_thinned(array, "values").ravel())
    low, high = float(array.min()), float(array.max())
    return Spread(
        low=low,
        high=high,
        upper=float(values[min(int(0.99 * len(values)), len(values) - 1)]),
        mean=float(values.mean(dtype=np.float64)),
        levels=1 + int(np.count_nonzero(np.diff(values))),
        at_low=int(np.searchsorted(values, low, "right")) / len(values),
        at_high=1 - int(np.searchsorted(values, high)) / len(values),
    )


def _thinned(array: np.ndarray, purpose: str) -> np.ndarray:
    """Every k-th pixel of (C, *spatial)."""
    most = _SIDES[purpose][array.ndim - 1]
    return array[(slice(None), *[slice(None, None, -(-side // most)) for side in array.shape[1:]])]


def suspicions(array: np.ndarray, spread: Spread, *, is_colour: bool = False) -> frozenset[str]:
    """Words of `WORDS` that fit an image (C, *spatial). Text is looked for in grey pictures only."""
    if spread.low == spread.high:
        return frozenset({"constant"})
    found = set()
    if spread.levels <= _LEVELS:
        found.add("levels")
    elif not is_colour and spread.at_high > _CLIPPED:
        found.add("clipped")
    if array.ndim == 3 and array[0].size > _LARGE:
        found.add("large")
    if spread.at_low > _EMPTY:
        found.add("empty")
    may_have_text = array.ndim == 3 and not is_colour and spread.levels > _LEVELS
    if may_have_text and has_text(_thinned(array, "text").mean(axis=0)):
        found.add("text")
    return frozenset(found)


WORDS = {
    "constant": ("have one value everywhere", "export them again, or list them in data.exclude"),
    "levels": (f"have at most {_LEVELS} different values, as masks have", "take masks out of the folder of images"),
    "clipped": (
        f"are clipped: more than {_CLIPPED:.0%} of the pixels have the highest value",
        "export them without a window, or with a wider one",
    ),
    "empty": (
        f"are next to empty: more than {_EMPTY:.0%} of the pixels have the lowest value",
        "crop them; the size of what is left may say more than its look",
    ),
    "large": (
        f"have more than {_LARGE / 1e6:.0f} megapixels; made small, what is to be seen may be lost",
        "cut them into tiles",
    ),
    "text": (
        "have what looks like text near their border (suspects, not judged)",
        "look at them before images leave the place: burned-in text may name a person",
    ),
}  # fmt: skip


def has_text(grey: np.ndarray) -> bool:
    """Whether words seem to stand near the border of a picture (rows, columns).

    A word is thin strokes of high contrast, as wide as several letters and as low as one, with as many strokes in a
    row as letters have. In five public sets nearly all that this finds is text; small or faint text is missed.
    """
    rows, columns = grey.shape
    if min(rows, columns) < _SMALLEST:
        return False
    low, high = float(grey.min()), float(grey.max())
    level = (grey - low) / (high - low)
    size = max(5, round(0.02 * min(rows, columns)) | 1)
    bright, dark = _thin_parts((level * 255).astype(np.uint8), size)
    edge = round(_BORDER * rows), round(_BORDER * columns)
    for strokes in (bright & (level > 0.45), dark & (level < 0.35)):
        strokes[edge[0] : rows - edge[0], edge[1] : columns - edge[1]] = False
        if _holds_word(strokes, size):
            return True
    return False


def _thin_parts(level: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a picture (uint8) is brighter, and darker, than its opening and closing by a square of `size` pixels."""
    opened = _extreme(_extreme(level, size, np.minimum), size, np.maximum)
    closed = _extreme(_extreme(level, size, np.maximum), size, np.minimum)
    return level - opened > 255 * _CONTRAST, closed - level > 255 * _CONTRAST


def _extreme(x: np.ndarray, size: int, of: np.ufunc) -> np.ndarray:
    """The least or highest value in the square around each pixel; on bytes far quicker than filters of scipy."""
    rows, columns = x.copy(), x.shape[1]
    for shift in range(1, size // 2 + 1):
        of(rows[shift:], x[:-shift], out=rows[shift:])
        of(rows[:-shift], x[shift:], out=rows[:-shift])
    found = rows.copy()
    for shift in range(1, size // 2 + 1):
        of(found[:, shift:], rows[:, : columns - shift], out=found[:, shift:])
        of(found[:, : columns - shift], rows[:, shift:], out=found[:, : columns - shift])
    return found


def _holds_word(strokes: np.ndarray, size: int) -> bool:
    if int(strokes.sum()) < 20:
        return False
    joined = strokes.copy()
    for shift in range(1, max(3, size // 2) // 2 + 1):  # letters of a word become one shape
        joined[:, shift:] |= strokes[:, :-shift]
        joined[:, :-shift] |= strokes[:, shift:]
    labels, _ = ndimage.label(joined, structure=np.ones((3, 3), dtype=int))
    most = max(_HEIGHT[1] * min(strokes.shape), 10)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        height, width = (part.stop - part.start for part in place)
        if _HEIGHT[0] <= height <= most and width >= max(2.5 * height, 16):
            inside = (labels[place] == number) & strokes[place]
            if _reads_like_word(inside):
                return True
    return False


def _reads_like_word(inside: np.ndarray) -> bool:
    """Whether strokes (height, width) are as dense and as many as those of letters, from top to bottom."""
    height, width = inside.shape
    begins = np.count_nonzero(np.diff(inside.astype(np.int8), axis=1) == 1, axis=1) + inside[:, 0]
    strokes_a_letter = np.sort(begins)[height // 4 :].mean() / (width / height)
    ink = inside.mean(axis=1)
    return bool(0.2 < inside.mean() < 0.75 and strokes_a_letter > 0.8 and ink.min() > 0.2 * ink.max())
