"""An encoder can be trained in part: chained, frozen, switched, with a gradient for everything, under a head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from ..networks.decoder import Decoder
from ..networks.heads import ClassificationHead
from ..networks.network import Network
from ..plugin import Encoder
from .subject import Subject, explained, require


def check_chain(subject: Subject) -> None:
    """11: a prefix, kept, and the rest run from there give what one pass gives, bit for bit."""
    encoder, images = subject.encoder(), subject.images()
    with torch.no_grad():
        whole = encoder.forward_features(images)
        cuts = {1, len(encoder.stages) // 2, len(encoder.stages) - 1}
        for cut in sorted(cuts - {0}):
            first = encoder.forward_features(images, 0, cut)
            rest = encoder.forward_features(first[-1], cut)
            for index, (one, other) in enumerate(zip(whole[cut:], rest, strict=True), start=cut):
                advice = "reads something besides its input; stages must be a chain"
                require(
                    torch.equal(one, other), f"run from stage {cut} on, stage {index} differs: it {advice}"
                )


def check_freezing(subject: Subject) -> None:
    """12: with the first stages frozen, one training step moves none of their parameters and buffers."""
    encoder = subject.encoder().train()
    frozen = encoder.stages[: max(len(encoder.stages) // 2, 1)]
    for stage in frozen:
        stage.requires_grad_(False).eval()
    before = {f"stages.{name}": value.clone() for name, value in frozen.state_dict().items()}
    free = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    require(bool(free), "no parameter is left to train when the first half is frozen")
    optimiser = torch.optim.SGD(free, lr=0.1)
    torch.stack([found.square().mean() for found in encoder(subject.images())]).sum().backward()
    optimiser.step()
    for name, value in frozen.state_dict().items():
        same = torch.equal(before[f"stages.{name}"], value)
        require(same, f"`stages.{name}` moved while frozen; do not call .train() inside forward")


def check_modes(subject: Subject) -> None:
    """13: `train()` and `eval()` reach every child, `requires_grad` is respected, no stage detaches its input."""
    encoder = subject.encoder()
    for mode in (True, False):
        encoder.train(mode)
        off = [name or "the encoder" for name, module in encoder.named_modules() if module.training != mode]
        call = "train()" if mode else "eval()"
        require(not off, f"{call} does not reach `{off[0] if off else ''}`; call super().{call[:-2]}(mode)")
    encoder.train()
    frozen = list(encoder.stages[0].parameters())
    for parameter in frozen:
        parameter.requires_grad_(False)
    encoder(subject.images())
    moved = any(parameter.requires_grad for parameter in frozen)
    require(not moved, "forward turns `requires_grad` on again: leave it to whoever trains")
    state = subject.images()
    for index in range(len(encoder.stages)):
        entering = state.detach().requires_grad_()
        state = encoder.forward_features(entering, index, index + 1)[-1]
        reached: tuple[torch.Tensor | None, ...] = (None,)
        if state.requires_grad:
            reached = torch.autograd.grad(state.square().mean(), [entering], allow_unused=True)
        require(reached[0] is not None, f"stage {index} detaches its input: nothing before it can learn")


def check_gradients(subject: Subject) -> None:
    """14: every parameter gets a gradient."""
    encoder = subject.encoder().train()
    torch.stack([found.square().mean() for found in encoder(subject.images())]).sum().backward()
    for name, parameter in encoder.named_parameters():
        advice = "delete unused parts (DistributedDataParallel refuses them by default)"
        require(parameter.grad is not None, f"`{name}` gets no gradient; {advice}")


def check_heads(subject: Subject) -> str | None:
    """26: what is built on an encoder can be built on this one and does one training step."""
    for name, build_head in _HEADS.items():
        encoder = subject.encoder().train()
        advice = "a head relies on `channels`, and on forward giving the same maps in training"
        with explained(f"no {name} can be trained on it", advice):
            network = Network(encoder, build_head(encoder)).train()
            before = [parameter.detach().clone() for parameter in network.head.parameters()]
            optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
            output = network(subject.images())
            loss = nn.functional.cross_entropy(
                output.flatten(2).mean(2) if output.ndim > 2 else output, _LABELS
            )
            loss.backward()
            optimiser.step()
        value = float(loss.detach())
        require(math.isfinite(value), f"the loss under a {name} is {value}; maps must be finite")
        pairs = zip(before, network.head.parameters(), strict=True)
        moved = any(not torch.equal(one, other) for one, other in pairs)
        require(moved, f"a training step moves nothing of the {name}: are its maps constant?")
    repeated = len(set(subject.encoder().strides)) < len(subject.encoder().strides)
    return "two stages have one stride: a decoder reads the deeper one" if repeated else None


# What is built on encoders, by name.
_HEADS: Mapping[str, Callable[[Encoder], nn.Module]] = {
    "linear head": lambda encoder: ClassificationHead(encoder.channels, 2),
    "decoder": lambda encoder: Decoder(encoder.channels, encoder.strides, encoder.in_channels, 2, width=8),
}
_LABELS = torch.tensor([0, 1])
