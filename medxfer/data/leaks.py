"""Images that occur twice: the same voxels, or nearly the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dctn
from torch.nn import functional

from .cache import Arrays
from .splitting.grouping import joined_groups

HASH_BITS = 4  # of 64, by which near duplicates may differ
CORRELATION = 0.98  # of the small pictures, that near duplicates must reach
SIDE = {2: 32, 3: 16}  # of a small picture or volume
BACKGROUND = 0.01  # above the darkest value, of 1
LOW = {2: 8, 3: 4}  # lowest frequencies an axis: 64 in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Groups of rows of the arrays; each group has two or more."""

    exact: tuple[tuple[int, ...], ...] = ()
    # Joined by near or exact equality, without the purely exact ones.
    near: tuple[tuple[int, ...], ...] = ()


def find_duplicates(arrays: Arrays) -> Duplicates:
    """Find images that were stored twice, by their preprocessed voxels.

    Exact: the same voxels, whatever the files' bytes. Near: a 64-bit hash of the low frequencies (DCT of a 32 x 32
    picture, or of a 16 x 16 x 16 volume, against its median, as in pHash, Zauner 2010) differs in at most 4 bits and
    the small pictures correlate by 0.98 or more. The hash alone calls many chest films of different people equal; the
    correlation alone is slow. Where most of both is background (the darkest value), the rest must correlate as well:
    black around it makes any two small things alike. Images of one value (empty slices) are duplicates of nothing.
    """
    small = _small_images(arrays)
    varied = small.reshape(len(small), -1).std(1) > 1e-7
    by_content: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(varied).tolist():
        content = np.ascontiguousarray(arrays.images[row])
        by_content[hashlib.sha256(content.data).hexdigest()].append(row)
    exact = tuple(tuple(rows) for rows in by_content.values() if len(rows) > 1)
    pairs = _near_pairs(small)
    joined = [group for group in joined_groups(len(small), [*exact, *pairs]) if len(group) > 1]
    known = {frozenset(group) for group in exact}
    return Duplicates(exact=exact, near=tuple(group for group in joined if frozenset(group) not in known))


def _small_images(arrays: Arrays) -> np.ndarray:
    """(N, 32, 32), or (N, 16, 16, 16) of volumes: float32, the mean of the channels."""
    dims = arrays.images.ndim - 2
    pool = functional.adaptive_avg_pool2d if dims == 2 else functional.adaptive_avg_pool3d
    at_once = 1 if arrays.is_ragged else max(1, 16_000_000 // arrays.images[0].size)
    parts = []
    for begin in range(0, len(arrays.cases), at_once):
        batch = arrays.batch(range(begin, min(begin + at_once, len(arrays.cases)))).mean(1, keepdim=True)
        parts.append(pool(batch, SIDE[dims])[:, 0])
    return torch.cat(parts).numpy()


def _near_pairs(small: np.ndarray) -> list[tuple[int, int]]:
    """Pairs within the limits, compared a thousand rows at a time."""
    dims = small.ndim - 1
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    varied = length[:, 0] > 1e-6  # constant pictures correlate with nothing
    flat /= np.maximum(length, 1e-6)
    frequencies = dctn(small, axes=tuple(range(1, dims + 1)), norm="ortho")
    low = frequencies[(slice(None), *(slice(LOW[dims]),) * dims)].reshape(len(small), -1)
    signs = np.where(low > np.median(low, axis=1, keepdims=True), 1.0, -1.0).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for begin in range(0, len(small), 1024):
        rows = slice(begin, begin + 1024)
        # 64 bits as signs: a product of 64 - 2 d for d differing bits.
        close = signs[rows] @ signs.T >= 64 - 2 * HASH_BITS
        first, second = np.nonzero(close)
        first += begin
        keep = (first < second) & varied[first] & varied[second]
        first, second = first[keep], second[keep]
        alike = np.einsum("ij,ij->i", flat[first], flat[second]) >= CORRELATION
        pairs += [
            (int(a), int(b))
            for a, b in zip(first[alike], second[alike], strict=True)
            if _alike_in_front(small[a], small[b])
        ]
    return pairs


def _alike_in_front(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether what is not background correlates too; true where less than half is background."""
    front = (one > one.min() + BACKGROUND) | (two > two.min() + BACKGROUND)
    if 2 * front.sum() >= front.size:
        return True
    a, b = one[front] - one[front].mean(), two[front] - two[front].mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return length > 0 and float(a @ b) / length >= CORRELATION
