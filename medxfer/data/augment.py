"""Augmentation of whole batches on the training device; every case's parameters come from its own seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..bundle.components import build
from ..bundle.schema import Component


class Change(Protocol):
    """One random change. Geometric ones give a matrix, the others change intensities."""

    def sample(self, random: np.random.Generator) -> tuple[float, ...]:
        """Parameters for one case."""


class Geometric(Change, Protocol):
    """A change of place; all of them together cost one interpolation."""

    def matrix(self, parameters: tuple[float, ...]) -> np.ndarray:
        """(3, 3), from output to input coordinates, both in [-1, 1], x before y."""


class Intensity(Change, Protocol):
    """A change of values; labels never see it."""

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Changed images (B, C, H, W) in [0, 1]; `parameters` is (B, number of parameters)."""


class RandomAffine:
    """Rotate, shift and scale, each uniformly within its limit; borders are repeated.

    Args:
        degrees: Largest rotation, either way.
        shift: Largest shift along each axis, as a share of the side.
        scale: Largest change of size: 0.1 is 0.9 to 1.1.
        flip: Whether half of the cases are mirrored left to right. Not for chests: the heart has a side.
    """

    def __init__(
        self, degrees: float = 10.0, shift: float = 0.05, scale: float = 0.1, flip: bool = False
    ) -> None:
        self.degrees, self.shift, self.scale, self.flip = degrees, shift, scale, flip

    def sample(self, random: np.random.Generator) -> tuple[float, ...]:
        """Angle in radians, shifts in [-1, 1] coordinates, factor, side (1 or -1)."""
        angle, down, right, size, side = random.uniform(-1, 1, 5)
        return (
            math.radians(self.degrees) * angle,
            2 * self.shift * right,
            2 * self.shift * down,
            1 + self.scale * size,
            -1.0 if self.flip and side < 0 else 1.0,
        )

    def matrix(self, parameters: tuple[float, ...]) -> np.ndarray:
        """Rotation and scaling about the centre, then the shift."""
        angle, right, down, factor, side = parameters
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        return np.array([[cos * side, -sin, right], [sin * side, cos, down], [0.0, 0.0, 1.0]])


class RandomIntensity:
    """Brightness, contrast about the image's own mean, and gamma.

    Args:
        brightness: Largest value added or taken away.
        contrast: Largest relative change: 0.2 is 0.8 to 1.2.
        gamma: Largest change of the exponent's logarithm: 0.2 is about 0.82 to 1.22.
    """

    def __init__(self, brightness: float = 0.1, contrast: float = 0.2, gamma: float = 0.0) -> None:
        self.brightness, self.contrast, self.gamma = brightness, contrast, gamma

    def sample(self, random: np.random.Generator) -> tuple[float, ...]:
        """Added value, factor, exponent."""
        bright, contrast, gamma = random.uniform(-1, 1, 3)
        return self.brightness * bright, 1 + self.contrast * contrast, math.exp(self.gamma * gamma)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change values, clipped to [0, 1]."""
        added, factor, exponent = (column.view(-1, *([1] * (x.ndim - 1))) for column in parameters.unbind(1))
        mean = x.flatten(1).mean(1).view_as(added)
        changed = (x - mean).mul_(factor).add_(mean + added).clamp_(0, 1)
        return changed if self.gamma == 0 else changed.pow_(exponent)


class RandomNoise:
    """White Gaussian noise of a random strength.

    Args:
        std: Largest standard deviation.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = std

    def sample(self, random: np.random.Generator) -> tuple[float, ...]:
        """Standard deviation."""
        return (self.std * random.uniform(),)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Add noise that each case's seed decides, clipped to [0, 1]."""
        generator = torch.Generator()
        fields = [torch.randn(x.shape[1:], generator=generator.manual_seed(seed)) for seed in seeds]
        strength = parameters[:, 0].view(-1, *([1] * (x.ndim - 1)))
        return (x + strength * torch.stack(fields).to(x.device)).clamp(0, 1)


class RandomBlur:
    """Gaussian blur of a random width; borders are repeated.

    Args:
        sigma: Largest standard deviation in pixels.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        self.sigma = sigma

    def sample(self, random: np.random.Generator) -> tuple[float, ...]:
        """Standard deviation in pixels; at least 0.05, where the kernel is a single pixel."""
        return (max(0.05, self.sigma * random.uniform()),)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Blur rows, then columns, each case by its own kernel."""
        reach = max(1, math.ceil(3 * self.sigma))
        offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (offsets / parameters[:, :1]) ** 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        channels = x.shape[1]
        flat = x.reshape(1, -1, *x.shape[2:])
        weights = kernel.repeat_interleave(channels, 0)[:, None]
        flat = functional.pad(flat, (reach, reach, reach, reach), mode="replicate")
        flat = functional.conv2d(flat, weights[..., None], groups=flat.shape[1])
        flat = functional.conv2d(flat, weights[:, :, None], groups=flat.shape[1])
        return flat.reshape(x.shape)


class Augment:
    """Random changes in the order of a bundle's list; geometric ones are joined into one interpolation.

    Args:
        components: As under `images.augment`.
        trusted: Whether the bundle was opened with --trust.
    """

    def __init__(self, components: Sequence[Component], *, trusted: bool = False) -> None:
        self._changes = [build(component, kind="augment", trusted=trusted) for component in components]

    def __call__(
        self, x: Tensor, seeds: Sequence[int], maps: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Change a batch.

        Args:
            x: (B, C, H, W) in [0, 1].
            seeds: One a case; the same seed changes the same image in the same way, whatever the batch.
            maps: (B, ..., H, W) labels that move with the images, by nearest neighbour.

        Returns:
            Images and maps, changed.
        """
        sources = [np.random.default_rng(seed) for seed in seeds]
        sampled = [(change, [change.sample(source) for source in sources]) for change in self._changes]
        placed = [(change, parameters) for change, parameters in sampled if hasattr(change, "matrix")]
        if placed:
            matrices = [
                functools.reduce(np.matmul, [change.matrix(rows[case]) for change, rows in placed])
                for case in range(len(seeds))
            ]
            x, maps = _moved(x, maps, np.stack(matrices))
        for change, parameters in sampled:
            if not hasattr(change, "matrix"):
                numbers = torch.tensor(parameters, dtype=x.dtype, device=x.device)
                x = change.apply(x, numbers, seeds)
        return x, maps


def _moved(x: Tensor, maps: Tensor | None, matrices: np.ndarray) -> tuple[Tensor, Tensor | None]:
    theta = torch.from_numpy(matrices[:, :2]).to(x.device, x.dtype)
    grid = _grid(theta, *x.shape[2:])
    moved = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if maps is None:
        return moved, None
    labels = maps if maps.ndim == x.ndim else maps[:, None]
    turned = functional.grid_sample(
        labels.to(x.dtype), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return moved, turned.to(maps.dtype).reshape(maps.shape)


def _grid(theta: Tensor, rows: int, columns: int) -> Tensor:
    """`affine_grid` of torch as a sum of what changes along a row and what changes along a column: 3 times as fast."""
    across = (2 * torch.arange(columns, device=theta.device, dtype=theta.dtype) + 1) / columns - 1
    down = (2 * torch.arange(rows, device=theta.device, dtype=theta.dtype) + 1) / rows - 1
    grid = theta.new_empty(len(theta), rows, columns, 2)
    for axis in (0, 1):
        along_row = (theta[:, axis, 0, None] * across)[:, None, :]
        along_column = (theta[:, axis, 1, None] * down + theta[:, axis, 2, None])[:, :, None]
        torch.add(along_row, along_column, out=grid[..., axis])
    return grid
