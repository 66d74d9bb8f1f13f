"""The encoder of SwinUNETR, 2D and 3D: own blocks with the tensor names and numbers of MONAI's.

MONAI's cannot be built on the `meta` device.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...cards import nearest
from ...errors import PluginError
from ...plugin import Encoder, Normalise
from .tokens import feed_forward, initialise, pad_end

# Mean and deviation of a typical image in [0, 1], for random weights; pretrained ones bring their own.
_MEAN, _STD = 0.5, 0.25
_PATCH = 2
_DEPTH = 2  # blocks in each of the four layers; the second one's windows are shifted
_HEADS = (3, 6, 12, 24)
_MASKED = -100.0  # added where two positions of a window are no neighbours in the image

# Which corner of each 2 x 2 x 2 cell goes where in the merged token. MONAI's first version took two corners twice
# and left two out; the published self-supervised weights were trained with it. MONAI 1.6 mended `merging` under
# its old name, so that a checkpoint does not tell which it needs. In 2D there was only ever one.
_CORNERS_2D = ("00", "10", "01", "11")
_CORNERS_3D: Mapping[str, tuple[str, ...]] = {
    "published": ("000", "100", "010", "001", "101", "010", "001", "111"),
    "merging": ("000", "100", "010", "001", "110", "101", "011", "111"),
    "mergingv2": ("000", "001", "010", "011", "100", "101", "110", "111"),
}


class SwinEncoder(Encoder):
    """Five stages: patches of 2, then four layers of windowed attention that each halve the grid.

    Between stages go grids of tokens `(B, *grid, C)`; maps are these after a layer norm without parameters, as
    MONAI hands them to its decoder. Grids are padded at their ends, so every image size will do.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the first convolution.
        feature_size: Channels of the first stage, a multiple of 12; doubled by each layer.
        window: Side of the attention windows, in tokens.
        merging: How 3D cells become one token: `published` as MONAI up to 1.5, and its self-supervised weights;
            `merging` as MONAI 1.6 by default, `mergingv2` as its second version.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        feature_size: int = 48,
        window: int = 7,
        merging: str = "published",
    ) -> None:
        super().__init__()
        if feature_size < 12 or feature_size % 12:
            where, todo = "encoder.options.feature_size", "24 and 48 are usual; published weights have 48"
            raise PluginError(where, str(feature_size), "a multiple of 12", todo)
        if window < 2:
            raise PluginError("encoder.options.window", str(window), "2 or more", "7 is usual")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = tuple(feature_size << i for i in range(len(_HEADS) + 1))
        self.strides = tuple((_PATCH << i,) * spatial_dims for i in range(len(_HEADS) + 1))
        self.normalise = Normalise([_MEAN] * in_channels, [_STD] * in_channels)
        corners = _corners(merging, spatial_dims)
        windows = (window,) * spatial_dims
        stages: list[nn.Module] = [_Patches(spatial_dims, in_channels, feature_size)]
        for width, heads in zip(self.channels, _HEADS, strict=False):
            blocks = (_Block(width, heads, windows, shifted=bool(i % 2)) for i in range(_DEPTH))
            layer: dict[str, nn.Module] = {"blocks": nn.Sequential(*blocks)}
            layer["downsample"] = _Merging(width, corners)
            stages.append(nn.Sequential(OrderedDict(layer)))
        self.stages = nn.ModuleList(stages)
        self.stages.apply(initialise)

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        """Tokens `(B, *grid, C)` as `(B, C, *grid)`, each token normalised."""
        return functional.layer_norm(state, state.shape[-1:]).movedim(-1, 1)


def _corners(merging: str, spatial_dims: int) -> tuple[tuple[int, ...], ...]:
    """The corners of a cell in the order in which they are merged."""
    if merging not in _CORNERS_3D:
        known = ", ".join(_CORNERS_3D)
        raise PluginError("encoder.options.merging", str(merging), known, nearest(str(merging), _CORNERS_3D))
    chosen = _CORNERS_2D if spatial_dims == 2 else _CORNERS_3D[merging]
    return tuple(tuple(int(place) for place in corner) for corner in chosen)


