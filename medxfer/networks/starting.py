"""A trained network as the start of another: encoder and head, with another number of classes if need be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from .network import Network

_LEAST = 0.95  # share of the encoder's parameters that must come from the other network


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Where a network's tensors came from.

    Attributes:
        source: The run or bundle.
        loaded: Names of tensors taken as they are.
        fresh: Name -> why it begins at random.
        unused: Names of the other network's tensors without a place here.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: Mapping[str, str]
    unused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for receipt.json."""
        return {
            "source": self.source,
            "loaded": list(self.loaded),
            "fresh": dict(self.fresh),
            "unused": list(self.unused),
        }

    def table(self) -> str:
        """A few lines for people."""
        of_encoder = sum(name.startswith("encoder.") for name in self.loaded)
        parts = f"{of_encoder} of the encoder, {len(self.loaded) - of_encoder} of the head"
        lines = [f"start from {self.source}: {len(self.loaded)} tensors loaded ({parts})"]
        if self.fresh and not any(name.startswith("head.") for name in self.loaded):
            lines.append(
                "  no tensor of the head fits: it begins at random; use the decoder's arguments of that run to keep it"
            )
        else:
            lines += [f"  begins at random: {name} ({why})" for name, why in self.fresh.items()]
        if self.unused:
            lines.append(f"  unused: {len(self.unused)} tensors of that network")
        return "\n".join(lines)


def start_from(network: Network, other: Network, source: str) -> Started:
    """Copy every tensor that has the same name and shape in both.

    What depends on the number of classes keeps its random start, and so does what the other network lacks.

    Args:
        network: Changed in place.
        other: A trained one.
        source: What it is called.

    Raises:
        WeightsError: Its encoder is another one.
    """
    own, given = network.state_dict(), other.state_dict()
    loaded = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
    fresh = {name: _why(name, own, given) for name in own if name not in loaded}
    parameters = {name: p.numel() for name, p in network.encoder.named_parameters()}
    covered = sum(size for name, size in parameters.items() if f"encoder.{name}" in loaded)
    share = covered / max(1, sum(parameters.values()))
    if share < _LEAST:
        seen = f"{share:.0%} of the encoder's parameters have a counterpart of the same shape there"
        todo = "use the encoder, options and in_channels of that run (its config.yaml), or remove `start`"
        raise WeightsError(source, seen, f"at least {_LEAST:.0%}", todo)
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(given[name])
    unused = tuple(name for name in given if name not in loaded)
    return Started(source=source, loaded=tuple(loaded), fresh=fresh, unused=unused)


def _why(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    if name not in given:
        return "not in that network"
    return f"shape {tuple(own[name].shape)}, there {tuple(given[name].shape)}"
