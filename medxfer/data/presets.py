"""Modality to a visible list of steps and changes; every argument can be replaced from the bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..bundle.components import build
from ..bundle.parser import resolve_phases
from ..bundle.schema import Bundle, Component, ImagesSpec
from ..cards import nearest
from ..errors import ConfigError
from .image import Image
from .placed import Placed, placed
from .steps.base import Step

__all__ = ["Step", "default_augment", "default_components", "fill_in", "preprocess", "steps_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a modality does by default, for pictures (2) and volumes (3).

    Attributes:
        steps: Dimensions -> names and arguments. `SHAPING` brings every image to images.size, and to images.spacing
            first where the bundle states one; CHANNELS stands for encoder.in_channels.
        augment: Names and arguments of random changes.
    """

    steps: Mapping[int, tuple[Named, ...]]
    augment: tuple[Named, ...]


Named = tuple[str, Mapping[str, Any]]
_CHANNELS: Named = ("Channels", {})  # filled in with encoder.in_channels
_SHAPING: Named = ("", {})  # stands for what brings images to one size

PRESETS: Mapping[str, Preset] = {
    # Chests are not mirrored: the heart has a side.
    "xray": Preset(
        steps={
            2: (
                _CHANNELS,
                ("PadToSquare", {}),
                _SHAPING,
                ("PercentileWindow", {"lower": 0.5, "upper": 99.5}),
            ),
        },
        augment=(
            ("RandomAffine", {"degrees": 10.0, "shift": 0.05, "scale": 0.1, "flip": False}),
            ("RandomIntensity", {"brightness": 0.1, "contrast": 0.2, "gamma": 0.1}),
        ),
    ),
    # Hounsfield units are absolute: no gamma, little brightness.
    "ct": Preset(
        steps={
            2: (("HUWindow", {"windows": ["soft_tissue"]}), _CHANNELS, ("PadToSquare", {}), _SHAPING),
            3: (("HUWindow", {"windows": ["soft_tissue"]}), _CHANNELS, _SHAPING),
        },
        augment=(
            ("RandomAffine", {"degrees": 10.0, "shift": 0.05, "scale": 0.1, "flip": False}),
            ("RandomIntensity", {"brightness": 0.02, "contrast": 0.05, "gamma": 0.0}),
            ("RandomNoise", {"std": 0.02}),
        ),
    ),
    # The scale of an MR image is arbitrary, its field never even.
    "mri": Preset(
        steps={
            2: (
                _CHANNELS,
                ("PadToSquare", {}),
                _SHAPING,
                ("ForegroundWindow", {"lower": 0.5, "upper": 99.5}),
            ),
            3: (_CHANNELS, _SHAPING, ("ForegroundWindow", {"lower": 0.5, "upper": 99.5})),
        },
        augment=(
            ("RandomAffine", {"degrees": 10.0, "shift": 0.05, "scale": 0.1, "flip": False}),
            ("RandomIntensity", {"brightness": 0.1, "contrast": 0.2, "gamma": 0.2}),
            ("RandomBiasField", {"strength": 0.2}),
        ),
    ),
    # Tissue has no up and no side; its colours are those of the laboratory.
    "pathology": Preset(
        steps={2: (("StainNormalise", {}), _CHANNELS, _SHAPING, ("ValueRange", {"low": 0.0, "high": 255.0}))},
        augment=(
            ("RandomAffine", {"degrees": 180.0, "shift": 0.05, "scale": 0.1, "flip": True}),
            ("RandomStain", {"strength": 0.05}),
            ("RandomIntensity", {"brightness": 0.1, "contrast": 0.1, "gamma": 0.0}),
        ),
    ),
}


def default_components(images: ImagesSpec, in_channels: int) -> tuple[Component, ...]:
    """The preset's steps after reading, as a bundle would list them.

    Raises:
        ConfigError: No such preset, or not for this number of dimensions.
    """
    preset = _preset(images.preset)
    if images.dims not in preset.steps:
        known = " or ".join(map(str, sorted(preset.steps)))
        seen = f"preset {images.preset} with {images.dims} dimensions"
        raise ConfigError("images.dims", seen, known, f"set images.dims={known}, or another preset")
    listed = [
        part
        for named in preset.steps[images.dims]
        for part in (_shaping(images) if named is _SHAPING else [named])
    ]
    listed = [(name, {"count": in_channels}) if name == "Channels" else (name, own) for name, own in listed]
    if images.patches is not None:  # nothing is resized, so nothing needs to be square
        listed = [(name, own) for name, own in listed if name != "PadToSquare"]
    listed.append(("Quantise", {"store": images.store}))
    return tuple(Component(target=name, arguments=arguments) for name, arguments in listed)


