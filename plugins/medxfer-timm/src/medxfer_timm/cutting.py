"""Cut a timm network into a chain of stages, where its own list of features says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

# What stages give: maps, maps with channels last, or tokens, `(B, prefix + rows * columns, channels)`.
Layout = Literal["NCHW", "NHWC", "tokens"]

# Modules after which stages end, where `feature_info` names places inside a block whose input goes round it.
_ENDS = {"legacy_xception": ("act2", "block1", "block2", "block11", "act4")}
_GROUPS = 4  # of blocks in networks of one resolution, such as ViT
_TAIL = ("norm", "norm_pre")  # after the last block, without a change of shape


class NotAChain(ValueError):
    """The network cannot be cut; the text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A network in stages, each ending where timm takes a feature map."""

    stages: list[list[nn.Module]]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    layout: Layout = "NCHW"

    @property
    def ends(self) -> list[nn.Module]:
        """The last module of each stage."""
        return [stage[-1] for stage in self.stages]


class Embedding(nn.Module):
    """The beginning of a vision transformer, from image to tokens: all of it but its blocks and what follows.

    Args:
        network: A timm `VisionTransformer` that takes any size; what follows the tokens is taken out of it.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        for name in ("norm", "fc_norm", "head_drop", "head", "head_dist", "attn_pool"):
            if isinstance(getattr(network, name, None), nn.Module):
                setattr(network, name, nn.Identity())
        network.blocks = nn.Sequential()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, prefix + patches, width)`."""
        network: Any = self.network
        tokens: Tensor = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(x))))
        return tokens


def cut(network: Any, name: str) -> Cut:
    """Stages of a network; those of a vision transformer want an `Embedding` before the first.

    Raises:
        NotAChain: A stage would end inside something that is not run in order, or timm tells no features.
    """
    if hasattr(network, "_pos_embed") and isinstance(getattr(network, "blocks", None), nn.Sequential):
        return _cut_tokens(network)
    features = list(getattr(network, "feature_info", None) or ())
    if not features:
        raise NotAChain("timm tells no feature maps of it")
    if len({info["reduction"] for info in features}) == 1:
        features = [features[stop - 1] for _, stop in _groups(len(features))]
    ends = _ENDS.get(name) or tuple(info["module"] for info in features)
    pieces = _opened(network, "", ends)
    places = [place for place, (piece, _) in enumerate(pieces) if piece in ends]
    if [pieces[place][0] for place in places] != list(ends):
        raise NotAChain(f"its features {', '.join(ends)} are not its children in order")
    after = places[-1] + 1
    while after < len(pieces) and pieces[after][0] in _TAIL:
        after += 1
    bounds = [0, *(place + 1 for place in places[:-1]), after]
    stages = [[module for _, module in pieces[start:stop]] for start, stop in pairwise(bounds)]
    channels, strides = [f["num_chs"] for f in features], [f["reduction"] for f in features]
    if not any(True for module in stages[-1] for _ in module.parameters()):  # a last pooling layer, say
        del stages[-1], channels[-1], strides[-1]
    return Cut(
        stages=stages,
        channels=tuple(channels),
        strides=tuple(strides),
        layout="NHWC" if getattr(network, "output_fmt", "") == "NHWC" else "NCHW",
    )


def _cut_tokens(network: Any) -> Cut:
    """Groups of a vision transformer's blocks, its last normalisation with the last of them."""
    blocks = list(network.blocks)
    stages: list[list[nn.Module]] = [blocks[start:stop] for start, stop in _groups(len(blocks))]
    stages[-1].append(network.norm)
    rows, columns = network.patch_embed.patch_size
    if rows != columns:
        raise NotAChain(f"patches of {rows} by {columns}")
    count = len(stages)
    return Cut(stages=stages, channels=(network.embed_dim,) * count, strides=(rows,) * count, layout="tokens")


def _groups(depth: int) -> list[tuple[int, int]]:
    """Beginning and end of up to four groups of as many blocks."""
    count = min(_GROUPS, depth)
    return list(pairwise(depth * i // count for i in range(count + 1)))


def pad(network: Any, name: str) -> None:
    """Zero padding where Inception-v3 and Xception have none, so that maps lie on the image's grid.

    As published Inception wants 75 pixels and both lose a border; weights fit either way.
    """
    if name == "inception_v3":
        _pad_inception(network)
    elif name == "legacy_xception":
        network.conv1.padding = network.conv2.padding = (1, 1)


def _pad_inception(network: Any) -> None:
    for child in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3"):
        getattr(network, child).conv.padding = (1, 1)
    for child in ("Pool1", "Pool2"):
        getattr(network, child).padding = 1
    for child in (
        "Mixed_6a",
        "Mixed_7a",
    ):  # branches with stride 2 and a pooling function, none of them padded
        setattr(network, child, nn.Sequential(nn.ZeroPad2d(1), getattr(network, child)))


def states_at(network: Any, ends: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """What timm's own forward gives at the end of each stage."""
    found: dict[int, Tensor] = {}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        found[id(module)] = output.clone()  # a later activation may work in place

    hooks = [module.register_forward_hook(keep) for module in ends]
    try:
        with torch.no_grad():
            network.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[id(module)] for module in ends if id(module) in found]


def _opened(module: nn.Module, prefix: str, ends: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Children in order with their names, those in which a stage ends replaced by their own."""
    pieces: list[tuple[str, nn.Module]] = []
    for child, inner in module._modules.items():
        name = prefix + child
        if inner is None:
            continue
        if not any(end.startswith(f"{name}.") for end in ends):
            pieces.append((name, inner))
        elif isinstance(inner, nn.Sequential | nn.ModuleList):
            pieces += _opened(inner, f"{name}.", ends)
        else:
            raise NotAChain(f"a feature is taken inside {name}, a {type(inner).__name__}")
    return pieces
