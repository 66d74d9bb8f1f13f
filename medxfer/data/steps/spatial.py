"""Steps that move voxels: to another spacing, to one size, to the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from ..placed import Placed
from .base import as_cutting_lambda, as_scaling_lambda
from .pictures import SMOOTH, resized, resized_text


class Resample:
    """Resize so that the spacing becomes what is asked for, with antialiasing, the field of view kept.

    The size is rounded to whole voxels, so the true spacing differs by at most half a voxel over the whole extent.

    Args:
        spacing: mm a voxel along each array axis (volumes: X, Y, Z; pictures: rows, columns).
    """

    def __init__(self, spacing: Sequence[float]) -> None:
        if not spacing or min(spacing) <= 0:
            raise ValueError(f"spacing is {list(spacing)}; numbers above 0 are accepted")
        self.spacing = tuple(float(one) for one in spacing)

    def __call__(self, image: Placed) -> Placed:
        """`(C, *spatial)` to `(C, *round(spatial * spacing / wanted))`.

        Raises:
            ValueError: Another number of axes.
        """
        if len(self.spacing) != len(image.shape):
            raise ValueError(f"spacing for {len(self.spacing)} axes, the image has {len(image.shape)}")
        size = [
            max(1, round(round(n * old / new, 6)))  # readers differ in the last digits of a spacing
            for n, old, new in zip(image.shape, image.spacing, self.spacing, strict=True)
        ]
        return image.scaled(resized(image.values, size))

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration; the affine of a picture has rows and columns first."""
        old = "(affine[:3, :3] ** 2).sum(0).sqrt().tolist()"
        size = f"[max(1, round(round(n * s / t, 6))) for n, s, t in zip(x.shape[1:], {old}, {self.spacing})]"
        if len(self.spacing) == 2:
            text = f"torch.nn.functional.interpolate(x[None], size={size}, mode='bilinear', {SMOOTH})[0]"
            return as_scaling_lambda(keys, text)
        return as_scaling_lambda(keys, resized_text(size))


class FitTo:
    """Crop or pad about the centre to one size; padding takes the image's minimum.

    Args:
        size: Voxels a side, or one number an axis.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = size

    def __call__(self, image: Placed) -> Placed:
        """`(C, *spatial)` to `(C, *size)`."""
        dims = len(image.shape)
        size = (self.size,) * dims if isinstance(self.size, int) else tuple(self.size)
        starts = [(have - want) // 2 for have, want in zip(image.shape, size, strict=True)]
        pads = [
            side
            for have, want, start in reversed(list(zip(image.shape, size, starts, strict=True)))
            for side in (-start, want - have + start)
        ]
        x = image.values
        return image.cut(functional.pad(x, pads, value=float(x.min())), starts)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        size = f"(({self.size},) * (x.ndim - 1))" if isinstance(self.size, int) else str(tuple(self.size))
        pads = (
            "[side for have, want in reversed(list(zip(x.shape[1:], "
            f"{size}))) for side in (-((have - want) // 2), want - have + (have - want) // 2)]"
        )
        starts = f"[(have - want) // 2 for have, want in zip(x.shape[1:], {size})]"
        return as_cutting_lambda(
            keys, f"(torch.nn.functional.pad(x, {pads}, value=float(x.min())), {starts})"
        )


class CropBody:
    """Crop to the box around everything brighter than a threshold, with a margin; nothing brighter: unchanged.

    Args:
        above: Threshold in the image's units (CT: HU; -500 lies between air and the body).
        margin: Voxels kept on each side.
    """

    def __init__(self, above: float = -500.0, margin: int = 4) -> None:
        self.above, self.margin = float(above), int(margin)

    def __call__(self, image: Placed) -> Placed:
        """`(C, *spatial)` to the box."""
        x = image.values
        box = [_range(x, axis, self.above, self.margin) for axis in range(1, x.ndim)]
        for axis, (start, stop) in enumerate(box, start=1):
            x = x.narrow(axis, start, stop - start)
        return image.cut(x.contiguous(), [start for start, _ in box])

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        # per axis the first and last index with a bright voxel; slices from a tuple of them
        bright = f"(x.movedim(a, 0).flatten(1).amax(1) > {self.above}).nonzero()"
        span = (
            f"(lambda w, n: slice(max(int(w[0]) - {self.margin}, 0), min(int(w[-1]) + {self.margin + 1}, n)) "
            f"if len(w) else slice(0, n))({bright}, x.shape[a])"
        )
        cut = "(x[(slice(None), *box)].contiguous(), [one.start for one in box])"
        return as_cutting_lambda(keys, f"(lambda box: {cut})([{span} for a in range(1, x.ndim)])")


def _range(x: Tensor, axis: int, above: float, margin: int) -> tuple[int, int]:
    """First and last + 1 index along an axis with a value above the threshold, widened by the margin."""
    where = (x.movedim(axis, 0).flatten(1).amax(1) > above).nonzero()
    if not len(where):
        return 0, x.shape[axis]
    return max(int(where[0]) - margin, 0), min(int(where[-1]) + margin + 1, x.shape[axis])
