"""What a step is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ..placed import Placed


class Step(Protocol):
    """One deterministic change of an image, float32.

    A step whose MONAI configuration needs more than torch says so in `imports`, names of modules.
    """

    def __call__(self, image: Placed) -> Placed:
        """The changed image; a step that moves voxels moves the affine with them."""

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """The same as MONAI configuration; `torch`, `numpy` and `monai` are among the configuration's imports."""


class ValueStep:
    """A step that leaves every voxel where it is."""

    def __call__(self, image: Placed) -> Placed:
        """Other values, the same grid."""
        return image.with_values(self.change(image.values))

    def change(self, x: Tensor) -> Tensor:
        """The values `(C, *spatial)`, changed; spatial shape kept."""
        raise NotImplementedError


def as_lambda(keys: str, text: str) -> dict[str, Any]:
    """`text`, an expression in the tensor `x`, as a MONAI transform that leaves the affine as it is."""
    return _lambda(keys, f"monai.data.MetaTensor({text}, affine=affine)")


def as_scaling_lambda(keys: str, text: str) -> dict[str, Any]:
    """`text` gives `x` over the same extent in another size: a MONAI transform with the affine of `Placed.scaled`."""
    ratios = "[old / new for old, new in zip(x.shape[1:], y.shape[1:])]"
    affine = f"(lambda ratios: {_moved('ratios', '[0.5 * one - 0.5 for one in ratios]')})({ratios})"
    return _lambda(keys, f"(lambda y: monai.data.MetaTensor(y, affine={affine}))({text})")


def as_cutting_lambda(keys: str, text: str) -> dict[str, Any]:
    """`text` gives a crop or padding of `x` and its start: a MONAI transform with the affine of `Placed.cut`."""
    affine = _moved("[1.0] * len(start)", "start")
    return _lambda(keys, f"(lambda y, start: monai.data.MetaTensor(y, affine={affine}))(*{text})")


def _lambda(keys: str, text: str) -> dict[str, Any]:
    """`text` sees the plain tensor `x` and its `affine`, (4, 4) for pictures too, whose third axis it leaves alone."""
    parts = "*(lambda image: (image.as_tensor(), image.affine))(monai.data.MetaTensor(image))"
    return {
        "_target_": "Lambdad",
        "keys": keys,
        "func": f"$lambda image: (lambda x, affine: {text})({parts})",
    }


def _moved(scale: str, start: str) -> str:
    """`affine` for indices that begin at `start` and step by `scale`, expressions of two or three numbers."""
    column = f"torch.tensor([*{start}, 0.0, 0.0][:3] + [1.0], dtype=torch.float64)[:, None]"
    matrix = f"torch.diag(torch.tensor([*{scale}, 1.0, 1.0][:4], dtype=torch.float64))[:, :3]"
    return f"affine.mm(torch.cat([{matrix}, {column}], 1))"
