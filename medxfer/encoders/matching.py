"""Which tensor of a weights file is meant by which of an encoder: key maps, prefixes found out."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..cards import EncoderCard, WeightsCard
from ..plugin import Encoder
from .fitting import fits
from .keymaps import KeyMap, built_in_names, read_key_map


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way in which a file's names may be meant."""

    key_map: KeyMap
    name: str = ""  # of the key map; empty: names as they are
    cards: tuple[WeightsCard, ...] = ()  # the tags that say so


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A weights file, read, and what is known of it."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    card: WeightsCard | None  # None: somebody's own file
    readings: tuple[Reading, ...]
    option_sets: tuple[Mapping[str, Any], ...]  # what the encoder may have to be built with, likeliest first
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which tensor of the file is meant by which of the encoder."""

    keys: Mapping[str, str]  # our name -> the file's
    prefix: str = ""
    size: int = 0  # numbers in parameters that fit
    reading: Reading = Reading(key_map=KeyMap())
    others: tuple[str, ...] = ()  # prefixes under which other tensors of the file fit as well


def readings_of(card: EncoderCard, tags: Iterable[WeightsCard]) -> tuple[Reading, ...]:
    """Names as they are, those of the encoder's own card, then each key map of the tags and of the card once."""
    tags = tuple(tags)
    by_map: dict[str, list[WeightsCard]] = defaultdict(list)
    own: list[WeightsCard] = []
    for tag in tags:
        if not tag.key_map:
            own.append(tag)
        if tag.key_map:
            by_map[tag.key_map].append(tag)
    for name in card.key_maps:  # the same network, published by others: who trained it is not known
        by_map[name] = by_map.get(name) or list(tags)
    mapped = (
        Reading(key_map=read_key_map(name, card.folder), name=name, cards=tuple(tags))
        for name, tags in by_map.items()
    )
    named = (Reading(key_map=KeyMap(card.names), name=card.id, cards=tuple(own)),) if card.names else ()
    return (Reading(key_map=KeyMap()), *named, *mapped)


@functools.cache
def _built_in() -> tuple[Reading, ...]:
    return tuple(Reading(key_map=read_key_map(name, None), name=name) for name in built_in_names())


def match_names(file: WeightsFile, wanted: Mapping[str, Tensor], parameters: Collection[str]) -> Match:
    """The reading of the file's names, and the prefix before them, under which most parameters fit.

    Somebody's own file may have any publisher's names: where the tags' key maps leave something open, all
    of medxfer's own are tried.

    Args:
        file: What is read.
        wanted: Tensors of an encoder by name.
        parameters: Which of them are parameters; buffers, which many files have not, do not count.
    """
    counted = {name: wanted[name] for name in parameters}
    whole = sum(value.numel() for value in counted.values())
    for reading in file.readings:  # mostly the names need no prefix taken off: that is soon found out
        match = _whole_names(file, wanted, counted, reading)
        if match.size == whole:
            return match
    matches = list(_matches(file, wanted, counted, file.readings))
    if file.card is None and _best(matches).size < whole:
        tried = {reading.name for reading in file.readings}
        matches += _matches(
            file, wanted, counted, (reading for reading in _built_in() if reading.name not in tried)
        )
    best = _best(matches)
    used = set(best.keys.values())
    others = [
        match.prefix
        for match in matches
        if match.reading is best.reading
        and match.size == best.size > 0
        and used.isdisjoint(match.keys.values())
    ]
    return replace(best, others=tuple(others))


def _best(matches: Iterable[Match]) -> Match:
    """The one that fits most; of equals the first with the shortest prefix."""
    return max(matches, key=lambda match: (match.size, -len(match.prefix)), default=Match(keys={}))


def _whole_names(
    file: WeightsFile, wanted: Mapping[str, Tensor], counted: Mapping[str, Tensor], reading: Reading
) -> Match:
    ours = ((reading.key_map(key), key) for key in file.tensors)
    keys = {name: key for name, key in ours if name in wanted}
    return Match(keys=keys, size=_size(file, counted, keys), reading=reading)


def _size(file: WeightsFile, counted: Mapping[str, Tensor], keys: Mapping[str, str]) -> int:
    """Numbers in the tensors that count and fit."""
    return sum(
        counted[ours].numel()
        for ours, key in keys.items()
        if ours in counted and fits(file.tensors[key], counted[ours], ours)
    )


def _matches(
    file: WeightsFile,
    wanted: Mapping[str, Tensor],
    counted: Mapping[str, Tensor],
    readings: Iterable[Reading],
) -> Iterable[Match]:
    for reading in readings:
        by_prefix: dict[str, dict[str, str]] = defaultdict(dict)
        for key in file.tensors:
            rest, prefix = key, ""
            while True:
                ours = reading.key_map(rest)
                if ours in wanted:
                    by_prefix[prefix][ours] = key
                part, dot, rest = rest.partition(".")
                if not dot:
                    break
                prefix += f"{part}."
        for prefix, keys in by_prefix.items():
            yield Match(keys=keys, prefix=prefix, size=_size(file, counted, keys), reading=reading)


def channels_seen(file: WeightsFile, match: Match, encoder: Encoder, wanted: Mapping[str, Tensor]) -> int:
    """Image channels that the file was trained with, by its first convolution."""
    seen: set[int] = set()
    for ours, key in match.keys.items():
        value, target = file.tensors[key], wanted[ours]
        # Equal shapes say nothing: depthwise convolutions have one input channel whatever the image has.
        if value.ndim > 3 and fits(value, target, ours) and target.shape[1] == encoder.in_channels:
            seen.add(value.shape[1])
    seen.discard(encoder.in_channels)
    return seen.pop() if len(seen) == 1 else encoder.in_channels
