"""Steps for stained tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import ValueStep, as_lambda

_TISSUE = 0.02  # share of pixels that must absorb light before a stain can be estimated
_LIGHT, _TRANSPARENT = 240, 0.15  # transmitted light and absorbance of glass, as MONAI's defaults


class StainNormalise(ValueStep):
    """Bring haematoxylin and eosin to reference colours (Macenko et al. 2009, by MONAI's NormalizeHEStains).

    MONAI's part stops at an image of glass alone; here one with less than 2 % of tissue stays as it is.
    """

    imports = ("monai.apps.pathology.transforms.stain.array",)

    def change(self, x: Tensor) -> Tensor:
        """(3, rows, columns), 0 to 255, the same afterwards; other numbers of channels stay."""
        from monai.apps.pathology.transforms.stain.array import NormalizeHEStains

        picture = x.clamp(0, 255).permute(1, 2, 0).contiguous().numpy()
        if x.shape[0] != 3 or not _has_tissue(picture):
            return x
        return torch.from_numpy(NormalizeHEStains()(picture)).permute(2, 0, 1).float()

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        tissue = (
            f"(-numpy.log((p + 1).clip(max={_LIGHT}) / {_LIGHT}) > {_TRANSPARENT}).all(2).mean() >= {_TISSUE}"
        )
        normal = (
            "torch.from_numpy(monai.apps.pathology.transforms.stain.array.NormalizeHEStains()(p))"
            ".permute(2, 0, 1).float()"
        )
        picture = "torch.as_tensor(x).clamp(0, 255).permute(1, 2, 0).contiguous().numpy()"
        return as_lambda(keys, f"(lambda p: {normal} if x.shape[0] == 3 and {tissue} else x)({picture})")


def _has_tissue(picture: np.ndarray) -> bool:
    """Whether enough pixels (rows, columns, 3) absorb light."""
    absorbance = -np.log((picture + 1).clip(max=_LIGHT) / _LIGHT)
    return float((absorbance > _TRANSPARENT).all(2).mean()) >= _TISSUE
