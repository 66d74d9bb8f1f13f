"""Which parts a bundle may name: one table of exact names, resolved when something is built.

A row is all that a new part needs. Names outside the table are refused, whatever they begin with:
`monai.utils.module.os.system` begins with `monai.`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ConfigError, UnsafeError
from .expressions import trusted_value
from .schema import Bundle, Component
from .source import Document, KeyPath, Mark, is_option
from .typed import convert, nearest, shown

Kind = str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A part: where in a bundle it may stand, and its dotted path."""

    kind: Kind
    path: str


TABLE: Mapping[str, Row] = {
    "Classification": Row("task", "medxfer.tasks.classification.Classification"),
    "Findings": Row("task", "medxfer.tasks.findings.Findings"),
    "Segmentation": Row("task", "medxfer.tasks.segmentation.Segmentation"),
    "Channels": Row("transform", "medxfer.data.steps.pictures.Channels"),
    "PadToSquare": Row("transform", "medxfer.data.steps.pictures.PadToSquare"),
    "Resize": Row("transform", "medxfer.data.steps.pictures.Resize"),
    "PercentileWindow": Row("transform", "medxfer.data.steps.pictures.PercentileWindow"),
    "Quantise": Row("transform", "medxfer.data.steps.pictures.Quantise"),
    "Resample": Row("transform", "medxfer.data.steps.spatial.Resample"),
    "FitTo": Row("transform", "medxfer.data.steps.spatial.FitTo"),
    "CropBody": Row("transform", "medxfer.data.steps.spatial.CropBody"),
    "HUWindow": Row("transform", "medxfer.data.steps.intensity.HUWindow"),
    "ForegroundWindow": Row("transform", "medxfer.data.steps.intensity.ForegroundWindow"),
    "ForegroundZScore": Row("transform", "medxfer.data.steps.intensity.ForegroundZScore"),
    "ValueRange": Row("transform", "medxfer.data.steps.intensity.ValueRange"),
    "RemoveBiasField": Row("transform", "medxfer.data.steps.intensity.RemoveBiasField"),
    "StainNormalise": Row("transform", "medxfer.data.steps.pathology.StainNormalise"),
    "EqualiseLocally": Row("transform", "medxfer.data.steps.xray.EqualiseLocally"),
    "RandomAffine": Row("augment", "medxfer.data.augment.RandomAffine"),
    "RandomIntensity": Row("augment", "medxfer.data.augment.RandomIntensity"),
    "RandomBiasField": Row("augment", "medxfer.data.augment.RandomBiasField"),
    "RandomGhosting": Row("augment", "medxfer.data.augment.RandomGhosting"),
    "RandomStain": Row("augment", "medxfer.data.augment.RandomStain"),
    "RandomNoise": Row("augment", "medxfer.data.augment.RandomNoise"),
    "RandomBlur": Row("augment", "medxfer.data.augment.RandomBlur"),
    "FocalLoss": Row("loss", "monai.losses.FocalLoss"),
    "CrossEntropyLoss": Row("loss", "torch.nn.CrossEntropyLoss"),
}


def check_target(target: object, kind: Kind | None, where: str, *, trusted: bool) -> None:
    """Refuse a `_target_` that is not in the table, before anything is imported.

    Args:
        target: Text after `_target_`.
        kind: What may stand in this place; None: any.
        where: File, line and key, for messages.
        trusted: Whether dotted paths are allowed.

    Raises:
        ConfigError: A misspelt name, or a part in a wrong place.
        UnsafeError: Anything else.
    """
    names = [name for name, row in TABLE.items() if kind in (None, row.kind)]
    accepted = ", ".join(names)
    if not isinstance(target, str):
        raise ConfigError(where, shown(target), accepted, "write a name after _target_")
    row = TABLE.get(target)
    if row is not None:
        if kind not in (None, row.kind):
            raise ConfigError(
                where, f"{target}, a part for another place ({row.kind})", accepted, "name one of these"
            )
        return
    near = nearest(target, TABLE)
    if "." not in target and near:
        raise ConfigError(where, f"unknown part `{shown(target)}`", accepted, f"did you mean `{near[0]}`?")
    if trusted and all(part.isidentifier() for part in target.split(".")) and "." in target:
        return
    todo = "name one of these; if you have read the file and trust it: --trust"
    raise UnsafeError(
        where, f"_target_ {shown(target)!r}, which is not in the table of parts", accepted, todo
    )


def resolve(component: Component, kind: Kind | None, trusted: bool = False) -> Any:
    """The class that a component names.

    Raises:
        ConfigError: Misspelt, in a wrong place, or (trusted) not to be found.
        UnsafeError: Not in the table and not trusted.
    """
    check_target(component.target, kind, component.where, trusted=trusted)
    row = TABLE.get(component.target)
    if row is None:
        return _trusted_class(component)
    module, _, name = row.path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _trusted_class(component: Component) -> Any:
    """Import a dotted path. Only for a bundle that the user has read and trusts."""
    module, _, name = component.target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        todo = "correct the path, or install the package"
        raise ConfigError(component.where, f"{component.target}: {error}", "MODULE.NAME", todo) from error


