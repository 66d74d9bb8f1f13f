"""Which parameters a phase trains, and at which rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..bundle.schema import PhaseSpec
from ..errors import ConfigError
from .network import Network

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def prepare_phase(network: Network, phase: PhaseSpec) -> list[dict[str, Any]]:
    """Freeze what the phase does not train and give the rest its rate.

    The rate of stage i of n is `lr * layer_decay ** (n - i)`; the head has `lr`. Biases and normalisation
    have no weight decay.

    Returns:
        Parameter groups for an optimiser, with `lr` and `weight_decay`.

    Raises:
        ConfigError: `last_k` with more stages than there are.
    """
    stages = list(network.encoder.stages)
    if phase.train == "last_k" and not 1 <= phase.k <= len(stages):
        accepted = f"1 to {len(stages)}, the stages of this encoder"
        raise ConfigError(
            f"phases, {phase.name}: k", str(phase.k), accepted, f"set k to at most {len(stages)}"
        )
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    for index, stage in enumerate(stages):
        for parameter in _trained_of(stage, phase, index, len(stages)):
            parameter.requires_grad_(True)
    network.frozen = frozenset(
        index for index, stage in enumerate(stages) if not any(p.requires_grad for p in stage.parameters())
    )
    network.keeps_statistics = phase.statistics == "keep"
    groups = list(_groups(network.head, phase.lr, phase.weight_decay or 0.0))
    for index, stage in enumerate(stages):
        rate = phase.lr * phase.layer_decay ** (len(stages) - index)
        groups += _groups(stage, rate, phase.weight_decay or 0.0)
    return groups


def _trained_of(stage: nn.Module, phase: PhaseSpec, index: int, count: int) -> Iterator[nn.Parameter]:
    if phase.train == "all" or (phase.train == "last_k" and index >= count - phase.k):
        yield from stage.parameters()
    elif phase.train == "norm":
        for module in stage.modules():
            if isinstance(module, NORMS):
                yield from module.parameters(recurse=False)
    elif phase.train == "bias":
        for name, parameter in stage.named_parameters():
            if name.rpartition(".")[2] == "bias":
                yield parameter


def _groups(module: nn.Module, rate: float, decay: float) -> Iterator[dict[str, Any]]:
    """Up to two groups: matrices with decay, vectors without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    if matrices:
        yield {"params": matrices, "lr": rate, "weight_decay": decay}
    if vectors:
        yield {"params": vectors, "lr": rate, "weight_decay": 0.0}
