"""Vision transformers, 2D and 3D: own blocks with the tensor names that timm and Google's files use.

MONAI's has parameters without a gradient and one fixed grid; this one computes its grid from the image.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import PluginError
from ...plugin import Encoder, Normalise
from .tokens import feed_forward, initialise, pad_end

# Mean and deviation of a typical image in [0, 1], for random weights; pretrained ones bring their own.
_MEAN, _STD = 0.5, 0.25
_PATCH = 16
_DEPTH, _GROUPS = 12, 4
_SIZES = {2: 224, 3: 96}  # of the published 2D files; of MONAI's UNETR


class ViTEncoder(Encoder):
    """Five stages of stride 16: patches with their positions, then four groups of three blocks.

    Between stages go tokens `(B, 1 + positions, C)`, the class token first; maps leave it out. The last stage
    ends in the network's layer norm. Images that are no multiple of the patch are padded with the mean.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        width: Channels of a token.
        heads: Of the attention.
        image_size: Side in pixels or voxels whose grid the position embeddings are kept for, the size of
            pretraining; for images of another grid they are interpolated.
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, width: int, heads: int, image_size: int
    ) -> None:
        super().__init__()
        if image_size < _PATCH:
            where, known = "encoder.options.image_size", f"{_PATCH} or more"
            raise PluginError(where, str(image_size), known, "give the size of pretraining")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = (width,) * (_GROUPS + 1)
        self.strides = ((_PATCH,) * spatial_dims,) * (_GROUPS + 1)
        self.normalise = Normalise([_MEAN] * in_channels, [_STD] * in_channels)
        grid = (math.ceil(image_size / _PATCH),) * spatial_dims
        stages: list[nn.Module] = [_Embedding(in_channels, width, grid)]
        step = _DEPTH // _GROUPS
        for first in range(0, _DEPTH, step):
            # numbered through, as published
            blocks: dict[str, nn.Module] = {str(i): _Block(width, heads) for i in range(first, first + step)}
            stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(OrderedDict(blocks)))))
        stages[-1].add_module("norm", nn.LayerNorm(width, eps=1e-6))
        self.stages = nn.ModuleList(stages)
        self.stages.apply(initialise)

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        """Tokens `(B, 1 + positions, C)` as `(B, C, *ceil(size / 16))`."""
        grid = [math.ceil(length / _PATCH) for length in size]
        positions: Tensor = state[:, 1:].transpose(1, 2).unflatten(2, grid)
        return positions


class _Embedding(nn.Module):
    """Patches to tokens, the class token before them, positions added."""

    def __init__(self, in_channels: int, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        convolution = nn.Conv2d if len(grid) == 2 else nn.Conv3d
        self.grid = tuple(grid)
        self.patch_embed = nn.Sequential(
            OrderedDict(proj=convolution(in_channels, width, kernel_size=_PATCH, stride=_PATCH))
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(grid), width))
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, 1 + positions, C)` of images `(B, in_channels, *spatial)`."""
        patches = self.patch_embed(pad_end(x, (_PATCH,) * len(self.grid), first_axis=2))
        tokens = torch.cat(
            [self.cls_token.expand(patches.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1
        )
        return tokens + self._positions(tuple(patches.shape[2:]))

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        """Position embeddings `(1, 1 + positions, C)` of this grid."""
        if grid == self.grid:
            return self.pos_embed
        positions = self.pos_embed[0, 1:].unflatten(0, self.grid)
        mode = "bicubic" if len(grid) == 2 else "bilinear"
        kind = positions.device.type
        # autocast would round the products, and knows no meta device
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            for axis, (length, wanted) in enumerate(zip(self.grid, grid, strict=True)):
                # Axis by axis as a product: interpolate's own gradient is not reproducible on a GPU.
                matrix = _resizing(length, wanted, mode, positions)
                positions = torch.tensordot(matrix, positions, dims=([1], [axis])).movedim(0, axis)
        return torch.cat([self.pos_embed[:, :1], positions.flatten(0, -2)[None]], dim=1)


def _resizing(length: int, wanted: int, mode: str, like: Tensor) -> Tensor:
    """The matrix `(wanted, length)` that interpolates one axis, smoothed where it shrinks (as timm does)."""
    identity = torch.eye(length, device=like.device)[None, None]  # fp32: no interpolation in half precision
    resized = functional.interpolate(identity, size=(wanted, length), mode=mode, antialias=True)
    return resized[0, 0].to(like.dtype)


class _Block(nn.Module):
    """Attention and two layers, each behind a layer norm and beside a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = feed_forward(width, ("fc1", "fc2"))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` to the same."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class _Attention(nn.Module):
    """Every token looks at every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` to the same."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return y


def _build(spatial_dims: int, in_channels: int, width: int, heads: int, image_size: int | None) -> Encoder:
    size = _SIZES[spatial_dims] if image_size is None else image_size
    return ViTEncoder(
        spatial_dims=spatial_dims, in_channels=in_channels, width=width, heads=heads, image_size=size
    )


def build_vit_tiny(*, spatial_dims: int, in_channels: int, image_size: int | None = None) -> Encoder:
    """ViT-Ti/16 (Touvron et al. 2021); `image_size` is that of pretraining, by default 224 in 2D, 96 in 3D."""
    return _build(spatial_dims, in_channels, 192, 3, image_size)


def build_vit_small(*, spatial_dims: int, in_channels: int, image_size: int | None = None) -> Encoder:
    """ViT-S/16 (Touvron et al. 2021); `image_size` as in `build_vit_tiny`."""
    return _build(spatial_dims, in_channels, 384, 6, image_size)


def build_vit_base(*, spatial_dims: int, in_channels: int, image_size: int | None = None) -> Encoder:
    """ViT-B/16 (Dosovitskiy et al. 2021); `image_size` as in `build_vit_tiny`."""
    return _build(spatial_dims, in_channels, 768, 12, image_size)
