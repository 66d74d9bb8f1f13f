"""Modality to a visible list of steps.

Each step can write itself as MONAI configuration, so that the exported bundle computes what training saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..bundle.components import build
from ..bundle.parser import resolve_phases
from ..bundle.schema import Bundle, Component, ImagesSpec
from ..errors import ConfigError
from .image import Image

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class Step(Protocol):
    """One deterministic change of an image (C, rows, columns), float32."""

    def __call__(self, x: Tensor) -> Tensor:
        """The changed image."""

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """The same as MONAI configuration; `torch` is among the configuration's imports."""


class Channels:
    """Bring images to a number of channels: colours to grey by luminance, grey to colours by repetition.

    Args:
        count: 1 or 3.
    """

    def __init__(self, count: int) -> None:
        if count not in (1, 3):
            raise ValueError(f"count is {count}; 1 or 3 is accepted")
        self.count = count

    def __call__(self, x: Tensor) -> Tensor:
        """`(1 or 3, rows, columns)` to `(count, rows, columns)`."""
        if x.shape[0] == self.count:
            return x
        if self.count == 1:
            return (x[:3] * torch.tensor(GREY).view(3, 1, 1)).sum(0, keepdim=True)
        return x.expand(3, -1, -1)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        other = (
            f"(x[:3] * torch.tensor({GREY}).view(3, 1, 1)).sum(0, keepdim=True)"
            if self.count == 1
            else "x.expand(3, -1, -1)"
        )
        return _lambda(keys, f"x if x.shape[0] == {self.count} else {other}")


class PadToSquare:
    """Pad the shorter side on both ends with the image's minimum, so that resizing keeps the aspect ratio."""

    def __call__(self, x: Tensor) -> Tensor:
        """`(C, rows, columns)` to `(C, side, side)`."""
        rows, columns = x.shape[-2:]
        side = max(rows, columns)
        if rows == columns:
            return x
        left, top = (side - columns) // 2, (side - rows) // 2
        pad = [left, side - columns - left, top, side - rows - top]
        return functional.pad(x, pad, value=float(x.min()))

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return _lambda(
            keys,
            "(lambda r, c: torch.nn.functional.pad(x, "
            "[max(r - c, 0) // 2, max(r - c, 0) - max(r - c, 0) // 2, "
            "max(c - r, 0) // 2, max(c - r, 0) - max(c - r, 0) // 2], value=float(x.min())))"
            "(x.shape[-2], x.shape[-1])",
        )


