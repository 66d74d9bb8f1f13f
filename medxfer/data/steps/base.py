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
    """`text`, an expression in the tensor `x`, as a MONAI transform."""
    return {"_target_": "Lambdad", "keys": keys, "func": f"$lambda x: {text}"}
