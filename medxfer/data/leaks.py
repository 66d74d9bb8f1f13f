"""Pictures that occur twice: the same pixels, or nearly the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dctn
from torch.nn import functional

from .cache import Arrays
from .splits import joined_groups

HASH_BITS = 4  # of 64, by which near duplicates may differ
CORRELATION = 0.98  # of the 32 x 32 pictures, that near duplicates must reach
SIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Groups of rows of the arrays; each group has two or more."""

    exact: tuple[tuple[int, ...], ...] = ()
    # Joined by near or exact equality, without the purely exact ones.
    near: tuple[tuple[int, ...], ...] = ()


def find_duplicates(arrays: Arrays) -> Duplicates:
    """Find pictures that were stored twice, by their preprocessed pixels.

    Exact: the same pixels. Near: a 64-bit hash of the low frequencies (DCT of a 32 x 32 picture against its
    median, as in pHash, Zauner 2010) differs in at most 4 bits and the pictures correlate by 0.98 or more. The
    hash alone calls many chest films of different people equal; the correlation alone is slow.
    """
    small = _small_pictures(arrays)
    by_content: dict[str, list[int]] = defaultdict(list)
    for row in range(len(arrays.cases)):
        by_content[hashlib.sha256(np.ascontiguousarray(arrays.images[row]).tobytes()).hexdigest()].append(row)
    exact = tuple(tuple(rows) for rows in by_content.values() if len(rows) > 1)
    pairs = _near_pairs(small)
    joined = [group for group in joined_groups(len(small), [*exact, *pairs]) if len(group) > 1]
    known = {frozenset(group) for group in exact}
    return Duplicates(exact=exact, near=tuple(group for group in joined if frozenset(group) not in known))


def _small_pictures(arrays: Arrays) -> np.ndarray:
    """(N, 32, 32) float32, the mean of the channels."""
    parts = []
    for begin in range(0, len(arrays.cases), 256):
        batch = arrays.batch(range(begin, min(begin + 256, len(arrays.cases)))).mean(1, keepdim=True)
        parts.append(functional.adaptive_avg_pool2d(batch, SIDE)[:, 0])
    return torch.cat(parts).numpy()


def _near_pairs(small: np.ndarray) -> list[tuple[int, int]]:
    """Pairs within the limits, compared a thousand rows at a time."""
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    varied = length[:, 0] > 1e-6  # constant pictures correlate with nothing
    flat /= np.maximum(length, 1e-6)
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(small), -1)
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
        pairs += [(int(a), int(b)) for a, b in zip(first[alike], second[alike], strict=True)]
    return pairs
