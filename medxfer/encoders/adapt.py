"""Make pretrained weights fit other images: other channels, 2D kernels in a 3D network, other grids of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..plugin import Encoder


class ExpandChannels(nn.Module):
    """Repeat image channels in turn until a pretrained network has as many as it wants: 1 -> 3 copies grey.

    Args:
        channels: Of the image.
        wanted: By the network; not fewer.
    """

    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.channels, self.wanted = channels, wanted

    def forward(self, x: Tensor) -> Tensor:
        """`(B, channels, *spatial)` to `(B, wanted, *spatial)`."""
        if self.channels == 1:
            return x.expand(-1, self.wanted, *([-1] * (x.ndim - 2)))
        return torch.cat([x[:, i % self.channels : i % self.channels + 1] for i in range(self.wanted)], 1)

    def extra_repr(self) -> str:
        """Shown when a network is printed."""
        return f"{self.channels} -> {self.wanted}"


def place_normalise(encoder: Encoder, channels: int, normalise: nn.Module) -> None:
    """Give an encoder the constants of its weights, and let it take images of `channels` channels.

    Expand, then normalise: folding constants into the first convolution would be wrong at padded borders,
    where zero must go on meaning "mean".

    Args:
        encoder: Built with as many channels as the pretrained weights, or with more.
        channels: Of the images; not more than the encoder was built with.
        normalise: For as many channels as the encoder was built with.
    """
    wanted = encoder.in_channels
    encoder.normalise = (
        nn.Sequential(ExpandChannels(channels, wanted), normalise) if channels < wanted else normalise
    )
    encoder.in_channels = channels


def cycled(values: Sequence[float], count: int) -> tuple[float, ...]:
    """The values in turn, `count` of them."""
    return tuple(values[i % len(values)] for i in range(count))


def spread_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for more channels than it was trained on.

    Image channel i takes the place of pretrained channel i mod n, shared among all that take it: an image
    whose channels repeat the pretrained ones in turn gives the response it had.

    Args:
        weight: `(out, n, *kernel)`.
        channels: Of the images; more than n.

    Returns:
        `(out, channels, *kernel)`.
    """
    trained = weight.shape[1]
    source = torch.arange(channels) % trained
    shares = torch.bincount(source, minlength=trained)[source].to(weight.dtype)
    return weight[:, source] / shares.view(1, -1, *([1] * (weight.ndim - 2)))


def inflate_centre(weight: Tensor, depth: int) -> Tensor:
    """A 2D kernel as the middle slice of a 3D one, zeros elsewhere.

    On a volume that does not change along its last axis the response is that of the 2D network in every
    slice; that of a kernel spread over the depth is not (44 % off after four stages, because of the padding).

    Args:
        weight: `(out, in, rows, columns)`.
        depth: Length of the new last axis.

    Returns:
        `(out, in, rows, columns, depth)`.
    """
    inflated = weight.new_zeros(*weight.shape, depth)
    inflated[..., depth // 2] = weight
    return inflated


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """How position embeddings of one image size become those of another."""

    old: tuple[int, ...]  # positions along each axis in the file
    new: tuple[int, ...]
    old_class: bool  # a class token comes before the grid
    new_class: bool


def token_grids(old: int, new: int) -> Grids | None:
    """The grids behind two numbers of tokens, each the same length on every axis; None where there are none.

    A square can become a square or a cube, a cube only a cube; the class token may be dropped, not made up.
    """
    for old_class in (False, True):
        for new_class in (False, True)[: 1 + old_class]:
            for before, after in ((2, 2), (3, 3), (2, 3)):
                first, second = _root(old - old_class, before), _root(new - new_class, after)
                if first and second:
                    return Grids(
                        old=(first,) * before, new=(second,) * after, old_class=old_class, new_class=new_class
                    )
    return None


def _root(count: int, axes: int) -> int:
    """The side of a grid of `count` positions, 0 where it has none; one position is no grid."""
    side = round(max(count, 0) ** (1 / axes))
    return side if side > 1 and side**axes == count else 0


def resize_positions(embeddings: Tensor, grids: Grids) -> Tensor:
    """Position embeddings for another grid: bicubic in 2D, linear in 3D, smoothed where a 2D grid shrinks.

    A 2D grid in a volume is repeated along the new axis.

    Args:
        embeddings: `(1, tokens, C)`.
        grids: Of the file and of the encoder.

    Returns:
        `(1, new tokens, C)`.
    """
    positions = embeddings[:, int(grids.old_class) :]
    image = positions.float().transpose(1, 2).unflatten(2, grids.old)
    plane = grids.new[: len(grids.old)]
    if plane != grids.old:
        mode = "bicubic" if len(plane) == 2 else "trilinear"
        image = functional.interpolate(
            image, size=plane, mode=mode, align_corners=False, antialias=mode == "bicubic"
        )
    if len(grids.new) > len(grids.old):
        image = image[..., None].expand(-1, -1, -1, -1, grids.new[-1])
    resized = image.flatten(2).transpose(1, 2).to(embeddings.dtype)
    return torch.cat([embeddings[:, :1], resized], dim=1) if grids.new_class else resized