class _Patches(nn.Module):
    """Patches to tokens."""

    def __init__(self, spatial_dims: int, in_channels: int, width: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.patch_embed = nn.Sequential(
            OrderedDict(proj=convolution(in_channels, width, kernel_size=_PATCH, stride=_PATCH))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, *spatial)` to `(B, *grid, C)`."""
        patches: Tensor = self.patch_embed(pad_end(x, (_PATCH,) * (x.ndim - 2), first_axis=2))
        return patches.movedim(1, -1)


class _Merging(nn.Module):
    """Each cell of 2 x 2 (x 2) tokens becomes one, twice as wide."""

    def __init__(self, width: int, corners: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.corners = tuple(corners)
        self.norm = nn.LayerNorm(len(corners) * width)
        self.reduction = nn.Linear(len(corners) * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, *grid, C)` to `(B, *ceil(grid / 2), 2 C)`."""
        x = pad_end(x, (2,) * (x.ndim - 2), first_axis=1)
        parts = [x[(slice(None), *(slice(first, None, 2) for first in corner))] for corner in self.corners]
        merged: Tensor = self.reduction(self.norm(torch.cat(parts, dim=-1)))
        return merged


class _Block(nn.Module):
    """Attention inside windows and two layers, each behind a layer norm and beside a shortcut (Liu et al. 2021)."""

    def __init__(self, width: int, heads: int, window: tuple[int, ...], *, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shift = tuple(side // 2 if shifted else 0 for side in window)
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = feed_forward(width, ("linear1", "linear2"))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, *grid, C)` to the same."""
        x = x + self._attended(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def _attended(self, x: Tensor) -> Tensor:
        """Pad to whole windows, shift, attend, and undo both."""
        grid = tuple(x.shape[1:-1])
        axes = tuple(range(1, len(grid) + 1))
        # an axis no longer than a window is one window, unshifted
        window = tuple(min(pair) for pair in zip(grid, self.window, strict=True))
        shift = tuple(
            s if length > side else 0 for length, side, s in zip(grid, self.window, self.shift, strict=True)
        )
        x = pad_end(x, window, first_axis=1)
        padded = tuple(x.shape[1:-1])
        shifted = any(shift)
        mask = _neighbours(padded, window, shift, x) if shifted else None
        if shifted:
            x = torch.roll(x, tuple(-s for s in shift), axes)
        x = _joined(self.attn(_windows(x, window), mask), padded, window)
        if shifted:
            x = torch.roll(x, shift, axes)
        return x[(slice(None), *(slice(length) for length in grid))]


class _WindowAttention(nn.Module):
    """Every token of a window looks at every other, with a learnt bias by their relative position."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = heads
        count = math.prod(2 * side - 1 for side in window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(count, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B * windows, N, C)` to the same; `mask` is `(windows, N, N)`."""
        count = x.shape[1]
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        # A smaller window takes the first rows and columns: not its own geometry, but what MONAI trained with.
        index = self.relative_position_index[:count, :count]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None]
        if mask is not None:
            each = bias + mask[:, None]  # (windows, heads, N, N), the same for every image of the batch
            batch = x.shape[0] // mask.shape[0]
            bias = each[None].expand(batch, -1, -1, -1, -1).flatten(0, 1)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        # Not transposed and flattened: with a bias, ONNX export finds other strides there and refuses the view.
        y: Tensor = self.proj(torch.cat(seen.unbind(1), dim=-1))
        return y


def _relative_positions(window: tuple[int, ...]) -> Tensor:
    """For each pair of a window's tokens, which entry of the bias table is theirs, `(N, N)`."""
    places = torch.meshgrid(*(torch.arange(side) for side in window), indexing="ij")
    index = torch.zeros((), dtype=torch.int64)
    for place, side in zip(places, window, strict=True):
        one = place.flatten()
        index = index * (2 * side - 1) + one[:, None] - one[None, :] + (side - 1)
    return index


def _windows(x: Tensor, window: tuple[int, ...]) -> Tensor:
    """`(B, *grid, C)` to `(B * windows, N, C)`."""
    dims = len(window)
    for axis in range(dims):  # each axis into windows and places: (B, n1, w1, n2, w2, ..., C)
        x = x.unflatten(1 + 2 * axis, (x.shape[1 + 2 * axis] // window[axis], window[axis]))
    x = x.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    return x.flatten(dims + 1, 2 * dims).flatten(0, dims)


def _joined(x: Tensor, grid: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """`(B * windows, N, C)` back to `(B, *grid, C)`."""
    dims = len(window)
    counts = tuple(length // side for length, side in zip(grid, window, strict=True))
    x = x.reshape(x.shape[0] // math.prod(counts), *counts, *window, x.shape[-1])
    order = [
        axis for pair in zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True) for axis in pair
    ]
    return x.permute(0, *order, 2 * dims + 1).reshape(-1, *grid, x.shape[-1])


def _neighbours(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], like: Tensor
) -> Tensor:
    """After a shift, which tokens of a window lay apart in the image: `(windows, N, N)`, 0 or -100."""
    region = torch.zeros((1,) * len(grid), device=like.device, dtype=torch.int64)
    for axis, (length, side, moved) in enumerate(zip(grid, window, shift, strict=True)):
        place = torch.arange(length, device=like.device)
        part = (place >= length - side).long() + (place >= length - moved).long() if moved else place * 0
        region = region * 3 + part.view([-1 if other == axis else 1 for other in range(len(grid))])
    regions = _windows(region[None, ..., None], window).squeeze(-1)
    apart = regions[:, None, :] != regions[:, :, None]
    return torch.zeros(apart.shape, device=like.device).masked_fill(apart, _MASKED)


def build_swin(
    *,
    spatial_dims: int,
    in_channels: int,
    feature_size: int = 48,
    window: int = 7,
    merging: str = "published",
) -> Encoder:
    """Swin UNETR's encoder (Tang et al. 2022); the options are those of `SwinEncoder`."""
    return SwinEncoder(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        feature_size=feature_size,
        window=window,
        merging=merging,
    )
