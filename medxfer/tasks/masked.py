"""Masks: cleaned, and how many of their voxels are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.masks import IGNORED


def stacked(mask: np.ndarray, classes: int) -> np.ndarray:
    """Boolean (K, *spatial) of class numbers (*spatial), or of such a stack."""
    if mask.dtype == bool:
        return mask
    return np.stack([mask == number for number in range(1, classes + 1)])


def cleaned(mask: np.ndarray, *, keep_largest: bool, fill_holes: bool) -> np.ndarray:
    """A mask without small parts or holes, class by class, by MONAI's transforms.

    Args:
        mask: Class numbers (*spatial), or a boolean stack (K, *spatial).
        keep_largest: Keep only the largest connected part of each class, neighbours by corners included.
        fill_holes: Fill what a class encloses, after that.
    """
    if not keep_largest and not fill_holes:
        return mask
    from monai.transforms.post.array import FillHoles, KeepLargestConnectedComponent

    is_stack = mask.dtype == bool
    # each class of a stack alone: MONAI takes the first of several channels for the background
    labels = [1] if is_stack else list(range(1, int(mask.max()) + 1))
    whole = torch.from_numpy(np.ascontiguousarray(mask).astype(np.uint8))
    parts = [one[None] for one in (whole if is_stack else whole[None])]
    if keep_largest and labels:
        largest = KeepLargestConnectedComponent(applied_labels=labels, is_onehot=False)
        parts = [torch.as_tensor(largest(one)) for one in parts]
    if fill_holes and labels:
        fill = FillHoles(applied_labels=labels)
        # a hole is background: a class inside another stays
        parts = [torch.where(one == 0, torch.as_tensor(fill(one.clone())), one) for one in parts]
    x = torch.cat(parts)
    found: np.ndarray = np.asarray(x if is_stack else x[0])
    return found.astype(mask.dtype)


def dice_counts(called: Tensor, maps: Tensor, members: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Voxels called, true and both, of each class of each case.

    Args:
        called: Boolean (B, K, *spatial).
        maps: Class numbers (B, *spatial) uint8.
        members: For each output the numbers that belong to it.

    Returns:
        A (K, 3) array a case.
    """
    counts = maps != IGNORED
    found = []
    for number, own in enumerate(members):
        true = torch.isin(maps, torch.tensor(own, dtype=maps.dtype, device=maps.device))
        said = called[:, number] & counts
        found.append(torch.stack([one.flatten(1).sum(1) for one in (said, true, said & true)], 1))
    return list(torch.stack(found, 1).cpu().numpy())


def mean_of_counts(counts: Sequence[np.ndarray]) -> float:
    """Mean Dice: of each class over the cases that define it, then over classes; NaN where nothing is defined."""
    table = np.stack(list(counts)).astype(np.float64)
    whole = table[..., 0] + table[..., 1]
    with np.errstate(invalid="ignore"):
        dice = np.where(whole > 0, 2 * table[..., 2] / whole, np.nan)
    of_class = [column[~np.isnan(column)].mean() for column in dice.T if not np.isnan(column).all()]
    return float(np.mean(of_class)) if of_class else float("nan")
