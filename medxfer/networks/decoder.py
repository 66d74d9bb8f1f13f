"""From an encoder's maps to logits of every voxel: a U-Net decoder built from channels and strides alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = (
    8  # of GroupNorm (Wu and He 2018): works with one case a batch and one voxel a map, as others do not
)
_LINEAR = {2: "bilinear", 3: "trilinear"}


class Decoder(nn.Module):
    """Upsample step by step, at most two-fold along each axis, and join the encoder's map where it has one.

    After Ronneberger et al. 2015. Nothing is assumed of the encoder but `channels` and `strides`: a first stride of 1,
    2 or 4, strides that differ by axis, and stages of equal stride (transformers) all work. The image itself is the
    skip at full resolution.

    Args:
        channels: Per stage of the encoder.
        strides: Cumulative, per stage and axis.
        in_channels: Of the images.
        outputs: Logits a voxel.
        width: Channels at full resolution; each halving of the resolution doubles them, up to 8 times.
        attention: Gate the skips by what is below (Oktay et al. 2018).
        deep_supervision: While training, give logits at each of the encoder's finer strides too, coarsest last.
        dropout: Of whole channels before the last convolution.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        in_channels: int,
        outputs: int,
        *,
        width: int = 16,
        attention: bool = False,
        deep_supervision: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dims = len(strides[0])
        self._dims = dims
        self._levels = levels_of(strides)
        self.deep_supervision = deep_supervision
        skips = {(1,) * dims: in_channels}
        for stride, count in zip(strides, channels, strict=True):
            skips[tuple(stride)] = skips.get(tuple(stride), 0) + count
        self._stages = [
            [index for index, stride in enumerate(strides) if tuple(stride) == level]
            for level in self._levels
        ]
        widths = [_width(level, width) for level in self._levels]
        self.narrowed = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.outputs = nn.ModuleList()
        before = 0
        for level, own in zip(self._levels, widths, strict=True):
            skip = min(skips.get(level, 0), own)
            # Wide maps are narrowed first: 3 x 3 x 3 kernels on 2048 channels would outweigh the encoder.
            self.narrowed.append(
                _conv(dims, skips[level], own, 1) if skips.get(level, 0) > own else nn.Identity()
            )
            gated = attention and skip and before
            self.gates.append(_Gate(dims, skip, before) if gated else nn.Identity())
            self.blocks.append(_Block(dims, skip + before, own))
            self.outputs.append(
                _conv(dims, own, outputs, 1)
                if level == self._levels[-1] or (deep_supervision and level in skips and before)
                else nn.Identity()
            )
            before = own
        self.dropout = (nn.Dropout2d if dims == 2 else nn.Dropout3d)(dropout)

    def reduce(self, maps: Sequence[Tensor], images: Tensor) -> list[Tensor]:
        """What can be cached of a frozen encoder: the image and its maps, as they are."""
        return [images, *maps]

    def standardise(self, features: Iterable[Sequence[Tensor]]) -> None:
        """Nothing: normalisation layers do it, so the features are not even asked for."""

    def forward(self, features: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits `(B, outputs, *spatial)` at the image's size; with deep supervision, while training, a list."""
        image, *maps = features
        x: Tensor | None = None
        seen: list[Tensor] = []
        modules = zip(self.narrowed, self.gates, self.blocks, self.outputs, strict=True)
        for level, stages, (narrow, gate, block, output) in zip(
            self._levels, self._stages, modules, strict=True
        ):
            last = level == self._levels[-1]
            found = [maps[index] for index in stages] + ([image] if last else [])
            size = found[0].shape[2:] if found else _size_at(image.shape[2:], level)
            skip = [narrow(torch.cat(found, 1))] if found else []
            below = [] if x is None else [self._upsampled(x, size)]
            if skip and below and isinstance(gate, _Gate):
                skip = [gate(skip[0], below[0])]
            x = block(torch.cat([*skip, *below], 1))
            if not isinstance(output, nn.Identity):
                seen.append(output(self.dropout(x) if last else x))
        return seen[::-1] if self.deep_supervision and self.training else seen[-1]

    def _upsampled(self, x: Tensor, size: Sequence[int]) -> Tensor:
        if tuple(x.shape[2:]) == tuple(size):
            return x
        return functional.interpolate(x, size=tuple(size), mode=_LINEAR[self._dims], align_corners=False)


def levels_of(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Strides that a decoder passes, coarsest first and full resolution last, none more than two-fold apart.

    Args:
        strides: Cumulative, per stage and axis, as an encoder's.
    """
    wanted = sorted(
        {tuple(stride) for stride in strides} | {(1,) * len(strides[0])}, key=math.prod, reverse=True
    )
    levels = [wanted[0]]
    for target in wanted[1:]:
        while any(now > 2 * goal for now, goal in zip(levels[-1], target, strict=True)):
            levels.append(tuple(max(goal, now // 2) for now, goal in zip(levels[-1], target, strict=True)))
        levels.append(target)
    return levels


def _size_at(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(1, -(-n // s)) for n, s in zip(size, stride, strict=True))


def _width(stride: Sequence[int], width: int) -> int:
    """Channels at a stride: doubled with each halving of the resolution, the mean over axes counted."""
    halvings = sum(math.log2(one) for one in stride) / len(stride)
    return max(_GROUPS, round(width * 2 ** min(halvings, 3) / _GROUPS) * _GROUPS)


def _conv(dims: int, before: int, after: int, kernel: int) -> nn.Module:
    layer = nn.Conv2d if dims == 2 else nn.Conv3d
    return layer(before, after, kernel, padding=kernel // 2)


class _Block(nn.Sequential):
    """Two convolutions, each normalised."""

    def __init__(self, dims: int, before: int, after: int) -> None:
        super().__init__(
            _conv(dims, before, after, 3),
            nn.GroupNorm(_GROUPS, after),
            nn.LeakyReLU(0.01, inplace=True),
            _conv(dims, after, after, 3),
            nn.GroupNorm(_GROUPS, after),
            nn.LeakyReLU(0.01, inplace=True),
        )


class _Gate(nn.Module):
    """Additive attention: how much of the skip is let through at each place."""

    def __init__(self, dims: int, skip: int, below: int) -> None:
        super().__init__()
        middle = max(_GROUPS, skip // 2)
        self.of_skip = _conv(dims, skip, middle, 1)
        self.of_below = _conv(dims, below, middle, 1)
        self.weight = _conv(dims, middle, 1, 1)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        """The skip `(B, C, *spatial)`, weighted."""
        gate: Tensor = self.weight(functional.relu(self.of_skip(skip) + self.of_below(below))).sigmoid()
        return skip * gate
