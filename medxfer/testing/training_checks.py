"""An encoder can be trained in part: chained, frozen, switched, with a gradient for everything, under a head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..networks.decoder import Decoder
from ..networks.heads import ClassificationHead
from ..networks.network import Network
from ..plugin import Encoder
from .subject import CheckFailed, Subject, explained, require

# Of the input's size. The first passes by the kinks of ReLU and max-pooling; the second is far above what a part
# that works in float32 rounds.
_STEPS = (1e-7, 1e-4)
_SLOPE_TOLERANCE = 5e-3


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
    """13: `train()` and `eval()` reach every child, `requires_grad` is respected, no stage detaches its input.

    Nor a part of it, such as a shortcut.
    """
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
    _require_whole_gradients(subject)


def _require_whole_gradients(subject: Subject) -> None:
    """What each stage passes back is the derivative of what it gives, by central differences in float64."""
    encoder = subject.encoder().double()
    generator = torch.Generator().manual_seed(2)
    side = min(subject.size)  # float64 is slow, most of all in 3D
    state = subject.images(batch=1, size=(side,) * subject.spatial_dims).double()
    for index in range(len(encoder.stages)):
        # Maps behind a ReLU are 0 in many places, and a max-pooling of equal numbers has no derivative there.
        entering = state.detach() + 0.05 * _size(state) * _noise(state, generator)
        leaf = entering.clone().requires_grad_()
        state = encoder.forward_features(leaf, index, index + 1)[-1]
        weights, direction = _noise(state, generator), _noise(entering, generator)
        (gradient,) = torch.autograd.grad((state * weights).sum(), [leaf])
        passed = float((gradient * direction).sum())
        for step in _STEPS:
            measured = _slope(encoder, index, entering, direction, step, weights)
            # Against the gradient's size, too: a slope happens to be near 0.
            allowed = _SLOPE_TOLERANCE * (abs(measured) + abs(passed) + float(gradient.norm()))
            if abs(measured - passed) <= allowed:
                break
        else:
            text = f"stage {index} passes back a slope of {passed:.3g}, its output has {measured:.3g}"
            raise CheckFailed(f"{text}: part of its input is detached, or changed in place")


def _slope(
    encoder: Encoder, index: int, entering: Tensor, direction: Tensor, step: float, weights: Tensor
) -> float:
    """How fast the weighted sum of a stage's output changes along `direction`, measured."""
    length = step * _size(entering)
    with torch.no_grad():
        above, below = (
            encoder.forward_features(entering + shift * direction, index, index + 1)[-1]
            for shift in (length, -length)
        )
    return float(((above - below) * weights).sum()) / (2 * length)


def _size(state: Tensor) -> float:
    """The root of the mean square, not 0."""
    return float(state.detach().square().mean().sqrt().clamp_min(1e-12))


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def check_gradients(subject: Subject) -> None:
    """14: every parameter gets a gradient, and not one of 0 everywhere.

    A layer that begins at 0 hides what lies before it, and training skips blocks by chance; so the zeros are
    looked for a second time, in evaluation mode with parameters moved a little.
    """
    encoder = subject.encoder().train()
    _backward(encoder, subject)
    zeros: list[str] = []
    for name, parameter in encoder.named_parameters():
        advice = "delete unused parts (DistributedDataParallel refuses them by default)"
        require(parameter.grad is not None, f"`{name}` gets no gradient; {advice}")
        if parameter.grad is not None and not parameter.grad.any():
            zeros.append(name)
    if not zeros:
        return
    moved = subject.encoder()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * 0.1 * (float(parameter.square().mean().sqrt()) or 0.5))
    _backward(moved, subject)
    gradients = {name: parameter.grad for name, parameter in moved.named_parameters()}
    for name in zeros:
        gradient = gradients[name]
        text = f"`{name}` gets a gradient of 0 everywhere: what it is in changes no map; take it out or mend that"
        require(gradient is not None and bool(gradient.any()), text)


def _backward(encoder: Encoder, subject: Subject) -> None:
    torch.stack([found.square().mean() for found in encoder(subject.images())]).sum().backward()


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
