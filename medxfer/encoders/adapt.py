"""Make pretrained weights fit other images, exactly: other channels, 2D kernels in a 3D network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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
