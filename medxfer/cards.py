"""What is known of encoders and their weights without running code: cards, read from `cards.yaml`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from .errors import PluginError

# libyaml reads 40 cards in 12 ms, Python's own parser in 89.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsCard:
    """One set of pretrained weights: where it is, what it is, what its inputs look like."""

    tag: str  # "imagenet" -> "efficientnet_lite0.imagenet"
    # "package:import_name/path", "https://...", "hf:owner/name/file", a path; several packages: shards, in order
    source: str | tuple[str, ...]
    sha256: str | None = None  # None: the publisher states none, it is recorded when the file is first used
    size_bytes: int | None = None  # None: the publisher states none
    licence: str  # SPDX, or "see URL" with the URL
    citation: str
    trained_on: str  # in words: "1.28 million ImageNet photographs"
    in_channels: int
    mean: tuple[float, ...]  # of inputs in [0, 1], one a channel
    std: tuple[float, ...]
    value_range: tuple[float, float] = (0.0, 1.0)  # the publisher's own; mean and std lead there from [0, 1]
    key_map: str | None = None  # a name in encoders/keymaps, or a YAML file beside the card
    options: Mapping[str, Any] = field(default_factory=dict)  # of the encoder, that these weights need
    # What they can be used in, of what the encoder can; 2D weights also in 3D, inflated. Empty: in all of it.
    spatial_dims: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """One encoder: its shape, its options, its weights."""

    id: str
    parameters: Mapping[int, int]  # spatial dimensions -> parameters, built with 3 channels
    channels: tuple[int, ...]  # per stage
    strides: tuple[int | tuple[int, ...], ...]  # per stage: one number, or one per axis; cumulative
    options: Mapping[str, Any] = field(default_factory=dict)  # name -> default
    modalities: tuple[str, ...] = ()
    licence: str
    citation: str
    expected_failures: Mapping[str, str] = field(default_factory=dict)  # check of the conformance kit -> why
    weights: tuple[WeightsCard, ...] = ()
    # Published tensor name -> ours, for files that no tag's key map speaks of; a card made by an adapter brings it.
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    key_maps: tuple[
        str, ...
    ] = ()  # further ones, of others who publish this very network: as `WeightsCard.key_map`
    folder: Path | None = field(default=None, compare=False)  # where the card file lies, and its key maps

    def __post_init__(self) -> None:
        """Weights whose dimensions are not stated are for those of the encoder."""
        dims = tuple(sorted(self.spatial_dims))
        weights = tuple(one if one.spatial_dims else replace(one, spatial_dims=dims) for one in self.weights)
        object.__setattr__(self, "weights", weights)

    @property
    def spatial_dims(self) -> frozenset[int]:
        """The numbers of spatial dimensions that it can be built in."""
        return frozenset(self.parameters)

    def strides_in(self, spatial_dims: int) -> tuple[tuple[int, ...], ...]:
        """Cumulative stride per stage and axis."""
        return tuple((s,) * spatial_dims if isinstance(s, int) else s for s in self.strides)

    def weights_tagged(self, tag: str) -> WeightsCard | None:
        """The weights of that tag, or None."""
        return next((card for card in self.weights if card.tag == tag), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """A half-sentence that helps with a misspelt word: the nearest known ones, else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + (", ".join(names) if names else "none")


