"""What makes a module an encoder: the attributes of the contract, and maps as they are claimed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import PluginError
from ..plugin import Encoder

_PARTS = ("spatial_dims", "in_channels", "channels", "strides", "stages", "normalise")


def attribute_fault(encoder: Encoder, spatial_dims: int, in_channels: int) -> str | None:
    """The first part of the contract that is missing, of a wrong type or of a wrong length.

    Args:
        encoder: As its build function gave it.
        spatial_dims: What it was built with.
        in_channels: What it was built with.

    Returns:
        What is wrong and the remedy in one sentence; None where nothing is.
    """
    for name in _PARTS:
        if not hasattr(encoder, name):
            return f"`{name}` is missing: set it in __init__"
    for name, wanted in (("spatial_dims", spatial_dims), ("in_channels", in_channels)):
        if getattr(encoder, name) != wanted:
            return f"`{name}` is {getattr(encoder, name)}, built with {wanted}"
    stages: object = encoder.stages
    if not isinstance(stages, nn.ModuleList):
        return f"`stages` is a {type(stages).__name__}: make it an nn.ModuleList"
    if not len(stages):
        return "`stages` is empty: one stage at least"
    for name in ("channels", "strides"):
        values: object = getattr(encoder, name)
        if not isinstance(values, tuple | list):
            return f"`{name}` is a {type(values).__name__}: make it a tuple, one entry per stage"
        if len(values) != len(stages):
            return f"`{name}` has {len(values)} entries, `stages` {len(stages)}: one per stage"
    for index, channels in enumerate(encoder.channels):
        if not _is_count(channels):
            return f"channels[{index}] is {channels!r}: a whole number above 0"
    for index, stride in enumerate(encoder.strides):
        if not isinstance(stride, tuple) or len(stride) != spatial_dims or not all(map(_is_count, stride)):
            return f"strides[{index}] is {stride!r}: a tuple of {spatial_dims}, one per axis, cumulative"
    normalise: object = encoder.normalise
    if not isinstance(normalise, nn.Module):
        return f"`normalise` is a {type(normalise).__name__}: make it a medxfer.plugin.Normalise"
    return None


def require_claimed(encoder: Encoder, maps: Sequence[Tensor]) -> None:
    """Refuse maps that are not what the encoder says of them: heads are built on `channels`.

    Raises:
        PluginError: Another number of maps, axes or channels.
    """
    # Numbers are tensors while TorchScript is traced, and an eager call has been here before.
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # torch's types leave it out
        return
    seen = ""
    if len(maps) != len(encoder.channels):
        seen = f"it gives {len(maps)} maps, `channels` has {len(encoder.channels)} entries"
    for index, (found, channels) in enumerate(zip(maps, encoder.channels, strict=False)):
        if seen:
            break
        if found.ndim != encoder.spatial_dims + 2:
            seen = f"stage {index} gives {found.ndim} axes, not {encoder.spatial_dims + 2}"
        elif found.shape[1] != channels:
            seen = f"stage {index} gives {found.shape[1]} channels, `channels` says {channels}"
    if seen:
        kind = type(encoder)
        where = f"encoder {kind.__module__}.{kind.__qualname__}"
        accepted = "one map a stage, (B, channels[i], *spatial)"
        raise PluginError(where, seen, accepted, "`medxfer plugin check` tells the rest; tell its authors")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
