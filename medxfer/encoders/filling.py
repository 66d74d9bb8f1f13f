"""Put tensors into an encoder, each looked at while it is still in the processor's cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_PIECE = 1 << 17  # numbers: half a megabyte of float32


def fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> list[str]:
    """Copy `values` into the `targets` of the same names and shapes, types converted.

    A sum that is finite proves that all its numbers are; asking each one would take five times as long as
    copying them.

    Returns:
        Names of the targets that hold NaN or infinity now.
    """
    names: list[str] = []
    sums: list[Tensor] = []
    with torch.no_grad():
        for name, value in values.items():
            target = targets[name]
            if not target.is_floating_point():
                target.copy_(value)
                continue
            for one, other in _pieces(target, value):
                one.copy_(other)
                names.append(name)
                sums.append(one.sum())
        finite = torch.stack(sums).isfinite().tolist() if sums else []
    doubtful = dict.fromkeys(name for name, fine in zip(names, finite, strict=True) if not fine)
    # The sum of finite numbers may overflow: only now is each of them asked.
    return [name for name in doubtful if not bool(targets[name].isfinite().all())]


def _pieces(target: Tensor, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    if target.numel() <= _PIECE or not (target.is_contiguous() and value.is_contiguous()):
        return [(target, value)]
    return list(zip(target.view(-1).split(_PIECE), value.view(-1).split(_PIECE), strict=True))
