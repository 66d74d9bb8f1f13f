"""Steps for the values of CT and MR images, each to [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from .base import ValueStep, as_lambda
from .pictures import SMOOTH, quantiles, quantiles_text, resized, resized_text

# Lower and upper end in HU; widths and levels as in radiology teaching (radiopaedia.org, "Windowing (CT)").
WINDOWS_HU: Mapping[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),  # width 1500, level -600
    "bone": (-500.0, 1300.0),  # 1800, 400
    "soft_tissue": (-150.0, 250.0),  # 400, 50
    "brain": (0.0, 80.0),  # 80, 40
    "liver": (-45.0, 105.0),  # 150, 30
    "mediastinum": (-125.0, 225.0),  # 350, 50
    "chest": (-1000.0, 200.0),  # lung and soft tissue together
}


class HUWindow(ValueStep):
    """Hounsfield units to [0, 1] by a window; several windows become channels.

    Args:
        windows: Names of `WINDOWS_HU`, or [low, high] in HU.
    """

    def __init__(self, windows: Sequence[str | Sequence[float]] = ("soft_tissue",)) -> None:
        if not windows:
            raise ValueError("no window; a name or [low, high] is accepted")
        self.limits = tuple(_limits(one) for one in windows)

    def change(self, x: Tensor) -> Tensor:
        """`(C, *spatial)` in HU to `(C x windows, *spatial)`, the windows of a channel together."""
        out = x.new_empty((len(x) * len(self.limits), *x.shape[1:]))
        pairs = ((one, *limits) for one in x for limits in self.limits)
        for target, (one, low, high) in zip(out, pairs, strict=True):  # one copy of a volume, not four
            torch.sub(one, low, out=target).div_(high - low).clamp_(0, 1)
        return out

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        scaled = "((one[None] - low) / (high - low)).clamp(0, 1)"
        return as_lambda(keys, f"torch.cat([{scaled} for one in x for low, high in {self.limits}])")


class ValueRange(ValueStep):
    """A fixed range to [0, 1], for images whose scale means something: 0 to 255 for photographs.

    Args:
        low: Becomes 0.
        high: Becomes 1.
    """

    def __init__(self, low: float = 0.0, high: float = 255.0) -> None:
        self.low, self.high = _limits((low, high))

    def change(self, x: Tensor) -> Tensor:
        """The same shape, clipped to [0, 1]."""
        return (x - self.low).div_(self.high - self.low).clamp_(0, 1)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        return as_lambda(keys, f"((x - {self.low}) / {self.high - self.low}).clamp(0, 1)")


def _limits(window: str | Sequence[float]) -> tuple[float, float]:
    if isinstance(window, str):
        if window not in WINDOWS_HU:
            raise ValueError(f"window {window}; {', '.join(WINDOWS_HU)} or [low, high] is accepted")
        return WINDOWS_HU[window]
    low, high = (float(one) for one in window)
    if low >= high:
        raise ValueError(f"window [{low:g}, {high:g}]; low < high is accepted")
    return low, high


class ForegroundWindow(ValueStep):
    """Scale each channel so that a low percentile of all voxels becomes 0 and a high one of its foreground 1.

    Foreground is what is brighter than the channel's mean: MR scales are arbitrary, and air would pull every other
    statistic along. A constant channel becomes 0.

    Args:
        lower: Percentile of all voxels that becomes 0.
        upper: Percentile of the foreground that becomes 1.
    """

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles {lower} and {upper}; 0 <= lower < upper <= 100 is accepted")
        self.lower, self.upper = float(lower), float(upper)

    def change(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
        return torch.stack([self._scaled(one) for one in x])

    def _scaled(self, one: Tensor) -> Tensor:
        bright = one[one > one.mean()]
        if not bright.numel():
            return torch.zeros_like(one)
        low, _ = quantiles(one, self.lower / 100, self.lower / 100)
        _, high = quantiles(bright, self.upper / 100, self.upper / 100)
        return ((one - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        low = f"{quantiles_text('one', self.lower, self.lower)}[0]"
        high = f"{quantiles_text('bright', self.upper, self.upper)}[1]"
        scaled = (
            "(lambda one, bright: (lambda low, high: ((one - low) / (high - low).clamp(min=1e-8)).clamp(0, 1))"
            f"({low}, {high}) if bright.numel() else torch.zeros_like(one))(one, one[one > one.mean()])"
        )
        return as_lambda(keys, f"torch.stack([{scaled} for one in x])")


class ForegroundZScore(ValueStep):
    """Scale each channel by mean and deviation of its foreground, what is brighter than its mean, to [0, 1].

    Args:
        limit: Deviations from the foreground's mean that become 0 and 1.
    """

    def __init__(self, limit: float = 4.0) -> None:
        if limit <= 0:
            raise ValueError(f"limit is {limit}; a number above 0 is accepted")
        self.limit = float(limit)

    def change(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]; a constant channel becomes 0."""
        return torch.stack([self._scaled(one) for one in x])

    def _scaled(self, one: Tensor) -> Tensor:
        bright = one[one > one.mean()].double()
        if bright.numel() < 2:
            return torch.zeros_like(one)
        deviation = bright.std().clamp(min=1e-8)
        return (((one - bright.mean()) / (2 * self.limit * deviation)) + 0.5).clamp(0, 1).float()

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        scaled = (
            f"(lambda one, b: ((one - b.mean()) / (2 * {self.limit} * b.std().clamp(min=1e-8)) + 0.5)"
            ".clamp(0, 1).float() if b.numel() > 1 else torch.zeros_like(one))(one, one[one > one.mean()].double())"
        )
        return as_lambda(keys, f"torch.stack([{scaled} for one in x])")


