"""The conformance kit: what an encoder promises, as small functions that an author's own tests can run.

from medxfer.testing import encoder_checks

@encoder_checks("tinyconv", spatial_dims=(2, 3))
def test_conformance(check):
    check()
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..plugin import Normalise
from .subject import CheckFailed, Subject, eval_maps, explained, relative_difference, require

_ODD_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {2: ((71, 71), (65, 79)), 3: ((35, 33, 47),)}


def check_attributes(subject: Subject) -> None:
    """4: the attributes of the contract, right types, equal lengths."""
    encoder = subject.encoder()
    for name in ("spatial_dims", "in_channels", "channels", "strides", "stages", "normalise"):
        require(hasattr(encoder, name), f"`{name}` is missing: set it in __init__")
    stages = encoder.stages
    require(
        isinstance(stages, nn.ModuleList), f"`stages` is a {type(stages).__name__}: make it an nn.ModuleList"
    )
    count = len(encoder.stages)
    for name in ("channels", "strides"):
        seen = len(getattr(encoder, name))
        require(seen == count, f"`{name}` has {seen} entries, `stages` {count}: one per stage")
    dims = subject.spatial_dims
    require(encoder.spatial_dims == dims, f"`spatial_dims` is {encoder.spatial_dims}, built with {dims}")
    require(encoder.in_channels == 3, f"`in_channels` is {encoder.in_channels}, built with 3")
    for index, stride in enumerate(encoder.strides):
        right = isinstance(stride, tuple) and len(stride) == dims
        require(right, f"strides[{index}] is {stride!r}: a tuple of {dims}, one per axis, cumulative")


def check_card(subject: Subject) -> None:
    """5: the card says what the object is."""
    encoder, card, dims = subject.encoder(), subject.card, subject.spatial_dims
    claims = "put the built one into cards.yaml"
    require(dims in card.spatial_dims, f"card has {sorted(card.spatial_dims)} dimensions, not {dims}: add it")
    seen, said = tuple(encoder.channels), card.channels
    require(seen == said, f"card says channels {said}, built network has {seen}; {claims}")
    strides, wanted = tuple(map(tuple, encoder.strides)), card.strides_in(dims)
    require(strides == wanted, f"card says strides {wanted}, built network has {strides}; {claims}")
    count = sum(parameter.numel() for parameter in encoder.parameters())
    number = card.parameters[dims]
    require(count == number, f"card says {number} parameters in {dims}D, built network has {count}; {claims}")


def check_stages_own_everything(subject: Subject) -> None:
    """6: every parameter and buffer in exactly one stage, the normalisation apart."""
    encoder = subject.encoder()
    owners: dict[int, list[int]] = {}
    for index, stage in enumerate(encoder.stages):
        for value in {id(v): v for v in (*stage.parameters(), *stage.buffers())}.values():
            owners.setdefault(id(value), []).append(index)
    apart = {id(buffer) for buffer in encoder.normalise.buffers()}
    for name, value in (*encoder.named_parameters(), *encoder.named_buffers()):
        stages = owners.get(id(value), [])
        advice = "it would never be frozen or given a rate; put it into the stage that uses it"
        require(bool(stages) or id(value) in apart, f"`{name}` is in no stage: {advice}")
        require(len(stages) < 2, f"`{name}` is in stages {stages}: keep it in one")
    parameters = [name for name, _ in encoder.normalise.named_parameters()]
    require(not parameters, f"`normalise` has parameters {parameters}: constants belong into buffers")


def check_maps(subject: Subject) -> None:
    """7: one map a stage, with the claimed channels and as many axes as the image."""
    encoder = subject.encoder()
    maps = eval_maps(encoder, subject.images())
    require(len(maps) == len(encoder.stages), f"{len(maps)} maps from {len(encoder.stages)} stages")
    for index, (found, channels) in enumerate(zip(maps, encoder.channels, strict=True)):
        axes = subject.spatial_dims + 2
        require(found.ndim == axes, f"stage {index} gives {found.ndim} axes, not {axes}: override as_map")
        seen = found.shape[1]
        require(seen == channels, f"stage {index} gives {seen} channels, claims {channels}")
        require(found.dtype == torch.float32, f"stage {index} gives {found.dtype} from float32 images")
        require(bool(found.isfinite().all()), f"stage {index} gives NaN or infinity from images in [0, 1]")


def check_strides(subject: Subject) -> None:
    """8: the claimed strides, each axis by itself."""
    encoder = subject.encoder()
    for index, found in enumerate(eval_maps(encoder, subject.images())):
        for axis, (size, length, stride) in enumerate(
            zip(subject.size, found.shape[2:], encoder.strides[index], strict=True)
        ):
            seen = size / length
            require(seen == stride, f"stage {index} divides axis {axis} by {seen:g}, claims {stride}")


def check_odd_sizes(subject: Subject) -> None:
    """9: sizes that no stride divides."""
    encoder = subject.encoder()
    for size in _ODD_SIZES[subject.spatial_dims]:
        with explained(f"fails at {size}", "compute the grid from the input"):
            maps = eval_maps(encoder, subject.images(size=size))
        for index, found in enumerate(maps):
            for axis, length in enumerate(found.shape[2:]):
                share = size[axis] / encoder.strides[index][axis]
                known = f"{math.floor(share)} or {math.ceil(share)}"
                right = length in (math.floor(share), math.ceil(share))
                require(right, f"stage {index} gives {length} on axis {axis} at size {size}, not {known}")


def check_in_channels(subject: Subject) -> None:
    """10: images of 1, 3 and 4 channels."""
    for count in (1, 3, 4):
        with explained(f"fails with in_channels={count}", "pass it to the first convolution"):
            encoder = subject.encoder(count)
            require(
                encoder.in_channels == count, f"`in_channels` is {encoder.in_channels}, built with {count}"
            )
            images = subject.images(batch=1, channels=count)
            seen = encoder.normalise(images).shape[
                1
            ]  # one channel against three constants would broadcast in silence
            require(
                seen == count, f"`normalise` makes {seen} channels of {count}: give it in_channels constants"
            )
            eval_maps(encoder, images)


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


def check_gradients(subject: Subject) -> None:
    """14: every parameter gets a gradient."""
    encoder = subject.encoder().train()
    torch.stack([found.square().mean() for found in encoder(subject.images())]).sum().backward()
    for name, parameter in encoder.named_parameters():
        advice = "delete unused parts (DistributedDataParallel refuses them by default)"
        require(parameter.grad is not None, f"`{name}` gets no gradient; {advice}")


def check_batch_independence(subject: Subject) -> None:
    """15: in evaluation mode an image alone gives what it gives in a batch."""
    encoder, images = subject.encoder(), subject.images()
    together, alone = eval_maps(encoder, images), eval_maps(encoder, images[:1])
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        difference = relative_difference(one[:1], other)
        advice = "batch statistics in eval mode?"
        require(difference < 1e-4, f"stage {index} differs by {difference:.2g} with its neighbours; {advice}")


def check_determinism(subject: Subject) -> None:
    """16: evaluation neither depends on the global random state nor uses it up."""
    encoder, images = subject.encoder(), subject.images()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = eval_maps(encoder, images)
    require(torch.equal(state, torch.get_rng_state()), "eval consumes torch's random state: dropout left on?")
    second = eval_maps(encoder, images)
    torch.manual_seed(2)
    third = eval_maps(encoder, images)
    for index, (one, two, three) in enumerate(zip(first, second, third, strict=True)):
        require(torch.equal(one, two), f"stage {index}: a second call differs from the first")
        require(torch.equal(one, three), f"stage {index}: eval output changes with torch.manual_seed")


def check_build_seed(subject: Subject) -> None:
    """17: one seed, one set of weights."""
    random.seed(1)
    first = subject.fresh().state_dict()
    random.seed(2)
    second = subject.fresh().state_dict()
    for name, value in first.items():
        advice = "initialise with torch's generator, not Python's or NumPy's"
        require(
            torch.equal(value, second[name]), f"`{name}` differs between two builds under one seed: {advice}"
        )


def check_bf16(subject: Subject) -> None:
    """18: under bf16 autocast finite, and in the direction of fp32."""
    encoder, images = subject.encoder(), subject.images()
    exact = eval_maps(encoder, images)
    advice = "do that step in fp32 inside torch.autocast(..., enabled=False)"
    with explained("fails under bf16", advice), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = eval_maps(encoder, images)
    for index, (one, other) in enumerate(zip(exact, rounded, strict=True)):
        require(bool(other.isfinite().all()), f"stage {index} gives NaN or infinity under bf16")
        cosine = float(torch.cosine_similarity(one.flatten(), other.float().flatten(), dim=0))
        require(cosine >= 0.99, f"stage {index} has cosine {cosine:.3f} to fp32 under bf16, not 0.99")


def check_meta_device(subject: Subject) -> None:
    """20: built and run without numbers."""
    advice = "make plain numbers with Python arithmetic, no .item() or .tolist() while building"
    with explained("fails on the meta device", advice), torch.device("meta"):
        encoder = subject.fresh().eval()
        shape = (2, 3, *subject.size)
        maps = eval_maps(encoder, torch.empty(shape))
    off = [name for name, value in encoder.state_dict().items() if value.device.type != "meta"]
    require(not off, f"built under the meta device, {off[:3]} lie elsewhere")
    require(all(found.device.type == "meta" for found in maps), "maps left the meta device")


def check_safetensors(subject: Subject) -> None:
    """21: a round trip through safetensors keeps every bit."""
    from safetensors.torch import load, save

    encoder, images = subject.encoder(), subject.images()
    with explained(
        "safetensors refuses the state dict", "register each tensor once, contiguous, under one name"
    ):
        saved = save(encoder.state_dict())
    torch.manual_seed(1)
    other = subject.encoder()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(load(saved))
    for index, (one, two) in enumerate(
        zip(eval_maps(encoder, images), eval_maps(other, images), strict=True)
    ):
        require(
            torch.equal(one, two), f"stage {index} differs after a round trip: state outside the state dict?"
        )


def check_export(subject: Subject) -> None:
    """23: `torch.export` with a dynamic batch agrees with eager (2D)."""
    if subject.spatial_dims != 2:
        return
    encoder, images = subject.encoder(), subject.images()
    batch = torch.export.Dim("batch", min=1, max=1024)
    advice = "no branch on tensor values, no Python numbers from the batch size"
    with explained("torch.export fails", advice), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations during tracing
        program = torch.export.export(encoder, (images,), dynamic_shapes=({0: batch},)).module()
        more = subject.images(batch=3)
        exported, eager = program(more), eval_maps(encoder, more)
    for index, (one, other) in enumerate(zip(eager, exported, strict=True)):
        difference = relative_difference(one, other.detach())
        require(difference < 1e-5, f"stage {index} of the exported program differs by {difference:.2g}")


def check_normalisation(subject: Subject) -> None:
    """24: constants inside, as buffers, and they matter."""
    encoder, images = subject.encoder(), subject.images()
    buffers = dict(encoder.normalise.named_buffers())
    names = {name.rsplit(".", 1)[-1] for name in buffers}
    advice = "use medxfer.plugin.Normalise, else exported models would forget it"
    require({"mean", "std"} <= names, f"`normalise` has buffers {sorted(names)}, not mean and std; {advice}")
    before = eval_maps(encoder, images)[0]
    encoder.normalise = Normalise([0.9] * 3, [0.1] * 3)
    difference = relative_difference(before, eval_maps(encoder, images)[0])
    require(
        difference > 1e-6, "another mean changes nothing: forward_features must begin with self.normalise(x)"
    )


# The first six are run first: a fault there has consequences in others.
CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_attributes,
    check_card,
    check_stages_own_everything,
    check_maps,
    check_strides,
    check_freezing,
    check_determinism,
    check_odd_sizes,
    check_in_channels,
    check_chain,
    check_gradients,
    check_batch_independence,
    check_build_seed,
    check_bf16,
    check_meta_device,
    check_safetensors,
    check_export,
    check_normalisation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of one encoder in one number of dimensions, to be called."""

    subject: Subject
    function: Callable[[Subject], None]
    expected: str | None = None  # why it is expected to fail
    name: str = ""

    def __call__(self) -> None:
        """Run it.

        Raises:
            CheckFailed: The promise is broken; or an expected failure passed.
        """
        state = torch.get_rng_state()
        try:
            with explained("raised", "see the cause above"):
                self.function(self.subject)
        except CheckFailed as error:
            if self.expected is None:
                raise CheckFailed(f"{self.name}: {error}") from error
        else:
            if self.expected is not None:
                raise CheckFailed(
                    f"{self.name}: passes, though declared to fail ({self.expected}): take it out"
                )
        finally:
            torch.set_rng_state(state)


