"""Plain data to dataclasses by their type hints, with ranges, nearest names and the line in every refusal."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Union

from ..errors import ConfigError
from . import schema
from .schema import Component
from .source import Document, KeyPath, dotted, printable, word


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a setting takes; `above` and `below` leave the bound itself out, `also` is one outside of both."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    also: float | None = None

    def __contains__(self, number: float) -> bool:
        low = number > self.low if self.above else number >= self.low
        return number == self.also or (low and (number < self.high if self.below else number <= self.high))

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'from'} {self.low:g}"
        other = "" if self.also is None else f", or {self.also:g}"
        return f"{low} {'to below' if self.below else 'to'} {self.high:g}{other}"


_SHARED = {
    "batch": Range(1, 65_536),
    "clip_norm": Range(0, 1e9),
    "patience": Range(0, 100_000),
    "weight_decay": Range(0, 1e3),
    "warmup": Range(0, 1),
    "dropout": Range(0, 1, below=True),
    "label_smoothing": Range(0, 1, below=True),
}
RANGES: Mapping[tuple[type, str], Range] = {
    (schema.Bundle, "seed"): Range(0, 2**32 - 1),
    (schema.SplitSpec, "test"): Range(0, 1, above=True, below=True),
    (schema.SplitSpec, "val"): Range(0, 1, above=True, below=True),
    (schema.SplitSpec, "folds"): Range(2, 100),
    (schema.SplitSpec, "fold"): Range(0, 99),
    (schema.ImagesSpec, "size"): Range(16, 2048, also=1),  # 1 of volumes only: planes
    (schema.ImagesSpec, "spacing"): Range(0, 1000, above=True),
    (schema.PatchSpec, "count"): Range(1, 10_000),
    (schema.PatchSpec, "foreground"): Range(0, 1),
    (schema.SliceSpec, "every"): Range(1, 10_000),
    (schema.SliceSpec, "context"): Range(0, 100),
    (schema.EncoderSpec, "in_channels"): Range(1, 1024),
    (schema.EncoderSpec, "min_coverage"): Range(0, 1),
    (schema.PhaseSpec, "lr"): Range(0, 1e3, above=True),
    (schema.PhaseSpec, "epochs"): Range(0, 100_000),
    (schema.PhaseSpec, "k"): Range(1, 10_000),
    (schema.PhaseSpec, "layer_decay"): Range(0, 1, above=True),
    (schema.PhaseSpec, "views"): Range(1, 1000),
    **{(schema.TrainingSpec, name): limits for name, limits in _SHARED.items()},
    **{(schema.PhaseSpec, name): limits for name, limits in _SHARED.items()},
}
NAME = re.compile(r"\w[\w.-]{0,99}")  # becomes part of file names

_WORDS_FOR = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def convert(value: Any, hint: Any, path: KeyPath, document: Document) -> Any:
    """Turn plain data into what a type hint says.

    Args:
        value: From the document.
        hint: A dataclass, `Literal`, `X | None`, tuple, sequence, mapping, number, text or `Any`.
        path: Keys that lead to the value.
        document: Where it came from.

    Raises:
        ConfigError: Another type, an unknown key or choice, or out of range.
    """
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return components_in(value, path, document)
    if hint is Component:
        return component(value, path, document)
    if dataclasses.is_dataclass(hint):
        return _dataclass(value, hint, path, document)
    if origin in (Union, types.UnionType):
        return _union(value, arguments, path, document)
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise _unknown(document.where(path), shown(value), [str(choice) for choice in arguments])
    if origin in (tuple, list, collections.abc.Sequence) and arguments:
        return _sequence(value, origin, arguments, path, document)
    if origin in (dict, collections.abc.Mapping) and arguments:
        if not isinstance(value, dict):
            raise wrong_type(value, "a mapping of names to values", path, document)
        return {key: convert(item, arguments[1], (*path, key), document) for key, item in value.items()}
    if hint in _WORDS_FOR:
        return _scalar(value, hint, path, document)
    return components_in(value, path, document)


def _scalar(value: Any, hint: type, path: KeyPath, document: Document) -> Any:
    if type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raw = document.raw(path)
    # A patient column called 2019 or an id 007 is text even without quotes, and keeps its zeros.
    if hint is str and isinstance(value, int | float) and raw is not None and word(raw) == value:
        return raw
    raise wrong_type(value, _WORDS_FOR[hint], path, document)


def _union(value: Any, choices: tuple[Any, ...], path: KeyPath, document: Document) -> Any:
    if value is None and type(None) in choices:
        return None
    others = [choice for choice in choices if choice is not type(None)]
    if len(others) == 1:
        return convert(value, others[0], path, document)
    # A number stays one where text is accepted as well.
    exact = float if type(value) is int and int not in others else type(value)
    for choice in sorted(others, key=lambda choice: choice is not exact):
        try:
            return convert(value, choice, path, document)
        except ConfigError:
            continue
    raise wrong_type(value, " or ".join(_name_of(choice) for choice in others), path, document)


def _name_of(hint: Any) -> str:
    return _WORDS_FOR.get(hint) or str(getattr(hint, "__name__", hint))


def _sequence(value: Any, origin: Any, arguments: tuple[Any, ...], path: KeyPath, document: Document) -> Any:
    if not isinstance(value, list):
        raise wrong_type(value, "a list", path, document)
    fixed = origin is tuple and arguments[-1:] != (Ellipsis,)
    if fixed and len(value) != len(arguments):
        raise wrong_type(value, f"a list of {len(arguments)}", path, document)
    hints = arguments if fixed else (arguments[0],) * len(value)
    pairs = enumerate(zip(value, hints, strict=True))
    items = [convert(item, hint, (*path, index), document) for index, (item, hint) in pairs]
    return items if origin is list else tuple(items)


@functools.cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Type hints of a dataclass, resolved."""
    return typing.get_type_hints(kind)


