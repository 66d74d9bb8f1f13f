"""Build a timm network by name and prove that its stages give what timm's own forward gives."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medxfer.errors import PluginError
from medxfer.plugin import Encoder, Normalise

from .cutting import Cut, Embedding, NotAChain, cut, pad, states_at
from .operators import import_timm

# Settings with which a family takes images of any size.
_ANY_SIZE: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True, "dynamic_img_pad": True},
    "deit": {"dynamic_img_size": True, "dynamic_img_pad": True},
    "swin_transformer": {"strict_img_size": False},
}
_PROOF_SIZE = (64, 96)
_proved: set[str] = set()


class TimmEncoder(Encoder):
    """A timm network in stages.

    Args:
        network: Fresh from timm; it is taken apart.
        cutting: Its stages.
        normalise: For as many channels as the first convolution takes.
        in_channels: Of the first convolution.
    """

    def __init__(self, network: Any, cutting: Cut, *, normalise: Normalise, in_channels: int) -> None:
        super().__init__()
        stages = cutting.stages
        if cutting.layout == "tokens":
            stages = [[Embedding(network), *stages[0]], *stages[1:]]
        self.spatial_dims = 2
        self.in_channels = in_channels
        self.channels = cutting.channels
        self.strides = tuple((stride, stride) for stride in cutting.strides)
        self.normalise = normalise
        self.stages = nn.ModuleList([nn.Sequential(*modules) for modules in stages])
        self.layout = cutting.layout
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))  # tokens that belong to no patch
        for stage in self.stages:
            _keep_input(stage)

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        """A stage's output as `(B, C, rows, columns)`."""
        if self.layout == "NHWC":
            return state.permute(0, 3, 1, 2)
        if self.layout == "tokens":
            rows, columns = (-(-n // stride) for n, stride in zip(size, self.strides[index], strict=True))
            return state[:, self.prefix :].transpose(1, 2).reshape(state.shape[0], -1, rows, columns)
        return state


def build(name: str, *, spatial_dims: int, in_channels: int) -> Encoder:
    """The timm network `name` without its classifier.

    Args:
        name: As `timm.list_models()` has it, without a tag: weights are chosen by `encoder.weights`.
        spatial_dims: 2; timm's networks take no volumes.
        in_channels: Of the first convolution.

    Raises:
        PluginError: No such network, three dimensions, or a network that is no chain of stages or takes
            images of one size only.
    """
    if spatial_dims != 2:
        seen = f"asked for in {spatial_dims}D"
        todo = "see `--dims 3`; to segment volumes plane by plane give images.size a side of 1"
        raise PluginError(f"encoder timm:{name}", seen, "2D: timm's networks take no volumes", todo)
    encoder, _ = build_with_names(name, in_channels)
    return encoder


def build_with_names(name: str, in_channels: int) -> tuple[TimmEncoder, dict[str, str]]:
    """The encoder, and timm's name of each of its tensors -> ours."""
    family = require_known(name)
    timm = import_timm()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside timm, which no user of medxfer can mend
            options = {"num_classes": 0, "in_chans": in_channels, **_ANY_SIZE.get(family, {})}
            network = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise _unfit(
            name, f"timm cannot build it for {in_channels} channels: {_first_line(error)}"
        ) from error
    names = {id(value): key for key, value in network.state_dict(keep_vars=True).items()}
    try:
        encoder = _staged(network, name, in_channels)
    except Exception as error:  # whatever a network that is no chain, or wants its own size, fails with
        raise _unfit(name, f"cannot be cut into stages: {_first_line(error)}") from error
    ours = encoder.state_dict(keep_vars=True).items()
    return encoder, {names[id(value)]: key for key, value in ours if id(value) in names}


def require_known(name: str) -> str:
    """The family, timm's module, of a network.

    Raises:
        PluginError: timm has no network of this name; the nearest names are given.
    """
    timm = import_timm()
    architecture, dot, tag = name.partition(".")
    if timm.is_model(architecture) and not dot:
        return str(timm.model_entrypoint(name).__module__).rsplit(".", 1)[-1]
    where = f"encoder timm:{name}"
    if timm.is_model(architecture):
        todo = f"id: timm:{architecture} and weights: {tag}"
        raise PluginError(where, "a tag in the name", "the network's name alone", todo)
    close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    todo = (
        "did you mean " + " or ".join(f"timm:{one}" for one in close) + "?" if close else "check its spelling"
    )
    raise PluginError(
        where, f"timm {timm.__version__} has no such network", "a name of timm.list_models()", todo
    )


def _staged(network: Any, name: str, in_channels: int) -> TimmEncoder:
    """Cut it; the first time for each name, compare with timm's own forward."""
    network.eval()
    pad(network, name)
    cutting = cut(network, name)
    parameter = next(network.parameters())
    proving = name not in _proved and not parameter.is_meta  # without numbers there is nothing to compare
    images = torch.rand(
        2, in_channels, *_PROOF_SIZE, generator=torch.Generator().manual_seed(0), device="cpu"
    )
    images = images.to(parameter)
    # Before the stages are taken out of it: a transformer loses its blocks then.
    expected = states_at(network, cutting.ends, images) if proving else []
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    encoder = TimmEncoder(
        network,
        cutting,
        normalise=Normalise(_cycled(mean, in_channels), _cycled(std, in_channels)),
        in_channels=in_channels,
    )
    if proving:
        _prove(encoder.eval(), images, expected)
        _proved.add(name)
    return encoder.train()


def _prove(encoder: TimmEncoder, images: Tensor, expected: Sequence[Tensor]) -> None:
    """Compare the stages with what timm's own forward gave.

    Raises:
        NotAChain: Other numbers, or maps of another size than claimed.
    """
    if len(expected) != len(encoder.stages):
        raise NotAChain("timm's own forward leaves parts of it out")
    states, state = [], images
    with torch.no_grad():
        for stage in encoder.stages:
            state = stage(state)
            states.append(state)
        for index, (seen, wanted) in enumerate(zip(states, expected, strict=True)):
            if seen.shape != wanted.shape or not torch.allclose(seen, wanted, rtol=1e-4, atol=1e-5):
                raise NotAChain(f"run by itself, stage {index} gives other numbers than inside the network")
            found = encoder.as_map(index, seen, _PROOF_SIZE)
            shares = [n / stride for n, stride in zip(_PROOF_SIZE, encoder.strides[index], strict=True)]
            fits = all(
                math.floor(share) <= length <= math.ceil(share)
                for share, length in zip(shares, found.shape[2:], strict=True)
            )
            if found.shape[1] != encoder.channels[index] or not fits:
                claim = f"{encoder.channels[index]} channels at stride {encoder.strides[index][0]}"
                seen_text = f"{tuple(found.shape[1:])} from {_PROOF_SIZE}"
                raise NotAChain(
                    f"stage {index} gives {seen_text}, not {claim}: it wants images of its own size"
                )


def _keep_input(stage: nn.Module) -> None:
    """Let the first layer write into memory of its own: its input is the map of the stage before."""
    first: Any = next((module for module in stage.modules() if not list(module.children())), None)
    if getattr(first, "inplace", False):
        first.inplace = False


def _cycled(values: Sequence[float], count: int) -> list[float]:
    return [float(values[i % len(values)]) for i in range(count)]


def _unfit(name: str, seen: str) -> PluginError:
    accepted = "a chain of stages that takes images of any size"
    return PluginError(
        f"encoder timm:{name}", seen, accepted, "choose another network, such as timm:resnet50"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