class RemoveBiasField(ValueStep):
    """N4 bias field correction (Tustison et al. 2010), by SimpleITK (`pip install medxfer[n4]`).

    Not by the `itk` package: its Python wrapping of N4 (5.4.7) takes no number of iterations and can end the process.

    Args:
        shrink: The field is fitted on every n-th voxel; it is smooth, so little is lost and much time won.
        iterations: At each of the four levels.
    """

    imports = ("SimpleITK",)

    def __init__(self, shrink: int = 4, iterations: int = 20) -> None:
        if shrink < 1 or iterations < 1:
            raise ValueError(f"shrink {shrink}, iterations {iterations}; 1 or more is accepted")
        self.shrink, self.iterations = shrink, iterations

    def change(self, x: Tensor) -> Tensor:
        """The same shape, values from 0 on: N4 works on logarithms.

        Raises:
            DataError: SimpleITK is not installed.
        """
        try:
            import SimpleITK
        except ImportError:
            todo = "pip install SimpleITK, or take RemoveBiasField out of images.transforms"
            raise DataError("RemoveBiasField", "no package SimpleITK", "SimpleITK", todo) from None
        return torch.stack([self._corrected(one - one.min().clamp(max=0), SimpleITK) for one in x])

    def _corrected(self, one: Tensor, library: Any) -> Tensor:
        thin = one[(slice(None, None, self.shrink),) * one.ndim].contiguous()
        if float(thin.max()) <= 0:
            return one
        # Added so that the logarithm of background exists; far below any tissue.
        small = thin + 0.01 * thin.max()
        image = library.GetImageFromArray(small.numpy())
        fixed = library.N4BiasFieldCorrection(image, 0.001, [self.iterations] * 4)
        field = small / torch.from_numpy(library.GetArrayFromImage(fixed)).clamp(min=1e-6)
        return one / resized(field[None].clamp(0.1, 10), tuple(one.shape))[0]

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        thin = f"one[(slice(None, None, {self.shrink}),) * one.ndim].contiguous()"
        fixed = (
            "torch.from_numpy(SimpleITK.GetArrayFromImage(SimpleITK.N4BiasFieldCorrection("
            "SimpleITK.GetImageFromArray(small.numpy()), "
            f"0.001, [{self.iterations}] * 4)))"
        )
        field = f"(small / {fixed}.clamp(min=1e-6))[None].clamp(0.1, 10)"
        flat = (
            f"torch.nn.functional.interpolate(x[None], size=tuple(one.shape), mode='bilinear', {SMOOTH})[0]"
        )
        full = f"(lambda x: ({flat} if one.ndim == 2 else {resized_text('one.shape')}))({field})[0]"
        corrected = f"(lambda small: one / {full})(thin + 0.01 * thin.max())"
        lifted = "(one - one.min().clamp(max=0))"
        each = f"(lambda one: (lambda thin: {corrected} if float(thin.max()) > 0 else one)({thin})){lifted}"
        return as_lambda(keys, f"torch.stack([{each} for one in torch.as_tensor(x)])")