def all_checks(
    encoder_id: str, *, spatial_dims: Sequence[int] = (2,), expected_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """Every check of an encoder, in the order in which they are best read.

    Args:
        encoder_id: As listed.
        spatial_dims: The numbers of dimensions to check in.
        expected_failures: Name of a check -> why it cannot pass.
    """
    expected = dict(expected_failures or {})
    unknown = expected.keys() - {function.__name__ for function in CHECKS}
    if unknown:
        raise ValueError(f"expected_failures names unknown checks: {', '.join(sorted(unknown))}")
    checks: list[Check] = []
    for dims in spatial_dims:
        subject = Subject(encoder_id, dims)
        for function in CHECKS:
            name = f"{encoder_id}-{dims}D-{function.__name__.removeprefix('check_')}"
            checks.append(
                Check(subject=subject, function=function, expected=expected.get(function.__name__), name=name)
            )
    return checks


def encoder_checks(
    *encoder_ids: str, spatial_dims: Sequence[int] = (2,), expected_failures: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Any]:
    """Turn a test with an argument `check` into one named test a check; needs pytest."""
    import pytest

    checks = [
        check
        for encoder_id in encoder_ids
        for check in all_checks(encoder_id, spatial_dims=spatial_dims, expected_failures=expected_failures)
    ]
    return pytest.mark.parametrize("check", checks, ids=[check.name for check in checks])