def _dataclass(value: Any, kind: Any, path: KeyPath, document: Document) -> Any:
    if value is None:  # `patient: null`: nothing said about it, so the defaults
        value = {}
    if not isinstance(value, dict):
        raise wrong_type(value, "a mapping with " + ", ".join(hints_of(kind)), path, document)
    hints = hints_of(kind)
    for key in value:
        if key not in hints:
            raise unknown_key(key, hints, path, document)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        seen = f"no {' and no '.join(f'`{name}`' for name in missing)}"
        raise ConfigError(
            document.where(path) or "configuration", seen, "these keys are needed", f"add `{missing[0]}:`"
        )
    made = {key: convert(item, hints[key], (*path, key), document) for key, item in value.items()}
    for key, item in made.items():
        limits = RANGES.get((kind, key))
        for number in item if isinstance(item, tuple) else (item,):
            if limits is not None and number is not None and number not in limits:
                raise ConfigError(
                    document.where((*path, key)), f"{number:g}", str(limits), f"change {dotted((*path, key))}"
                )
    for check in CHECKS.get(kind, ()):
        check(made, path, document)
    return kind(**made)


def component(value: Any, path: KeyPath, document: Document) -> Component:
    """A mapping with `_target_` as a Component, components among its arguments included."""
    if not isinstance(value, dict) or "_target_" not in value:
        raise wrong_type(value, "a component: {_target_: NAME, argument: value}", path, document)
    arguments = {key: item for key, item in value.items() if key != "_target_"}
    made = {key: components_in(item, (*path, key), document) for key, item in arguments.items()}
    return Component(
        target=value["_target_"],
        arguments=made,
        where=document.where(path),
        places=dict(_places_below(value, (), path, document)),
    )


def _places_below(
    value: Any, below: KeyPath, path: KeyPath, document: Document
) -> Iterator[tuple[KeyPath, str]]:
    """Places of what stands in a component, by the keys that lead to it from there."""
    if below and (mark := document.marks.get((*path, *below))):
        yield below, mark.place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places_below(item, (*below, key), path, document)


def components_in(value: Any, path: KeyPath, document: Document) -> Any:
    """Free values of component arguments: as they are, components among them converted."""
    if isinstance(value, dict):
        if "_target_" in value:
            return component(value, path, document)
        return {key: components_in(item, (*path, key), document) for key, item in value.items()}
    if isinstance(value, list):
        return [components_in(item, (*path, index), document) for index, item in enumerate(value)]
    return value


def nearest(text: str, names: Iterable[str]) -> list[str]:
    """Known names that look like a text, best first; upper and lower case do not matter."""
    known = {name.casefold(): name for name in names}
    return [known[name] for name in difflib.get_close_matches(text.casefold(), known, 3, 0.6)]


def shown(value: Any) -> str:
    """A value as messages print it, cut when long."""
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = printable(text)
    return text if len(text) <= 80 else text[:77] + "..."