class Resize:
    """Resize to a square with antialiasing: within one grey level of Pillow, where MONAI's own differs by 74 of 255.

    Args:
        size: Pixels a side.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        """`(C, rows, columns)` to `(C, size, size)`."""
        size = (self.size, self.size)
        return functional.interpolate(
            x[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return _lambda(
            keys,
            f"torch.nn.functional.interpolate(x[None], size=({self.size}, {self.size}), mode='bilinear', "
            "align_corners=False, antialias=True)[0]",
        )


class PercentileWindow:
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

    def __call__(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
        low, high = _quantiles(x, self.lower / 100, self.upper / 100)
        # Resizing a constant image leaves rounding errors of 1e-7 of its value: they must not be stretched to [0, 1].
        varied = high - low > 1e-5 * torch.maximum(low.abs(), high.abs())
        return ((x - low) / (high - low).clamp(min=1e-8)).clamp(0.0, 1.0) * varied

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return _lambda(
            keys,
            "(lambda q: ((x - q[0]) / (q[1] - q[0]).clamp(min=1e-8)).clamp(0.0, 1.0) "
            "* (q[1] - q[0] > 1e-5 * q.abs().max()))"
            f"(torch.quantile(x.flatten(), torch.tensor([{self.lower / 100!r}, {self.upper / 100!r}])))",
        )


def _quantiles(x: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """`torch.quantile` to the last bit, ten times as fast: it sorts everything, this only finds four values."""
    ranks = torch.tensor([lower, upper]) * (x.numel() - 1)
    below, above = ranks.long(), ranks.ceil().long()
    parted = torch.from_numpy(np.partition(x.flatten().numpy(), torch.cat([below, above]).tolist()))
    low, high = torch.lerp(parted[below], parted[above], ranks - below)
    return low, high


class Quantise:
    """Round as the cache stores images, so that `predict` and the exported bundle see what training saw.

    Args:
        store: `uint8`: 256 levels; `float16`.
    """

    def __init__(self, store: Literal["uint8", "float16"] = "uint8") -> None:
        self.store = store

    def __call__(self, x: Tensor) -> Tensor:
        """The same shape and range."""
        return (x * 255).round() / 255 if self.store == "uint8" else x.half().float()

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return _lambda(keys, "(x * 255).round() / 255" if self.store == "uint8" else "x.half().float()")


def _lambda(keys: str, text: str) -> dict[str, Any]:
    return {"_target_": "Lambdad", "keys": keys, "func": f"$lambda x: {text}"}


def default_components(images: ImagesSpec, in_channels: int) -> tuple[Component, ...]:
    """The preset's steps after reading, as a bundle would list them.

    Raises:
        ConfigError: No such preset.
    """
    _require_preset(images.preset)
    return (
        Component(target="Channels", arguments={"count": in_channels}),
        Component(target="PadToSquare"),
        Component(target="Resize", arguments={"size": images.size}),
        Component(target="PercentileWindow", arguments={"lower": 0.5, "upper": 99.5}),
        Component(target="Quantise", arguments={"store": images.store}),
    )


def default_augment(preset: str) -> tuple[Component, ...]:
    """The preset's augmentation. Chests are not mirrored: the heart has a side.

    Raises:
        ConfigError: No such preset.
    """
    _require_preset(preset)
    return (
        Component(
            target="RandomAffine", arguments={"degrees": 10.0, "shift": 0.05, "scale": 0.1, "flip": False}
        ),
        Component(target="RandomIntensity", arguments={"brightness": 0.1, "contrast": 0.2, "gamma": 0.1}),
    )


def _require_preset(name: str) -> None:
    if name != "xray":
        raise ConfigError(
            "images.preset", name, "xray", "set images.preset=xray, or list images.transforms yourself"
        )


def fill_in(bundle: Bundle) -> Bundle:
    """Every default written out: the preset's steps and augmentation, and what phases take from `training`."""
    images = bundle.images
    transforms = images.transforms
    if transforms is None:
        transforms = default_components(images, bundle.encoder.in_channels)
    _require_agreement(images, transforms)
    augment = images.augment if images.augment is not None else default_augment(images.preset)
    images = dataclasses.replace(images, transforms=transforms, augment=augment)
    return resolve_phases(dataclasses.replace(bundle, images=images))


def _require_agreement(images: ImagesSpec, transforms: Sequence[Component]) -> None:
    """Refuse a list of steps that gives another size or store than the bundle says beside it."""
    for target, argument, wanted in (("Resize", "size", images.size), ("Quantise", "store", images.store)):
        for number, step in enumerate(transforms):
            given = step.arguments.get(argument, wanted)
            if step.target == target and given != wanted:
                seen = f"{argument} {given}, but images.{argument} is {wanted}"
                other = f"images.transforms.{number}.{argument}={wanted}"
                todo = f"set both: --set images.{argument}={wanted} --set {other}"
                raise ConfigError(
                    f"images.transforms.{number} ({target})", seen, "one value in both places", todo
                )


def steps_of(images: ImagesSpec, in_channels: int, *, trusted: bool = False) -> tuple[Step, ...]:
    """The steps after reading: the bundle's own list, or the preset's."""
    components = (
        images.transforms if images.transforms is not None else default_components(images, in_channels)
    )
    return tuple(build(component, kind="transform", trusted=trusted) for component in components)


def preprocess(image: Image, steps: tuple[Step, ...]) -> Tensor:
    """All steps on what a reader returned.

    Returns:
        (C, size, size) float32 in [0, 1].
    """
    x = torch.from_numpy(image.array)
    for step in steps:
        x = step(x)
    return x