def read_cards(path: Path) -> dict[str, EncoderCard]:
    """Read a card file strictly.

    Args:
        path: YAML: encoder id -> fields of `EncoderCard`; under `weights`, tag -> fields of `WeightsCard`.

    Returns:
        Encoder id -> card, in the file's order.

    Raises:
        PluginError: Absent, not YAML, an unknown or missing key, a value that makes no sense.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_Loader)  # a safe loader, see above
    except OSError as error:
        raise PluginError(
            str(path), error.strerror or "unreadable", "a card file", "reinstall the plugin"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        seen = " ".join(str(error).split())
        raise PluginError(str(path), f"not YAML: {seen}", "YAML", "mend the card file") from None
    where = path.name
    cards = _mapping(content, where, "encoder id -> its card")
    return {str(name): _encoder_card(str(name), value, where, path.parent) for name, value in cards.items()}


def _encoder_card(name: str, content: object, where: str, folder: Path) -> EncoderCard:
    """One encoder's entry, checked key by key."""
    where = f"{where}: {name}"
    given = dict(_mapping(content, where, "the fields of an encoder card"))
    dims = given.pop("spatial_dims", None)
    tags = _mapping(given.pop("weights", None) or {}, f"{where}.weights", "tag -> weights card")
    values = _checked(
        given, EncoderCard, _ENCODER_VALUES, where, without={"id", "weights", "names", "folder"}
    )
    weights = tuple(_weights_card(str(tag), value, where) for tag, value in tags.items())
    card = EncoderCard(id=name, weights=weights, folder=folder, **values)
    for one in card.weights:
        if not set(one.spatial_dims) <= card.spatial_dims:
            todo = "name dimensions that the encoder has"
            known_dims = f"of {sorted(card.spatial_dims)}"
            _refuse(f"{where}.weights.{one.tag}.spatial_dims", list(one.spatial_dims), known_dims, todo)
        for option in one.options.keys() - card.options.keys():
            _refuse(
                f"{where}.weights.{one.tag}.options.{option}",
                "no option of this encoder",
                ", ".join(card.options) or "no options",
                nearest(option, card.options),
            )
    known = sorted(card.spatial_dims)
    listed = [dims] if isinstance(dims, int) else dims
    if dims is not None and (
        not isinstance(listed, list) or sorted(map(str, listed)) != [str(d) for d in known]
    ):
        _refuse(
            f"{where}.spatial_dims",
            dims,
            f"the keys of `parameters`: {known}",
            "name the same dimensions in both",
        )
    if not card.parameters or not set(card.parameters) <= {2, 3}:
        _refuse(
            f"{where}.parameters", dict(card.parameters), "2: number, 3: number or one of them", "count them"
        )
    if len(card.strides) != len(card.channels):
        seen = f"{len(card.strides)} strides, {len(card.channels)} channels"
        _refuse(where, seen, "one of each per stage", "give `strides` and `channels` the same length")
    axes = {len(stride) for stride in card.strides if isinstance(stride, tuple)}
    if axes and axes != card.spatial_dims:
        _refuse(f"{where}.strides", f"{sorted(axes)} axes", f"{known}", "give one number an axis")
    return card


def _weights_card(tag: str, content: object, where: str) -> WeightsCard:
    """One tag's entry, checked key by key."""
    where = f"{where}.weights.{tag}"
    given = _mapping(content, where, "the fields of a weights card")
    for name in _UNSTATED:
        if name not in given:  # forgotten is not the same as unstated
            _refuse(where, f"no `{name}`", "a complete card", _REMEDIES[name])
    card = WeightsCard(tag=tag, **_checked(given, WeightsCard, _WEIGHTS_VALUES, where, without={"tag"}))
    if not len(card.mean) == len(card.std) == card.in_channels:
        seen = f"{card.in_channels} channels, {len(card.mean)} means, {len(card.std)} deviations"
        _refuse(where, seen, "one mean and one std per channel", "complete the card")
    if min(card.std) <= 0:
        _refuse(f"{where}.std", card.std, "numbers above 0", "give the publisher's standard deviations")
    if card.sha256 is not None and not _SHA256.fullmatch(card.sha256):
        _refuse(f"{where}.sha256", card.sha256, "64 hexadecimal digits", "run `sha256sum` on the file")
    return card


def _mapping(content: object, where: str, accepted: str) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        _refuse(
            where,
            "nothing" if content is None else type(content).__name__,
            accepted,
            "docs/bring-your-own-encoder.md shows a card",
        )
    return content