def _shaping(images: ImagesSpec) -> list[Named]:
    """To one size: by resizing, or at a stated spacing by cropping and padding; with patches only to the spacing."""
    size = _as_listed(images.size)
    if images.patches is not None:
        return [] if images.spacing is None else [("Resample", {"spacing": list(images.spacing)})]
    if images.spacing is None:
        return [("Resize", {"size": size})]
    return [("Resample", {"spacing": list(images.spacing)}), ("FitTo", {"size": size})]


def _as_listed(value: Any) -> Any:
    """A value as a bundle's file would hold it."""
    return list(value) if isinstance(value, tuple) else value


def default_augment(preset: str) -> tuple[Component, ...]:
    """The preset's augmentation.

    Raises:
        ConfigError: No such preset.
    """
    return tuple(Component(target=name, arguments=arguments) for name, arguments in _preset(preset).augment)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        todo = f"{nearest(name, PRESETS)} or list images.transforms and images.augment yourself"
        raise ConfigError("images.preset", name, ", ".join(PRESETS), todo)
    return PRESETS[name]


def _adjusted(components: Sequence[Component], images: ImagesSpec) -> tuple[Component, ...]:
    """The components with the arguments that the bundle wants otherwise."""
    return tuple(
        dataclasses.replace(one, arguments={**one.arguments, **images.adjust.get(one.target, {})})
        for one in components
    )


def _require_known(images: ImagesSpec, components: Sequence[Component]) -> None:
    """Refuse an adjustment of a part that is not there: it would change nothing in silence."""
    known = list(dict.fromkeys(component.target for component in components))
    for name in images.adjust:
        if name not in known:
            raise ConfigError(
                f"images.adjust.{name}", "no such step here", ", ".join(known), nearest(name, known)
            )


def fill_in(bundle: Bundle) -> Bundle:
    """Every default written out: the preset's steps and augmentation, and what phases take from `training`."""
    images = bundle.images
    transforms = _transforms_of(images, bundle.encoder.in_channels)
    _require_agreement(images, transforms)
    listed = images.augment if images.augment is not None else default_augment(images.preset)
    augment = _adjusted(listed, images)
    _require_known(images, [*transforms, *augment])
    _require_sides(images, augment)
    images = dataclasses.replace(images, transforms=transforms, augment=augment, adjust={})
    return resolve_phases(dataclasses.replace(bundle, images=images))


def _require_agreement(images: ImagesSpec, transforms: Sequence[Component]) -> None:
    """Refuse a list of steps that gives another size or store than the bundle says beside it.

    With patches the size is theirs alone: images may have been brought to any other.
    """
    whole = [("Resize", "size", images.size)] if images.patches is None else []
    for target, argument, wanted in (*whole, ("Quantise", "store", images.store)):
        for number, step in enumerate(transforms):
            wanted = _as_listed(wanted)
            given = _as_listed(step.arguments.get(argument, wanted))
            if step.target == target and given != wanted:
                seen = f"{argument} {given}, but images.{argument} is {wanted}"
                other = f"images.transforms.{number}.{argument}={wanted}"
                todo = f"set both: --set images.{argument}={wanted} --set {other}"
                raise ConfigError(
                    f"images.transforms.{number} ({target})", seen, "one value in both places", todo
                )


def _require_sides(images: ImagesSpec, augment: Sequence[Component]) -> None:
    """Refuse left-right mirrors in sagittal planes, which show no left and right: they would turn front to back."""
    for number, change in enumerate(augment):
        if change.target == "RandomAffine" and change.arguments.get("flip") and images.thin == 0:
            where = f"images.augment.{number} (RandomAffine)"
            seen = "flip: true, and images.size has one voxel along X: planes without left and right"
            todo = "set images.adjust={RandomAffine: {flip: false}}, or another side of images.size to 1"
            raise ConfigError(where, seen, "flip: false in sagittal planes", todo)


def steps_of(images: ImagesSpec, in_channels: int, *, trusted: bool = False) -> tuple[Step, ...]:
    """The steps after reading: the bundle's own list, or the preset's."""
    components = _transforms_of(images, in_channels)
    return tuple(build(component, kind="transform", trusted=trusted) for component in components)


def _transforms_of(images: ImagesSpec, in_channels: int) -> tuple[Component, ...]:
    own = images.transforms
    return _adjusted(default_components(images, in_channels) if own is None else own, images)


def preprocess(image: Image, steps: Sequence[Step]) -> Tensor:
    """All steps on what a reader returned.

    Returns:
        (C, *size) float32 in [0, 1].
    """
    return prepared(placed(image), steps).values


def prepared(image: Placed, steps: Sequence[Step]) -> Placed:
    """All steps on an image, its place followed."""
    for step in steps:
        image = step(image)
    return image
