"""Losses of masks: MONAI's, on what counts.

MONAI's joint losses (DiceCE, DiceFocal) know no voxels to leave out, so their two parts are added here. It is imported
at the first loss: a prediction needs none, and saves the seconds and some 200 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ..data.masks import IGNORED

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES = ("dice_ce", "dice_focal", "tversky")

# False negatives weigh more than false positives: lesions are small (Salehi et al. 2017).
_FALSE_POSITIVES, _FALSE_NEGATIVES = 0.3, 0.7
_GAMMA = 2.0  # of the focal loss (Lin et al. 2017)


def mask_loss(name: str, members: Sequence[Sequence[int]], *, exclusive: bool) -> Loss:
    """The loss of logits against class numbers.

    Args:
        name: `dice_ce`, `dice_focal` or `tversky`.
        members: For each foreground output the class numbers that belong to it.
        exclusive: Whether the logits have a background channel first, for a softmax; else each is a sigmoid.

    Returns:
        Function of logits (B, K (+ 1), *spatial) and maps (B, *spatial) uint8: a scalar.
    """

    def loss(logits: Tensor, maps: Tensor) -> Tensor:
        parts = _parts(name)
        truth = one_hot(maps, members, exclusive=exclusive)
        counts = (maps != IGNORED)[:, None]
        logits = logits.float()
        p = logits.softmax(1) if exclusive else logits.sigmoid()
        first = 1 if exclusive else 0
        total = parts[0](p[:, first:] * counts, truth[:, first:] * counts)
        for part in parts[1:]:
            each = part(logits, truth, exclusive)
            total = total + (each * counts).sum() / (counts.sum() * each.shape[1]).clamp_min(1)
        return total

    return loss


def one_hot(maps: Tensor, members: Sequence[Sequence[int]], *, exclusive: bool) -> Tensor:
    """(B, K (+ 1), *spatial) float32; the first channel is the background where classes exclude each other."""
    planes = [torch.isin(maps, torch.tensor(own, dtype=maps.dtype, device=maps.device)) for own in members]
    if exclusive:
        planes.insert(0, maps == 0)
    return torch.stack(planes, 1).float()


def shrunk(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, *spatial) at a coarser size, by nearest neighbour."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return functional.interpolate(maps[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        maps.dtype
    )


def _entropy(logits: Tensor, truth: Tensor, exclusive: bool) -> Tensor:
    """Cross-entropy of each voxel, (B, 1 or K, *spatial)."""
    if exclusive:
        return functional.cross_entropy(logits, truth, reduction="none")[:, None]
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def _focal(logits: Tensor, truth: Tensor, exclusive: bool) -> Tensor:
    """Focal loss of each voxel and output."""
    from monai.losses.focal_loss import FocalLoss

    found: Tensor = FocalLoss(gamma=_GAMMA, use_softmax=exclusive, reduction="none")(logits, truth)
    return found


@cache
def _parts(name: str) -> tuple[Callable[..., Tensor], ...]:
    """The first for whole classes, further ones for each voxel."""
    from monai.losses.dice import DiceLoss
    from monai.losses.tversky import TverskyLoss

    # Over the whole batch, so that a patch without a class does not count as a total miss.
    if name == "tversky":
        weighed = TverskyLoss(
            include_background=True, batch=True, alpha=_FALSE_POSITIVES, beta=_FALSE_NEGATIVES
        )
        return (weighed,)
    return DiceLoss(include_background=True, batch=True), _entropy if name == "dice_ce" else _focal
