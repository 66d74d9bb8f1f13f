"""What training images look like to the network, in a few dozen numbers, and whether another image is like them.

Figures are of the preprocessed image, so a photograph, a negative or Hounsfield units without their offset differ in
them whatever the file's own scale is. An image is unlike the training images where its Mahalanobis distance from them
(Mahalanobis 1936) is larger than nearly all training images had from the others, measured on patients left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .cache import Arrays
from .formats.kinds import PICTURE_SUFFIXES, image_suffix
from .placed import Placed

__all__ = ["Seen", "Usual", "seen_of", "unlike_rows", "usual_from", "usual_of"]

Unit = Literal["pixels", "mm"]

SAMPLE = 500  # training images looked at
LEAST = 12  # fewer say too little
# Of training images the share that the limit lies above, and how far it lies above them: benchmarks/unlike_images.py
SHARE, MARGIN = 0.98, 1.3
_BINS = 16  # of a histogram
_SIDE = {2: 4, 3: 3}  # parts of an axis of which mean brightness is told
_MOST = 2**18  # values of a channel that are looked at; of more, every so many-th line
_MOST_CHANNELS = 4  # of more only the mean
_PARTS = 5  # patients are dealt into as many parts to measure distances of images left out
_FLOOR = 0.02  # least standard deviation of a figure: what never varies must not decide alone
_EDGE = 0.002  # of black and white
_STEP = 1e-3  # added to differences of neighbours before the logarithm
_SCALE = 1.5  # beyond what range of voxel sizes another one is told, as a factor
_NAMED = (
    "mean brightness",
    "contrast (standard deviation)",
    "share of black",
    "share of white",
    "difference of neighbours",
)
_TOLD = 2  # figures named in a sentence
_CLEARLY = (
    0.5  # standard deviations beyond the training images' range: a figure nearer than that decided nothing
)


@dataclass(frozen=True, slots=True)
class Seen:
    """An image as a network sees it.

    Attributes:
        values: (C, *spatial) float32 in [0, 1]; of a large image every so many-th line.
        spacing: Size of its pixels or voxels along each axis, in the file's own pixels or mm.
        unit: Of the spacing.
    """

    values: np.ndarray
    spacing: tuple[float, ...]
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """How training images look.

    Attributes:
        images: How many were looked at.
        channels: Of each.
        names: Of the figures that are told in words; they are the first of the figures.
        mean: Of each figure.
        deviation: Standard deviation of each figure, at least a small one.
        low: Of the named figures the first percentile.
        high: The 99th.
        precision: (figures, figures), inverse of the shrunk correlation.
        limit: Distance from which on an image is unlike them.
        unit: Of `spacing`; None where training files are of several kinds.
        spacing: Least and largest size of a voxel along each axis.
        shape: Of an image, where all have one; else empty.
    """

    images: int
    channels: int
    names: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    precision: np.ndarray
    limit: float
    unit: Unit | None
    spacing: tuple[tuple[float, float], ...]
    shape: tuple[int, ...]

    def remarks(self, seen: Seen) -> list[str]:
        """What tells an image from the training images, as sentences; none where it is like them."""
        found = self._of_size(seen)
        if len(seen.values) != self.channels:
            return found  # refused elsewhere
        figures = _figures(seen.values)
        distance = self._distance(figures)
        if distance > self.limit:
            turned = self._distance(_figures(1 - seen.values))
            hint = "; inverted it would be " if turned < max(self.limit, distance / 2) else ""
            hint += ("like them" if turned <= self.limit else "nearer to them") if hint else ""
            found.append(f"unlike the training images: {self._told(figures)}{hint}")
        return found

    def _distance(self, figures: np.ndarray) -> float:
        away = (figures - self.mean) / self.deviation
        return float(np.sqrt(max(0.0, float(away @ self.precision @ away)) / len(away)))

    def _told(self, figures: np.ndarray) -> str:
        """The named figures that lie farthest outside of the training images' own."""
        own = figures[: len(self.names)]
        beyond = np.maximum(own - self.high, self.low - own) / self.deviation[: len(own)]
        worst = [int(one) for one in np.argsort(-beyond)[:_TOLD] if beyond[one] > _CLEARLY]
        if not worst:
            return "its brightness is spread otherwise over levels and places"
        return ", ".join(
            f"{self.names[one]} {_shown(self.names[one], own[one])} after preprocessing "
            f"(theirs {_shown(self.names[one], self.low[one])} to {_shown(self.names[one], self.high[one])})"
            for one in worst
        )

    def _of_size(self, seen: Seen) -> list[str]:
        if self.unit != seen.unit or len(seen.spacing) != len(self.spacing):
            return []
        small = [own < low / _SCALE for own, (low, _) in zip(seen.spacing, self.spacing, strict=True)]
        large = [own > high * _SCALE for own, (_, high) in zip(seen.spacing, self.spacing, strict=True)]
        if self.unit == "pixels":  # finer pictures lose nothing by being made small
            if not any(small) or not self.shape:
                return []
            sides = [_rounded(one * side) for one, side in zip(seen.spacing, self.shape, strict=True)]
            least = [_rounded(low * side) for (low, _), side in zip(self.spacing, self.shape, strict=True)]
            return [
                f"smaller than the training images: {' x '.join(sides)} pixels (theirs at least {' x '.join(least)})"
            ]
        if not (any(small) or any(large)):
            return []
        own, *ends = (
            " x ".join(f"{one:.3g}" for one in numbers)
            for numbers in (seen.spacing, *zip(*self.spacing, strict=True))
        )
        theirs = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
        return [
            f"another size than the training images: the network sees steps of {own} mm (theirs {theirs})"
        ]

    def to_plain(self) -> dict[str, Any]:
        """For a JSON file; six digits are enough."""
        plain = dataclasses.asdict(self)
        for name in ("mean", "deviation", "low", "high", "precision"):
            plain[name] = _short(plain[name])
        return {**plain, "limit": float(f"{self.limit:.6g}")}