def build(component: Component, kind: Kind | None, *, trusted: bool = False, **extra: object) -> Any:
    """Make the object that a component describes.

    Args:
        component: From a bundle.
        kind: What may stand in its place; None: any.
        trusted: Whether the bundle was opened with --trust.
        extra: Arguments that medxfer gives, not the bundle; those that the part does not take are an error.

    Raises:
        ConfigError: A misspelt, missing or impossible argument.
        UnsafeError: Not in the table and not trusted.
    """
    factory = resolve(component, kind, trusted)
    arguments = _checked_arguments(component, factory, tuple(extra))
    made = {name: _built(value, trusted) for name, value in arguments.items()}
    try:
        return factory(**made, **extra)
    except (TypeError, ValueError) as error:  # what constructors refuse arguments with
        seen = f"{component.target}: {error}"
        where = _blamed(component) or component.target  # a preset's part stands on no line
        raise ConfigError(where, seen, _signature(factory), "correct its arguments") from error


def check_components(bundle: Bundle) -> None:
    """Import every part that a bundle names and check the names and types of its arguments; builds nothing.

    Raises:
        ConfigError: A misspelt, missing or impossible argument.
    """
    for component, kind in components_of(bundle):
        _checked_arguments(component, resolve(component, kind, bundle.trusted), ())


def components_of(bundle: Bundle) -> Iterator[tuple[Component, Kind | None]]:
    """Every component of a bundle with the kind of its place, nested ones included."""
    roots: list[tuple[Component, Kind | None]] = [(bundle.task, "task")]
    roots += [(component, "transform") for component in bundle.images.transforms or ()]
    roots += [(component, "augment") for component in bundle.images.augment or ()]
    for component, kind in roots:
        yield component, kind
        yield from ((inner, None) for inner in _inside(component.arguments))


def _inside(value: object) -> Iterator[Component]:
    if isinstance(value, Component):
        yield value
        yield from _inside(value.arguments)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def _built(value: Any, trusted: bool) -> Any:
    """An argument, components among it built; in a trusted bundle `$` texts are evaluated now."""
    if isinstance(value, Component):
        return build(value, None, trusted=trusted)
    if isinstance(value, Mapping):
        return {key: _built(item, trusted) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_built(item, trusted) for item in value)
    if trusted and isinstance(value, str) and value.startswith("$"):
        return trusted_value(value)
    return value


def _checked_arguments(component: Component, factory: Any, extra: tuple[str, ...]) -> dict[str, Any]:
    """Arguments by name and type against the signature; nothing goes through **kwargs unseen."""
    parameters = _parameters(factory)
    own = [name for name in parameters if name not in extra]
    for name in component.arguments:
        if name not in own:
            near = nearest(name, own)
            todo = f"did you mean `{near[0]}`?" if near else "delete it"
            seen = f"{component.target} takes no argument `{shown(name)}`"
            where = _blamed(component, name, "_target_")
            raise ConfigError(where, seen, ", ".join(own) or "no arguments", todo)
    missing = [
        name
        for name in own
        if parameters[name].default is inspect.Parameter.empty and name not in component.arguments
    ]
    if missing:
        seen = f"{component.target} without {', '.join(f'`{name}`' for name in missing)}"
        where = _blamed(component, "_target_")
        raise ConfigError(where, seen, _signature(factory), f"add `{missing[0]}:`")
    hints = _hints(factory)
    marks = {path: Mark(place) for path, place in component.places.items()}
    place = Document(None, {(): Mark(component.where), **marks})
    return {
        name: value if _is_open(value) else convert(value, hints.get(name, Any), (name,), place)
        for name, value in component.arguments.items()
    }


def _blamed(component: Component, *names: str) -> str:
    """Where an option set one of these arguments (of all, where none is named), else where the component stands."""
    for path, place in component.places.items():
        if is_option(place) and (not names or path[0] in names):
            return place
    return component.where


def _is_open(value: Any) -> bool:
    """Components and trusted `$` texts have their type only after they are built."""
    return (isinstance(value, str) and value.startswith("$")) or any(True for _ in _inside(value))


def _parameters(factory: Any) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(factory).parameters.items()
    return {name: parameter for name, parameter in parameters if parameter.kind in named}


def _hints(factory: Any) -> Mapping[str, Any]:
    """Type hints of the constructor; none where a library's cannot be resolved."""
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):
        return {}


def _signature(factory: Any) -> str:
    return (
        ", ".join(str(parameter).split(":")[0] for parameter in _parameters(factory).values())
        or "no arguments"
    )


def place_kind(path: KeyPath) -> Kind | None:
    """What kind of part stands under a key path; None where the part around it decides."""
    if path == ("task",):
        return "task"
    if len(path) == 3 and path[:2] in _LISTS:
        return _LISTS[path[:2]]
    return None


_LISTS: Mapping[KeyPath, Kind] = {("images", "transforms"): "transform", ("images", "augment"): "augment"}
