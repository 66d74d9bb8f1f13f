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

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Parameters for one case of 2 or 3 spatial dimensions."""


class Geometric(Change, Protocol):
    """A change of place; all of them together cost one interpolation."""

    def matrix(self, parameters: tuple[float, ...], dims: int) -> np.ndarray:
        """(dims + 1, dims + 1), from output to input places, in half sides, the last array axis first."""


class Intensity(Change, Protocol):
    """A change of values; labels never see it."""

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Changed images (B, C, *spatial) in [0, 1]; `parameters` is (B, number of parameters)."""


class RandomAffine:
    """Rotate, shift and scale, each uniformly within its limit; borders are repeated.

    Args:
        degrees: Largest rotation, either way; of volumes about each axis.
        shift: Largest shift along each axis, as a share of the side.
        scale: Largest change of size: 0.1 is 0.9 to 1.1.
        flip: Whether half of the cases are mirrored left to right. Not for chests: the heart has a side.
    """

    def __init__(
        self, degrees: float = 10.0, shift: float = 0.05, scale: float = 0.1, flip: bool = False
    ) -> None:
        self.degrees, self.shift, self.scale, self.flip = degrees, shift, scale, flip

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Angles in radians, shifts in half sides, factor, side (1 or -1)."""
        angle, down, right, size, side = random.uniform(-1, 1, 5)
        more = random.uniform(-1, 1, 3) if dims == 3 else ()
        turns = [math.radians(self.degrees) * one for one in (angle, *more[:2])]
        shifts = [2 * self.shift * one for one in (right, down, *more[2:])]
        return (*turns, *shifts, 1 + self.scale * size, -1.0 if self.flip and side < 0 else 1.0)

    def matrix(self, parameters: tuple[float, ...], dims: int) -> np.ndarray:
        """Rotation and scaling about the centre, then the shift; mirrored along the axis that runs left to right."""
        *moved, factor, side = parameters
        matrix = np.eye(dims + 1)
        if dims == 2:
            angle, right, down = moved
            cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
            matrix[:2] = [[cos * side, -sin, right], [sin * side, cos, down]]
            return matrix
        for angle, (one, other) in zip(moved[:3], ((0, 1), (0, 2), (1, 2)), strict=True):
            turn = np.eye(3)
            turn[[one, one, other, other], [one, other, one, other]] = (
                math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle),
            )  # fmt: skip
            matrix[:3, :3] = matrix[:3, :3] @ turn
        matrix[:3, :3] *= np.array([1.0, 1.0, side]) / factor  # X is the last in torch's order
        matrix[:3, 3] = moved[3:]
        return matrix


class RandomIntensity:
    """Brightness, contrast about the image's own mean, and gamma.

    Args:
        brightness: Largest value added or taken away.
        contrast: Largest relative change: 0.2 is 0.8 to 1.2.
        gamma: Largest change of the exponent's logarithm: 0.2 is about 0.82 to 1.22.
    """

    def __init__(self, brightness: float = 0.1, contrast: float = 0.2, gamma: float = 0.0) -> None:
        self.brightness, self.contrast, self.gamma = brightness, contrast, gamma

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Added value, factor, exponent."""
        bright, contrast, gamma = random.uniform(-1, 1, 3)
        return self.brightness * bright, 1 + self.contrast * contrast, math.exp(self.gamma * gamma)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change values, clipped to [0, 1]."""
        added, factor, exponent = (column.view(-1, *([1] * (x.ndim - 1))) for column in parameters.unbind(1))
        mean = x.flatten(1).mean(1).view_as(added)
        changed = (x - mean).mul_(factor).add_(mean + added).clamp_(0, 1)
        # x^e as exp(e log x), 0 stays 0: twice as fast as `pow` with an exponent for each case.
        return changed if self.gamma == 0 else changed.log_().mul_(exponent).exp_()


class RandomNoise:
    """White Gaussian noise of a random strength.

    Args:
        std: Largest standard deviation.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = std

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
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

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Standard deviation in pixels; at least 0.05, where the kernel is a single pixel."""
        return (max(0.05, self.sigma * random.uniform()),)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Blur along each axis in turn, each case by its own kernel."""
        reach = max(1, math.ceil(3 * self.sigma))
        offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (offsets / parameters[:, :1]) ** 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        channels = x.shape[1]
        flat = x.reshape(1, -1, *x.shape[2:])
        weights = kernel.repeat_interleave(channels, 0)[:, None]
        dims = x.ndim - 2
        flat = functional.pad(flat, (reach,) * (2 * dims), mode="replicate")
        convolve = functional.conv2d if dims == 2 else functional.conv3d
        for axis in range(dims):
            shape = [1] * dims
            shape[axis] = -1
            flat = convolve(flat, weights.view(weights.shape[0], 1, *shape), groups=flat.shape[1])
        return flat.reshape(x.shape)


class RandomBiasField:
    """A smooth uneven brightness, as of an MR coil: the exponent of a random polynomial of second degree.

    Args:
        strength: Largest coefficient; 0.2 changes the corners by a factor of about 1.5 at most in practice.
    """

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = strength

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Coefficients of the linear, quadratic and mixed terms."""
        count = 2 * dims + dims * (dims - 1) // 2
        return tuple(float(one) for one in self.strength * random.uniform(-1, 1, count))

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Multiply by the field, whose mean is about 1, clipped to [0, 1]."""
        dims = x.ndim - 2
        axes = [
            torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype).view(
                *[-1 if other == axis else 1 for other in range(dims)]
            )
            for axis, side in enumerate(x.shape[2:])
        ]
        mixed = [axes[a] * axes[b] for a in range(dims) for b in range(a + 1, dims)]
        terms = [*axes, *[axis.square() - 1 / 3 for axis in axes], *mixed]
        field = x.new_zeros(len(x), 1, *x.shape[2:])
        for number, term in enumerate(terms):
            field = field + parameters[:, number].view(-1, 1, *[1] * dims) * term
        return (x * field.exp()).clamp(0, 1)


