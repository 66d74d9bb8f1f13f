"""What an encoder claims of its shape is what it is: attributes, card, stages, maps, sizes, channels."""

from __future__ import annotations

import math

import torch

from ..encoders.contract import attribute_fault
from ..plugin import Normalise
from .subject import Subject, eval_maps, explained, relative_difference, require

_ODD_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {2: ((71, 71), (65, 79)), 3: ((35, 33, 47),)}


def check_attributes(subject: Subject) -> None:
    """4: the attributes of the contract, right types, equal lengths."""
    fault = attribute_fault(subject.encoder(), subject.spatial_dims, in_channels=3)
    require(fault is None, str(fault))


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
            told = f"`in_channels` is {encoder.in_channels}, built with {count}"
            require(encoder.in_channels == count, told)
            images = subject.images(batch=1, channels=count)
            # One channel against three constants would broadcast in silence.
            seen = encoder.normalise(images).shape[1]
            told = f"`normalise` makes {seen} channels of {count}: give it in_channels constants"
            require(seen == count, told)
            eval_maps(encoder, images)


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