def _checked(
    given: Mapping[Any, Any],
    kind: type[EncoderCard | WeightsCard],
    parsers: Mapping[str, Callable[[Any], Any]],
    where: str,
    *,
    without: set[str],
) -> dict[str, Any]:
    """Values by field name: every key known, every needed one there, every value of its type."""
    known = {f.name: f for f in fields(kind) if f.name not in without}
    for key in given:
        if key not in known:
            _refuse(f"{where}.{key}", "an unknown key", f"{', '.join(known)}", nearest(str(key), known))
    values: dict[str, Any] = {}
    for name, about in known.items():
        if given.get(name) is None:
            if about.default is MISSING and about.default_factory is MISSING:
                _refuse(where, f"no `{name}`", "a complete card", _REMEDIES.get(name, f"add `{name}`"))
            continue
        try:
            values[name] = parsers[name](given[name])
        except (TypeError, ValueError, AttributeError):
            _refuse(f"{where}.{name}", repr(given[name]), _ACCEPTED.get(name, "text"), "mend the card")
    return values


def _refuse(where: str, seen: object, accepted: str, todo: str) -> NoReturn:
    raise PluginError(where, str(seen), accepted, todo)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError
    return " ".join(value.split())


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise TypeError
    return value


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    numbers = tuple(float(v) for v in value)
    if not all(math.isfinite(v) for v in numbers):
        raise ValueError
    return numbers


def _range(value: object) -> tuple[float, float]:
    low, high = _numbers(value)
    if low >= high:
        raise ValueError
    return low, high


def _strides(value: list[Any]) -> tuple[int | tuple[int, ...], ...]:
    return tuple(tuple(_whole(v) for v in s) if isinstance(s, list) else _whole(s) for s in value)


def _source(value: object) -> str | tuple[str, ...]:
    if not isinstance(value, list):
        return _text(value)
    shards = tuple(_text(one) for one in value)
    if not shards or any(":" in one and not one.startswith("package:") for one in shards):
        raise ValueError
    return shards


def _options(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_text(name): default for name, default in value.items()}


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(one) for one in value)


def _dims(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not set(value) <= {2, 3}:
        raise ValueError
    return tuple(sorted(set(value)))


_ENCODER_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "parameters": lambda value: {_whole(dims): _whole(count) for dims, count in value.items()},
    "channels": lambda value: tuple(_whole(v) for v in value),
    "strides": _strides,
    "options": _options,
    "expected_failures": lambda value: {_text(name): _text(why) for name, why in value.items()},
    "modalities": lambda value: tuple(_text(v) for v in ([value] if isinstance(value, str) else value)),
    "licence": _text,
    "citation": _text,
    "key_maps": _texts,
}
_WEIGHTS_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "source": _source,
    "sha256": lambda value: _text(value).lower(),
    "size_bytes": _whole,
    "licence": _text,
    "citation": _text,
    "trained_on": _text,
    "in_channels": _whole,
    "mean": _numbers,
    "std": _numbers,
    "value_range": _range,
    "key_map": _text,
    "options": _options,
    "spatial_dims": _dims,
}
_UNSTATED = ("sha256", "size_bytes")  # may be null, but the key must be there
_ACCEPTED = {
    "source": "package:IMPORT_NAME/path, https://..., hf:owner/name/file, a path, or a list of packages (shards)",
    "parameters": "dimensions -> number of parameters, such as {2: 11176512}",
    "channels": "a list of whole numbers, one a stage",
    "strides": "a list: per stage a whole number, or a list with one an axis",
    "options": "name -> default",
    "expected_failures": "name of a check -> why it cannot pass",
    "modalities": "a list of words",
    "size_bytes": "a whole number",
    "in_channels": "a whole number",
    "mean": "a list of numbers",
    "std": "a list of numbers",
    "value_range": "[low, high]",
    "spatial_dims": "a list: [2], [3] or [2, 3]",
    "key_maps": "a list of names in encoders/keymaps, or of YAML files beside the card",
}
_REMEDIES = {
    "licence": "add an SPDX id, or `see URL` with the publisher's URL",
    "sha256": "add what `sha256sum` says of the file, or `sha256: null` where its publisher states none",
    "size_bytes": "add the size, or `size_bytes: null` where the publisher states none",
    "citation": "add the paper or the repository that it comes from",
}