class RandomGhosting:
    """Faint shifted copies along one axis, as of a patient who moves in an MR scanner.

    Args:
        strength: Largest share of the copies.
        copies: Largest number of copies over the field of view.
    """

    def __init__(self, strength: float = 0.1, copies: int = 4) -> None:
        self.strength, self.copies = strength, copies

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Share, number of copies, axis."""
        share, count, axis = (
            self.strength * random.uniform(),
            random.integers(2, self.copies + 1),
            random.integers(dims),
        )
        return float(share), float(count), float(axis)

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Mix each image with the mean of its copies."""
        done = []
        for image, (share, count, axis) in zip(x, parameters.tolist(), strict=True):
            along = int(axis) + 1
            side = image.shape[along]
            copies = [image.roll(side * number // int(count), along) for number in range(1, int(count))]
            done.append((1 - share) * image + share * torch.stack(copies).mean(0))
        return torch.stack(done)


class RandomStain:
    """More or less haematoxylin, eosin and residual in each image (Tellez et al. 2018, HED-light).

    The matrix is that of Ruifrok and Johnston 2001, as in scikit-image. Images of other than three channels stay.

    Args:
        strength: Largest relative change and largest added amount of each stain.
    """

    def __init__(self, strength: float = 0.05) -> None:
        self.strength = strength

    def sample(self, random: np.random.Generator, dims: int) -> tuple[float, ...]:
        """Three factors, three added amounts."""
        factors, added = random.uniform(-1, 1, (2, 3))
        return (*(1 + self.strength * factors).tolist(), *(self.strength * added).tolist())

    def apply(self, x: Tensor, parameters: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change the stains' amounts in optical density, clipped to [0, 1]."""
        if x.shape[1] != 3:
            return x
        stains = torch.tensor(_RGB_OF_HED, device=x.device, dtype=x.dtype)
        density = -torch.log(x.clamp(min=1e-3)).movedim(1, -1)
        shape = (len(x), *[1] * (x.ndim - 2), 3)
        amounts = density @ torch.linalg.inv(stains)
        amounts = amounts * parameters[:, :3].reshape(shape) + parameters[:, 3:].reshape(shape)
        return torch.exp(-(amounts @ stains)).movedim(-1, 1).clamp(0, 1)


_RGB_OF_HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


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
            x: (B, C, *spatial) in [0, 1].
            seeds: One a case; the same seed changes the same image in the same way, whatever the batch.
            maps: (B, ..., *spatial) labels that move with the images, by nearest neighbour.

        Returns:
            Images and maps, changed.
        """
        dims = x.ndim - 2
        sources = [np.random.default_rng(seed) for seed in seeds]
        sampled = [(change, [change.sample(source, dims) for source in sources]) for change in self._changes]
        placed = [(change, parameters) for change, parameters in sampled if hasattr(change, "matrix")]
        if placed:
            matrices = [
                functools.reduce(
                    np.matmul,
                    [_unsheared(change.matrix(rows[case], dims), x.shape[2:]) for change, rows in placed],
                )
                for case in range(len(seeds))
            ]
            x, maps = _moved(x, maps, np.stack(matrices))
        for change, parameters in sampled:
            if not hasattr(change, "matrix"):
                numbers = torch.tensor(parameters, dtype=x.dtype, device=x.device)
                x = change.apply(x, numbers, seeds)
        return x, maps


def _unsheared(matrix: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """The matrix for half sides of unequal length: rotations turn voxels, shifts stay shares of their side."""
    lengths = np.array(sides[::-1], dtype=np.float64)
    turned = matrix.copy()
    turned[:-1, :-1] *= lengths[None, :] / lengths[:, None]
    return turned


def _moved(x: Tensor, maps: Tensor | None, matrices: np.ndarray) -> tuple[Tensor, Tensor | None]:
    theta = torch.from_numpy(matrices[:, :-1]).to(x.device, x.dtype)
    grid = _grid(theta, x.shape[2:])
    moved = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if maps is None:
        return moved, None
    labels = maps if maps.ndim == x.ndim else maps[:, None]
    turned = functional.grid_sample(
        labels.to(x.dtype), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return moved, turned.to(maps.dtype).reshape(maps.shape)


def _grid(theta: Tensor, sides: Sequence[int]) -> Tensor:
    """`affine_grid` of torch as a sum of what changes along each axis: 3 times as fast."""
    dims = len(sides)
    grid = theta.new_empty(len(theta), *sides, dims)
    steps = [
        (2 * torch.arange(side, device=theta.device, dtype=theta.dtype) + 1) / side - 1 for side in sides
    ]
    for axis in range(dims):
        parts = [
            (theta[:, axis, dims - 1 - along, None] * steps[along]).view(
                -1, *[sides[along] if other == along else 1 for other in range(dims)]
            )
            for along in range(dims)
        ]
        parts[0] = parts[0] + theta[:, axis, dims].view(-1, *[1] * dims)
        torch.add(functools.reduce(torch.add, parts[:-1]), parts[-1], out=grid[..., axis])
    return grid
