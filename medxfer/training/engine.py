"""The loop: one epoch of training, and predictions over a set of cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..bundle.schema import PhaseSpec
from ..data.loaders import Batch
from ..errors import RunError
from ..progress import Advance
from .precision import Precision


class BatchSource(Protocol):
    """Batches of images or of cached features."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """Every case once."""


Loss = Callable[..., Tensor]


def rate_factor(step: int, steps: int, phase: PhaseSpec) -> float:
    """Share of the phase's rate at a step: a linear rise over `warmup`, then a half cosine to zero or constant."""
    rise = max(1, round((phase.warmup or 0.0) * steps))
    if step < rise:
        return (step + 1) / rise
    if phase.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def train_epoch(
    model: nn.Module,
    batches: BatchSource,
    loss_of: Loss,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
    phase: PhaseSpec,
    *,
    epoch: int,
    seed: int,
    advance: Advance,
) -> float:
    """Train on every case once.

    Args:
        model: Images, or cached features, to outputs; in the mode it is to be trained in.
        batches: Where they come from.
        loss_of: `Task.loss`.
        optimiser: Its groups carry `base_lr`.
        precision: Autocast, scaling and the step.
        phase: Every value filled in.
        epoch: From 0 within the phase.
        seed: Of this run and phase.
        advance: Called after each step.

    Returns:
        Mean loss over cases.

    Raises:
        RunError: A loss that is not finite, with the names of the batch's cases.
    """
    # Dropout has no generator argument; seeding by epoch makes a resumed epoch equal the uninterrupted one.
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
    parameters: list[Tensor] = [p for group in optimiser.param_groups for p in group["params"]]
    steps = len(batches) * phase.epochs
    total, cases = 0.0, 0
    for number, batch in enumerate(batches.epoch(epoch)):
        factor = rate_factor(epoch * len(batches) + number, steps, phase)
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor
        with precision.autocast():
            output = model(batch.images)
        loss = loss_of(output, batch.targets, label_smoothing=phase.label_smoothing or 0.0)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _not_finite(value, batch, phase, epoch, number)
        precision.step(loss, optimiser, parameters, phase.clip_norm or 0.0)
        total, cases = total + value * len(batch.ids), cases + len(batch.ids)
        advance(note=f"loss {total / cases:.3f}")
    return total / max(1, cases)


def _not_finite(value: float, batch: Batch, phase: PhaseSpec, epoch: int, number: int) -> RunError:
    names = ", ".join(batch.ids[:5]) + (f" and {len(batch.ids) - 5} more" if len(batch.ids) > 5 else "")
    seen_by_it = batch.images if isinstance(batch.images, Tensor) else batch.images[0]
    low, high = float(seen_by_it.min()), float(seen_by_it.max())
    seen = (
        f"loss {value} at epoch {epoch + 1}, step {number + 1}; input {low:.3g} to {high:.3g}; cases {names}"
    )
    todo = f"lower the rate ({phase.lr:g}), set training.precision=fp32, or look at these cases with `medxfer doctor`"
    return RunError(f"phase {phase.name}", seen, "a finite loss", todo)


@torch.no_grad()
def answers_of(predict: Callable[[Any], Tensor], batches: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs, float32, and targets of every case, batch by batch.

    Args:
        predict: A batch of images or features to outputs.
        batches: Unshuffled.
    """
    for batch in batches.epoch(0):
        yield predict(batch.images).float(), batch.targets


def optimiser_of(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over the groups of `prepare_phase`."""
    for group in groups:
        group["base_lr"] = group["lr"]
    return torch.optim.AdamW(groups, fused=True)
