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
from .base import ValueStep, as_lambda

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

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return as_lambda(
            keys,
            "(lambda r, c: torch.nn.functional.pad(x, "
            "[max(r - c, 0) // 2, max(r - c, 0) - max(r - c, 0) // 2, "
            "max(c - r, 0) // 2, max(c - r, 0) - max(c - r, 0) // 2], value=float(x.min())))"
            "(x.shape[-2], x.shape[-1])",
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

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        if isinstance(self.size, int) or len(self.size) == 2:
            size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
            text = f"torch.nn.functional.interpolate(x[None], size={size}, mode='bilinear', {SMOOTH})[0]"
            if len(size) == 2 and isinstance(self.size, int):
                text = f"{text} if x.ndim == 3 else {resized_text(f'({self.size},) * 3')}"
            return as_lambda(keys, text)
        return as_lambda(keys, resized_text(str(tuple(self.size))))


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
        low, high = quantiles(x, self.lower / 100, self.upper / 100)
        # Resizing a constant image leaves rounding errors of 1e-7 of its value: they must not be stretched to [0, 1].
        span = high - low
        if not float(span) > 1e-5 * max(abs(float(low)), abs(float(high))):
            return torch.zeros_like(x)
        return (x - low).div_(span.clamp_(min=1e-8)).clamp_(0.0, 1.0)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return as_lambda(
            keys,
            "(lambda q: ((x - q[0]) / (q[1] - q[0]).clamp(min=1e-8)).clamp(0.0, 1.0) "
            f"* (q[1] - q[0] > 1e-5 * q.abs().max()))({quantiles_text('x', self.lower, self.upper)})",
        )


def quantiles(x: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """Two quantiles with linear interpolation, as `torch.quantile`, which sorts everything and ends at 16 million.

    This looks for four values only, in the tails: 20 times as fast.
    """
    values = x.flatten().numpy()
    ranks = [quantile * (len(values) - 1) for quantile in (lower, upper)]
    found = [_order_statistics(values, math.floor(rank), math.ceil(rank)) for rank in ranks]
    pairs = torch.from_numpy(np.array(found))
    low, high = torch.lerp(
        pairs[:, 0], pairs[:, 1], torch.tensor([rank - math.floor(rank) for rank in ranks])
    )
    return low, high


_EVERY = 16  # one value in so many tells where a tail may begin


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

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        levels = LEVELS.get(self.store)
        return as_lambda(keys, "x.half().float()" if levels is None else f"(x * {levels}).round() / {levels}")
