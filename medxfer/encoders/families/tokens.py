"""What the token networks share: padding to whole patches or windows, and the two layers after attention."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def pad_end(x: Tensor, multiples: Sequence[int], *, first_axis: int) -> Tensor:
    """Append zeros until the axes from `first_axis` on are multiples of `multiples`; others stay as they are."""
    lengths = x.shape[first_axis : first_axis + len(multiples)]
    missing = [-length % multiple for length, multiple in zip(lengths, multiples, strict=True)]
    if not any(missing):
        return x
    behind = x.ndim - first_axis - len(multiples)
    # functional.pad counts from the last axis
    return functional.pad(x, [0, 0] * behind + [side for count in reversed(missing) for side in (0, count)])


def feed_forward(width: int, names: tuple[str, str]) -> nn.Sequential:
    """Linear, GELU, linear, four times as wide between; `names` are the publisher's for the two layers."""
    first, second = names
    layers = {first: nn.Linear(width, 4 * width), "act": nn.GELU(), second: nn.Linear(4 * width, width)}
    return nn.Sequential(OrderedDict(layers))


def initialise(module: nn.Module) -> None:
    """As the papers do: linear weights from a narrow normal distribution, biases zero; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
