"""One precision object, so that the loop has no `if amp`; and the probe that chooses it."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..surroundings import AS_BUNDLE
from .convolution import ExactBackward

PROBE_SECONDS = 2.0
MIN_COSINE = 0.99  # between logits, and between gradients, of a candidate and fp32

Name = Literal["fp32", "bf16", "fp16"]
Format = Literal["contiguous", "channels_last"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# By the number of axes of a batch: torch has one name for pictures and one for volumes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Precision:
    """How numbers are held while training: autocast, loss scaling, memory format.

    Args:
        name: `fp32`, `bf16` or `fp16` (with a gradient scaler).
        memory_format: Of images and convolution weights.
        device: Where training happens.
        dims: Spatial dimensions of the images.
    """

    def __init__(self, name: Name, memory_format: Format, device: torch.device, dims: int = 2) -> None:
        self.name, self.memory_format, self.device = name, memory_format, device
        self._axes = dims + 2
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Around forward passes."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        context = contextlib.ExitStack()
        context.enter_context(torch.autocast(self.device.type, DTYPES[self.name]))
        if self.device.type == "cpu":
            context.enter_context(ExactBackward())
        return context

    def place(self, network: nn.Module) -> None:
        """Bring a network's weights into the memory format."""
        network.to(memory_format=self.torch_format)  # type: ignore[call-overload]  # torch's stub lacks the keyword

    @property
    def torch_format(self) -> torch.memory_format:
        """The memory format as torch names it."""
        return CHANNELS_LAST[self._axes] if self.memory_format == "channels_last" else torch.contiguous_format

    def step(
        self, loss: Tensor, optimiser: torch.optim.Optimizer, parameters: list[Tensor], clip: float
    ) -> None:
        """Backward, clip, optimiser step."""
        self.scaler.scale(loss).backward()
        if clip > 0:
            self.scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(parameters, clip)
        self.scaler.step(optimiser)
        self.scaler.update()
        optimiser.zero_grad(set_to_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was chosen and why, for run.json and config.yaml."""

    precision: Name
    memory_format: Format
    why: str


def choose_precision(
    network: nn.Module,
    images: Tensor,
    *,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    memory_format: Literal["auto", "contiguous", "channels_last"],
    backward: bool,
) -> Chosen:
    """Take what the bundle says; where it says `auto`, time the candidates for at most two seconds.

    Args:
        network: On its device; left as it was.
        images: A small batch on the same device, (B, C, *spatial) in [0, 1].
        precision: As in the bundle.
        memory_format: As in the bundle.
        backward: Whether the encoder is trained at all; else only the forward pass is timed.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    device = images.device
    if device.type == "cpu" and precision == "fp16":
        raise ConfigError(
            "training.precision", "fp16 on a CPU", "auto, fp32 or bf16", "set training.precision=auto"
        )
    formats: tuple[Format, ...] = ("contiguous", "channels_last")
    if memory_format != "auto":
        formats = (memory_format,)
    if device.type == "cuda" and precision == "auto":
        precision = "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    names: tuple[Name, ...] = ("fp32", "bf16") if precision == "auto" else (precision,)
    if len(names) == 1 and len(formats) == 1:
        return Chosen(precision=names[0], memory_format=formats[0], why=AS_BUNDLE)
    if device.type == "cuda":
        return Chosen(
            precision=names[0],
            memory_format="channels_last" if "channels_last" in formats else formats[0],
            why=f"{torch.cuda.get_device_name(device)}: what its tensor cores are made for",
        )
    if names == ("fp32", "bf16") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        names = ("fp32",)
    candidates = [(name, shape) for shape in reversed(formats) for name in names]
    return _fastest(network, images, candidates, backward=backward)


def _fastest(
    network: nn.Module, images: Tensor, candidates: list[tuple[Name, Format]], *, backward: bool
) -> Chosen:
    """Time candidates in turn, three rounds at most, within the time allowed; refuse those that compute otherwise."""
    trials = {
        one: _trial(
            network, images, Precision(one[0], one[1], images.device, images.ndim - 2), backward=backward
        )
        for one in candidates
    }
    start = time.monotonic()
    seconds: dict[tuple[Name, Format], float] = {}
    reference: Tensor | None = None
    wrong: list[str] = []
    for _ in range(4):  # the first round selects kernels and is not counted apart: the best of all rounds is
        for one in list(trials):
            if seconds and time.monotonic() - start > PROBE_SECONDS:
                break
            begun = time.monotonic()
            result = trials[one]()
            seconds[one] = min(seconds.get(one, float("inf")), time.monotonic() - begun)
            if reference is None:
                reference = result
            elif _cosine(result, reference) < MIN_COSINE:
                wrong.append(f"{one[0]} {one[1]}")
                del trials[one], seconds[one]
    best = min(seconds, key=lambda one: seconds[one])
    shown = ", ".join(f"{name} {shape} {1000 * s:.0f} ms" for (name, shape), s in seconds.items())
    refused = f"; refused as numerically wrong: {', '.join(sorted(set(wrong)))}" if wrong else ""
    what = "a training step" if backward else "a forward pass"
    why = f"fastest for {what} of {len(images)} images in a probe of {time.monotonic() - start:.1f} s: {shown}{refused}"
    return Chosen(precision=best[0], memory_format=best[1], why=why)


def _trial(
    network: nn.Module, images: Tensor, precision: Precision, *, backward: bool
) -> Callable[[], Tensor]:
    """A function that runs one step on a copy and returns what must agree: logits, and gradients of the weights."""
    copied = copy.deepcopy(network)
    precision.place(copied)
    copied.train(backward)
    x = images.contiguous(memory_format=precision.torch_format)

    def run() -> Tensor:
        with torch.set_grad_enabled(backward), precision.autocast():
            features = copied.features(x)  # type: ignore[operator]  # a Network
            # A decoder costs as much as the encoder; a linear head nothing, and it begins with zeros.
            parts = features if isinstance(features, Tensor) else copied.head(features)  # type: ignore[operator]
        parts = [parts] if isinstance(parts, Tensor) else parts
        flat = torch.cat([part.detach().float().flatten() for part in parts])
        if not backward:
            return flat
        torch.stack([part.float().square().mean() for part in parts]).sum().backward()
        gradient = torch.cat([p.grad.float().flatten() for p in copied.parameters() if p.grad is not None])
        copied.zero_grad(set_to_none=True)
        return torch.cat([flat / flat.norm(), gradient / gradient.norm()])

    return run


def _cosine(a: Tensor, b: Tensor) -> float:
    if not torch.isfinite(a).all():
        return 0.0
    return float(nn.functional.cosine_similarity(a, b, dim=0))