def usual_from(plain: Any, where: str) -> Usual:
    """What `Usual.to_plain` wrote.

    Raises:
        DataError: It is something else.
    """
    try:
        arrays = {
            name: np.asarray(plain[name], dtype=np.float64)
            for name in ("mean", "deviation", "low", "high", "precision")
        }
        count, named = len(arrays["mean"]), len(plain["names"])
        shapes = {"mean": (count,), "deviation": (count,), "low": (named,), "high": (named,)}
        wanted = {**shapes, "precision": (count, count)}
        sound = all(arrays[name].shape == shape for name, shape in wanted.items())
        if not sound or not all(np.isfinite(one).all() for one in arrays.values()) or named > count:
            raise ValueError("numbers are missing")
        if count != _count_of(int(plain["channels"]), len(plain["spacing"])):
            raise ValueError(f"{count} figures")
        return Usual(
            images=int(plain["images"]),
            channels=int(plain["channels"]),
            names=tuple(map(str, plain["names"])),
            limit=float(plain["limit"]),
            unit=plain["unit"] if plain["unit"] in ("pixels", "mm") else None,
            spacing=tuple((float(low), float(high)) for low, high in plain["spacing"]),
            shape=tuple(map(int, plain["shape"])),
            **arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        seen = f"not readable: {error}"
        raise DataError(where, seen, "the file as it was written", "remove it, or train again") from error


def usual_of(arrays: Arrays, rows: Sequence[int]) -> Usual | None:
    """How some rows of the arrays look; None where they are too few, or of one patient.

    Args:
        arrays: The cached images.
        rows: The training part; of many a sample is looked at.
    """
    picked = np.array(rows, dtype=np.int64)
    if len(picked) > SAMPLE:
        picked = np.sort(np.random.default_rng(0).choice(picked, SAMPLE, replace=False))
    patients = [arrays.cases[row].patient for row in picked]
    if len(picked) < LEAST or len(set(patients)) < 2:
        return None
    seen = [seen_row(arrays, row) for row in picked.tolist()]
    figures = np.stack([_figures(one.values) for one in seen])
    mean, deviation, precision = _model(figures)
    distances = _left_out(figures, patients)
    names = _names(len(seen[0].values))
    low, high = np.quantile(figures[:, : len(names)], (0.01, 0.99), axis=0)
    units = {one.unit for one in seen}
    spacings = np.array([one.spacing for one in seen])
    return Usual(
        images=len(picked),
        channels=len(seen[0].values),
        names=names,
        mean=mean,
        deviation=deviation,
        low=low,
        high=high,
        precision=precision,
        limit=MARGIN * float(np.quantile(distances, SHARE)),
        unit=units.pop() if len(units) == 1 else None,
        spacing=tuple(zip(spacings.min(0).tolist(), spacings.max(0).tolist(), strict=True)),
        shape=() if arrays.is_ragged else seen[0].values.shape[1:],
    )


def unlike_rows(usual: Usual, arrays: Arrays) -> list[int]:
    """Rows whose images are unlike the training images."""
    return [row for row in range(len(arrays.cases)) if usual.remarks(seen_row(arrays, row))]


def seen_row(arrays: Arrays, row: int) -> Seen:
    """A row of the arrays."""
    affine, file = arrays.affines[row], arrays.cases[row].images[0]
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0).tolist()
    is_picture = len(spacing) == 2 and image_suffix(file) in PICTURE_SUFFIXES
    values = arrays.as_image(np.array(_thinned(arrays.images[row]))).numpy()
    return Seen(values, tuple(spacing), "pixels" if is_picture else "mm")


