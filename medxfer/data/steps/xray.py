"""Steps for projection images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import ValueStep, as_lambda


class EqualiseLocally(ValueStep):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994), by scikit-image; for values in [0, 1].

    Args:
        clip: Limit of the contrast, 0 to 1; 0.01 is mild.
        tiles: Along each axis.
    """

    imports = ("skimage", "skimage.exposure")

    def __init__(self, clip: float = 0.01, tiles: int = 8) -> None:
        if not 0 < clip <= 1 or tiles < 1:
            raise ValueError(f"clip {clip}, tiles {tiles}; clip in (0, 1] and at least 1 tile is accepted")
        self.clip, self.tiles = float(clip), tiles

    def change(self, x: Tensor) -> Tensor:
        """The same shape, in [0, 1]."""
        from skimage.exposure import equalize_adapthist

        kernel = [max(1, side // self.tiles) for side in x.shape[1:]]
        done = [
            equalize_adapthist(one.double().numpy(), kernel_size=kernel, clip_limit=self.clip)
            for one in x.clamp(0, 1)
        ]
        return torch.from_numpy(np.stack(done)).float()

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """As MONAI configuration."""
        kernel = f"[max(1, side // {self.tiles}) for side in x.shape[1:]]"
        done = (
            "skimage.exposure.equalize_adapthist(one.double().numpy(), "
            f"kernel_size={kernel}, clip_limit={self.clip})"
        )
        each = f"[{done} for one in torch.as_tensor(x).clamp(0, 1)]"
        return as_lambda(keys, f"torch.from_numpy(numpy.stack({each})).float()")