def wrong_type(value: Any, wanted: str, path: KeyPath, document: Document) -> ConfigError:
    """Refusal of a value of another type."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    kind = kinds.get(type(value), "a number")
    seen = kind if value is None or isinstance(value, dict | list) else f"{shown(value)} ({kind})"
    where = document.where(path) or "configuration"
    if wanted == "text" and kind in ("a number", "true or false"):
        return ConfigError(where, seen, wanted, f"put quotes around it: '{shown(value)}'")
    return ConfigError(where, seen, wanted, f"change {dotted(path)}" if path else "write keys and values")


def unknown_key(key: str, known: Iterable[str], path: KeyPath, document: Document) -> ConfigError:
    """Refusal of a misspelt or misplaced key, with the nearest names or the place where it belongs."""
    names = [name for name in known if (path, name) not in _NOT_WRITTEN]
    near = nearest(key, names)
    elsewhere = [place for place in _places_of(key) if place != dotted((*path, key))]
    if near:
        todo = f"did you mean {' or '.join(f'`{name}`' for name in near)}?"
    elif elsewhere:
        todo = f"did you mean {' or '.join(f'`{place}`' for place in elsewhere[:3])}?"
    else:
        todo = "delete it"
    return ConfigError(document.where((*path, key)), f"unknown key `{shown(key)}`", ", ".join(names), todo)


_NOT_WRITTEN = {((), "folder"), ((), "trusted")}  # fields of Bundle that no file sets


def _places_of(key: str) -> list[str]:
    """Where in a bundle a key exists: `training.batch`, `phases.0.batch`."""
    places = []
    for name, hint in hints_of(schema.Bundle).items():
        inner, prefix = hint, name
        if typing.get_origin(hint) is tuple:
            inner, prefix = typing.get_args(hint)[0], f"{name}.0"
        if (
            dataclasses.is_dataclass(inner)
            and inner is not Component
            and key in hints_of(typing.cast("type", inner))
        ):
            places.append(f"{prefix}.{key}")
        elif name == key and key not in ("folder", "trusted"):
            places.append(name)
    return places


def _unknown(where: str, seen: str, choices: list[str]) -> ConfigError:
    near = nearest(seen, choices)
    todo = f"did you mean `{near[0]}`?" if near else f"write one of the {len(choices)}"
    return ConfigError(where, seen, ", ".join(choices), todo)


def _check_name(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    name = values.get("name")
    if name is not None and not NAME.fullmatch(name):
        accepted = "letters, digits, `_`, `-` and `.`, a letter or digit first"
        raise ConfigError(document.where((*path, "name")), shown(name), accepted, "write a plain name")


def _check_shares(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    defaults = schema.SplitSpec()
    test, val = values.get("test", defaults.test), values.get("val", defaults.val)
    if test + val >= 1:
        seen = f"test {test:g} + val {val:g} leave nothing to train on"
        where = document.blamed(*((*path, name) for name in ("test", "val") if name in values))
        raise ConfigError(where, seen, "test + val below 1", "lower one of them")


def _check_fold(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    folds, fold = values.get("folds"), values.get("fold", 0)
    if fold and (folds is None or fold >= folds):
        seen = f"fold {fold} of {folds or 'no'} folds"
        accepted = f"0 to {folds - 1}" if folds else "data.split.folds beside it"
        where = document.blamed((*path, "fold"), (*path, "folds"))
        raise ConfigError(where, seen, accepted, "change data.split.fold")


def _check_pattern(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    pattern = values.get("pattern")
    if pattern is None:
        return
    try:
        re.compile(pattern)
    except re.error as error:
        where = document.where((*path, "pattern"))
        raise ConfigError(where, f"{shown(pattern)}: {error}", "a regular expression", "correct it") from None


def _check_phases(values: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    names = [phase.name for phase in values["phases"]]
    if not names:
        raise ConfigError(document.where((*path, "phases")), "no phase", "at least one phase", "add a phase")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        equal = [index for index, name in enumerate(names) if name == twice]
        where = document.blamed(*((*path, "phases", index, "name") for index in reversed(equal)))
        raise ConfigError(where, f"a second phase called {twice}", "each name once", "give it another name")


def _check_dims(made: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    """Slices are pictures; a size or spacing has one number an axis."""
    images, data = made.get("images", schema.ImagesSpec()), made["data"]
    if data.slices is not None and images.dims == 3:
        where = document.blamed((*path, "images", "dims"), (*path, "data", "slices")) or "images.dims"
        todo = "set images.dims=2, or leave out data.slices"
        raise ConfigError(where, "3, and data.slices cuts volumes into pictures", "2 with data.slices", todo)
    for name in ("size", "spacing"):
        value = getattr(images, name)
        if isinstance(value, tuple) and len(value) != images.dims:
            where = document.blamed((*path, "images", name), (*path, "images", "dims")) or f"images.{name}"
            seen = f"{len(value)} numbers, images.dims is {images.dims}"
            raise ConfigError(where, seen, f"{images.dims} numbers", f"change images.{name} or images.dims")


def _check_thin(made: Mapping[str, Any], path: KeyPath, document: Document) -> None:
    """A side of 1 makes planes of volumes: one side only, and as patches."""
    images = made.get("images", schema.ImagesSpec())
    count = images.shape.count(1)
    if not count:
        return
    where = (
        document.blamed(*((*path, "images", name) for name in ("size", "patches", "dims"))) or "images.size"
    )
    size = f"[{', '.join(map(str, images.shape))}]"
    if images.thin is None:
        accepted = "sides from 16 to 2048; of volumes one may be 1, the network then sees planes across it"
        todo = f"give {'this side' if count == 1 else 'the other sides'} a length in voxels, such as "
        todo += "[160, 160, 1]" if images.dims == 3 else "[160, 160]"
        raise ConfigError(where, f"{size}: {count} of {images.dims} sides are 1", accepted, todo)
    if images.patches is None:
        seen = f"{size}: one voxel thick, and whole volumes would be brought to it"
        todo = "add images.patches: {count: 16, foreground: 0.5}"
        raise ConfigError(where, seen, "images.patches beside a side of 1", todo)


CHECKS: Mapping[type, tuple[Callable[[Mapping[str, Any], KeyPath, Document], None], ...]] = {
    schema.Bundle: (_check_name, _check_phases, _check_dims, _check_thin),
    schema.PhaseSpec: (_check_name,),
    schema.SplitSpec: (_check_shares, _check_fold),
    schema.PatientSpec: (_check_pattern,),
}