def seen_of(image: Placed, read: Placed) -> Seen:
    """An image after preprocessing, and as it was read: of pictures without a spacing pixels are counted."""
    is_picture = len(image.shape) == 2 and np.array_equal(read.affine, np.eye(3))
    return Seen(_thinned(image.values.numpy()), image.spacing, "pixels" if is_picture else "mm")


def _thinned(values: np.ndarray) -> np.ndarray:
    """Every so many-th line of a large image (C, *spatial); neighbours along the last axis stay beside each other."""
    others, step = values.ndim - 2, 1
    while values[0].size > _MOST * step**others:
        step += 1
    return values[(slice(None), *(slice(None, None, step),) * others)]


def _figures(values: np.ndarray) -> np.ndarray:
    """Numbers of an image (C, *spatial): the named ones of each channel, then histograms and brightness by place."""
    dims = values.ndim - 1
    if len(values) > _MOST_CHANNELS:
        values = values.mean(0, keepdims=True)
    named, levels = [], []
    for one in values:
        differences = float(np.abs(np.diff(one, axis=-1)).mean()) if one.shape[-1] > 1 else 0.0
        named += [
            float(one.mean()),
            float(one.std()),
            float((one <= _EDGE).mean()),
            float((one >= 1 - _EDGE).mean()),
            float(np.log(differences + _STEP)),
        ]
        bins = np.clip((one.ravel() * _BINS).astype(np.int64), 0, _BINS - 1)
        levels.append(np.sqrt(np.bincount(bins, minlength=_BINS) / one.size))
    parts = [values.mean(0)]
    for axis in range(dims):
        parts = [piece for part in parts for piece in np.array_split(part, _SIDE[dims], axis=axis)]
    places = [float(part.mean()) if part.size else 0.0 for part in parts]
    return np.concatenate([named, *levels, places])


def _count_of(channels: int, dims: int) -> int:
    kept = channels if channels <= _MOST_CHANNELS else 1
    return kept * (len(_NAMED) + _BINS) + int(_SIDE[dims] ** dims)


def _names(channels: int) -> tuple[str, ...]:
    if channels == 1 or channels > _MOST_CHANNELS:
        return _NAMED
    return tuple(f"{name} of channel {number}" for number in range(channels) for name in _NAMED)


def _model(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation and inverse correlation; few images say little of how figures go together."""
    count, length = figures.shape
    mean, deviation = figures.mean(0), np.maximum(figures.std(0), _FLOOR)
    away = (figures - mean) / deviation
    share = length / (length + count)
    shrunk = (1 - share) * (away.T @ away) / count + share * np.eye(length)
    return mean, deviation, np.linalg.inv(shrunk)


def _left_out(figures: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Distance of each image from those of other patients."""
    names = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    order = np.random.default_rng(0).permutation(len(names)) % _PARTS
    part = order[[names[one] for one in patients]]
    distances = np.zeros(len(figures))
    for number in np.unique(part):
        own = part == number
        mean, deviation, precision = _model(figures[~own])
        away = (figures[own] - mean) / deviation
        distances[own] = np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away) / figures.shape[1])
    return distances


def _shown(name: str, value: float) -> str:
    told = max(0.0, float(np.exp(value)) - _STEP) if name.startswith(_NAMED[-1]) else float(value)
    return f"{round(told, 4):.3g}"


def _rounded(side: float) -> str:
    return f"{round(side)}"


def _short(numbers: Any) -> Any:
    """Nested lists of numbers with six digits."""
    if np.ndim(numbers):
        return [_short(one) for one in numbers]
    return float(f"{float(numbers):.6g}")
