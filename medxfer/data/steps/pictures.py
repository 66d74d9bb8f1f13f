"""Steps for images of any dimension: channels, shape, intensity window, rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...bundle.schema import Store
from ...errors import DataError
from ..placed import Placed
from .base import ValueStep, as_cutting_lambda, as_lambda, as_scaling_lambda

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class Channels(ValueStep):
    """Bring images to a number of channels: colours to grey by luminance, grey to more by repetition.

    Args:
        count: Of the result.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"count is {count}; 1 or more is accepted")
        self.count = count

    def change(self, x: Tensor) -> Tensor:
        """`(1, 3 or count, *spatial)` to `(count, *spatial)`.

        Raises:
            DataError: Another number of channels.
        """
        if x.shape[0] == self.count:
            return x
        if self.count == 1 and x.shape[0] == 3:
            return (x * torch.tensor(GREY).view(3, *[1] * (x.ndim - 1))).sum(0, keepdim=True)
        if x.shape[0] == 1:
            return x.expand(self.count, *[-1] * (x.ndim - 1))
        raise DataError(
            "image", f"{x.shape[0]} channels", f"1 or {self.count}", f"set encoder.in_channels={x.shape[0]}"
        )

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another."""
        if images.values.shape[0] == count * self.count:
            return images
        return images.with_values(torch.cat([self.change(one) for one in images.values.chunk(count)]))

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        other = (
            f"(x[:3] * torch.tensor({GREY}).view(3, *[1] * (x.ndim - 1))).sum(0, keepdim=True)"
            if self.count == 1
            else f"x.expand({self.count}, *[-1] * (x.ndim - 1))"
        )
        return as_lambda(keys, f"x if x.shape[0] == {self.count} else {other}")


class PadToSquare:
    """Pad the shorter side on both ends with the image's minimum, so that resizing keeps the aspect ratio."""

    def __call__(self, image: Placed) -> Placed:
        """`(C, rows, columns)` to `(C, side, side)`."""
        x = image.values
        rows, columns = x.shape[-2:]
        side = max(rows, columns)
        if rows == columns:
            return image
        left, top = (side - columns) // 2, (side - rows) // 2
        pad = [left, side - columns - left, top, side - rows - top]
        return image.cut(functional.pad(x, pad, value=float(x.min())), (-top, -left))

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another."""
        if images.shape[0] == images.shape[1]:
            return images
        done = [self(images.with_values(one)) for one in images.values.chunk(count)]
        return Placed(torch.cat([one.values for one in done]), done[0].affine)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        # left, top: half of what the shorter side lacks
        pads = "[left, max(r - c, 0) - left, top, max(c - r, 0) - top]"
        return as_cutting_lambda(
            keys,
            f"(lambda r, c, left, top: (torch.nn.functional.pad(x, {pads}, value=float(x.min())), [-top, -left]))"
            "(*x.shape[-2:], max(x.shape[-2] - x.shape[-1], 0) // 2, max(x.shape[-1] - x.shape[-2], 0) // 2)",
        )


class Resize:
    """Resize with antialiasing: within one grey level of Pillow, where MONAI's own differs by 74 of 255.

    Args:
        size: Pixels a side, or one number an axis.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = size

    def __call__(self, image: Placed) -> Placed:
        """`(C, *spatial)` to `(C, *size)`."""
        dims = image.values.ndim - 1
        size = (self.size,) * dims if isinstance(self.size, int) else tuple(self.size)
        return image.scaled(resized(image.values, size))

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another: each channel is resized by itself."""
        del count
        return self(images)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        if isinstance(self.size, int) or len(self.size) == 2:
            size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
            text = f"torch.nn.functional.interpolate(x[None], size={size}, mode='bilinear', {SMOOTH})[0]"
            if len(size) == 2 and isinstance(self.size, int):
                text = f"{text} if x.ndim == 3 else {resized_text(f'({self.size},) * 3')}"
            return as_scaling_lambda(keys, text)
        return as_scaling_lambda(keys, resized_text(str(tuple(self.size))))


SMOOTH = "align_corners=False, antialias=True"


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation with antialiasing in two or three dimensions; torch offers it in two only.

    Args:
        x: (C, *spatial).
        size: Of the result, one number an axis.
    """
    if tuple(x.shape[1:]) == tuple(size):
        return x
    if len(size) == 2:
        return functional.interpolate(
            x[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
        )[0]
    # Linear interpolation is separable: the last two axes, then the first with the others as one.
    plane = functional.interpolate(
        x, size=tuple(size[1:]), mode="bilinear", align_corners=False, antialias=True
    ).flatten(2)
    whole: Tensor = functional.interpolate(
        plane[None], size=(size[0], plane.shape[2]), mode="bilinear", align_corners=False, antialias=True
    )[0].unflatten(2, tuple(size[1:]))
    return whole


def resized_text(size: str) -> str:
    """`resized` of a volume `x` as a Python expression on torch; `size` is an expression of three numbers."""
    return (
        "(lambda s: (lambda y: torch.nn.functional.interpolate(y[None], size=(s[0], y.shape[2]), "
        f"mode='bilinear', {SMOOTH})[0].unflatten(2, tuple(s[1:])))"
        "(torch.nn.functional.interpolate(x, size=tuple(s[1:]), "
        f"mode='bilinear', {SMOOTH}).flatten(2)))({size})"
    )


class PercentileWindow(ValueStep):
    """Scale linearly so that two percentiles become 0 and 1, and clip; a constant image becomes 0.

    After resizing: a marker of a few pixels no longer decides the upper end, and exposure cancels out.

    Args:
        lower: Percentile that becomes 0.
        upper: Percentile that becomes 1.
    """

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles {lower} and {upper}; 0 <= lower < upper <= 100 is accepted")
        self.lower, self.upper = float(lower), float(upper)

    def change(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
        return _windowed(x, *quantiles(x, self.lower / 100, self.upper / 100))

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another."""
        x = images.values.reshape(count, -1)
        low, high = quantiles_of_rows(x, self.lower / 100, self.upper / 100)
        return images.with_values(_windowed(x, low[:, None], high[:, None]).view_as(images.values))

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return as_lambda(
            keys,
            "(lambda q: ((x - q[0]) / (q[1] - q[0]).clamp(min=1e-8)).clamp(0.0, 1.0) "
            f"* (q[1] - q[0] > 1e-5 * q.abs().max()))({quantiles_text('x', self.lower, self.upper)})",
        )


def _windowed(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`low` to 0 and `high` to 1, clipped; 0 all over where they are one value."""
    # Resizing a constant image leaves rounding errors of 1e-7 of its value: they must not be stretched to [0, 1].
    span = high - low
    is_flat = ~(span.double() > 1e-5 * torch.maximum(low.abs(), high.abs()).double())
    scaled = (x - low).div_(span.clamp_(min=1e-8)).clamp_(0.0, 1.0)
    return scaled.masked_fill_(is_flat, 0.0) if bool(is_flat.any()) else scaled


def quantiles(x: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """Two quantiles with linear interpolation, as `torch.quantile`, which sorts everything and ends at 16 million.

    This looks for four values only, in the tails: 20 times as fast.
    """
    low, high = quantiles_of_rows(x.reshape(1, -1), lower, upper)
    return low[0], high[0]


def quantiles_of_rows(x: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """`quantiles` of each row of (rows, values): two tensors (rows,)."""
    values = x.numpy()
    ranks = [quantile * (values.shape[1] - 1) for quantile in (lower, upper)]
    places = [(math.floor(rank), math.ceil(rank)) for rank in ranks]
    pairs = torch.from_numpy(_of_both_tails(values, *places))
    parts = torch.tensor([rank - math.floor(rank) for rank in ranks])
    low, high = torch.lerp(pairs[..., 0], pairs[..., 1], parts).unbind(1)
    return low, high


def _of_both_tails(values: np.ndarray, low: tuple[int, int], high: tuple[int, int]) -> np.ndarray:
    """Of each row the values at two neighbouring places near each end of the sorted order: (rows, 2, 2)."""
    count = values.shape[1]
    if low[1] >= count // 8 or high[0] <= count - count // 8:
        return np.array([[_order_statistics(row, *pair) for pair in (low, high)] for row in values])
    sample = np.sort(values[:, ::_EVERY], axis=1)
    bottom = sample[:, min(2 * low[1] // _EVERY + 4, sample.shape[1] - 1)]
    top = sample[:, max(sample.shape[1] - 5 - 2 * (count - high[0]) // _EVERY, 0)]
    outer = np.flatnonzero((values <= bottom[:, None]) | (values >= top[:, None]))
    tails = values.reshape(-1)[outer]
    ends = np.searchsorted(outer, count * np.arange(1, len(values) + 1)).tolist()
    found = np.empty((len(values), 2, 2), values.dtype)
    begin = 0
    for row, end in enumerate(ends):
        tail = np.sort(tails[begin:end])
        begin, beyond = end, count - len(tail)
        is_whole = beyond <= high[0] and low[1] < len(tail)
        if is_whole and tail[low[1]] <= bottom[row] and tail[high[0] - beyond] >= top[row]:
            found[row] = tail[[low, (high[0] - beyond, high[1] - beyond)]]
        else:  # the sample misled
            found[row] = [_order_statistics(values[row], *pair) for pair in (low, high)]
    return found


_EVERY = 31  # one value in so many tells where a tail may begin; prime, so that no column is left out


def _order_statistics(values: np.ndarray, below: int, above: int) -> np.ndarray:
    """The values at two neighbouring places of the sorted order, exactly.

    A sample says beyond which value they lie; only that tail is parted, or everything where the sample misled.
    """
    count = len(values)
    sample = np.sort(values[::_EVERY])
    if above < count // 8:
        edge = sample[min(2 * above // _EVERY + 8, len(sample) - 1)]
        tail = values[values <= edge]
        if len(tail) > above:
            values = tail
    elif below > count - count // 8:
        edge = sample[max(len(sample) - 9 - 2 * (count - below) // _EVERY, 0)]
        tail = values[values >= edge]
        if len(tail) >= count - below:
            values, below, above = tail, below - count + len(tail), above - count + len(tail)
    return np.partition(values, [below, above])[[below, above]]


def quantiles_text(x: str, lower: float, upper: float) -> str:
    """`quantiles` of `x` for two percentiles, as a Python expression."""
    return (
        "(lambda v, r: torch.lerp(v[r.long()], v[r.ceil().long()], (r - r.long()).float()))"
        f"({x}.flatten().sort().values, "
        f"torch.tensor([{lower / 100!r}, {upper / 100!r}], dtype=torch.float64) * ({x}.numel() - 1))"
    )


LEVELS = {"uint8": 255, "int16": 32767}  # stores of whole numbers: what 1.0 becomes


class Quantise(ValueStep):
    """Round as the cache stores images, so that `predict` and the exported bundle see what training saw.

    Args:
        store: `uint8`: 256 levels, enough for pictures of 8 bits. `int16`, twice the space: 32,768 levels, so that
            images of 12 bits lose nothing and those of 16 bits at most one level. `float16`, as large as int16:
            steps of 1/2,048 between 0.5 and 1 and finer ones below, for images whose dark part matters.
    """

    def __init__(self, store: Store = "uint8") -> None:
        self.store = store

    def change(self, x: Tensor) -> Tensor:
        """The same shape and range."""
        levels = LEVELS.get(self.store)
        return x.half().float() if levels is None else (x * levels).round() / levels

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another: each value is rounded by itself."""
        del count
        return self(images)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        levels = LEVELS.get(self.store)
        return as_lambda(keys, "x.half().float()" if levels is None else f"(x * {levels}).round() / {levels}")
