"""Which encoders are installed, and how one is built: entry points and cards, imported when used."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards import EncoderCard, nearest, read_cards
from ..errors import MedxferError, PluginError
from .undisturbed import cause_of, undisturbed

if TYPE_CHECKING:
    from ..plugin import Encoder

ENCODERS = "medxfer.encoders"
CARDS = "medxfer.cards"
REMARKS = "medxfer.remarks"
ADAPTERS = "medxfer.adapters"  # names of encoders that take a further name, told without importing them

# Encoder id -> the distribution that brings it, a help for those who have not installed it: nothing else in
# medxfer knows plugins by name, and one that is not here works the same.
KNOWN_PACKAGES: Mapping[str, str] = {
    "efficientnet_lite0": "medxfer-efficientnet-lite",
    "efficientnet_lite1": "medxfer-efficientnet-lite[lite1]",
    "efficientnet_lite2": "medxfer-efficientnet-lite[lite2]",
    "timm": "medxfer-timm",
    "i3resnet152": "medxfer-i3resnet[weights]",
}

# What decides the dimensions that an encoder is asked for, in a bundle.
OTHER_DIMENSIONS: Mapping[int, str] = {
    2: "for volumes set images.dims=3 and no side of images.size to 1",
    3: "a 2D encoder segments volumes plane by plane where images.size has a side of 1, such as [160, 160, 1]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One encoder id as found: usable, or with the reason why not."""

    id: str
    distribution: str
    version: str
    card: EncoderCard | None  # None: the plugin has none, or it is broken (`error`)
    error: str | None = None
    is_adapter: bool = False  # timm:<name>
    entry: EntryPoint | None = field(default=None, repr=False)

    @property
    def brought_by(self) -> str:
        """Distribution and version in one word group."""
        return f"{self.distribution} {self.version}".strip()


def list_encoders() -> list[Listing]:
    """Every installed encoder by id, broken ones with their error; imports neither torch nor plugins."""
    return list(_discover(tuple(sys.path), os.environ.get("MEDXFER_DISABLE_PLUGINS", "")))


def card_of(encoder_id: str) -> EncoderCard:
    """The card of an encoder; where its plugin has none, it is built to see what can be seen.

    An adapter makes its cards: the function `card(name)` beside its build function.

    Raises:
        PluginError: Unknown, broken or ambiguous id.
    """
    listing = _find(encoder_id)
    return listing.card or _card_by_adapter(listing, encoder_id) or _card_by_building(encoder_id)


def remarks() -> list[str]:
    """What installed plugins say of this machine: entry points `medxfer.remarks`, functions that give sentences."""
    said: list[str] = []
    off = _off(os.environ.get("MEDXFER_DISABLE_PLUGINS", ""))
    for entry in entry_points(group=REMARKS):
        if _is_off(_owner(entry)[0], entry.name, off):
            continue
        try:
            with undisturbed():
                said += entry.load()()
        except (Exception, SystemExit) as error:  # a plugin that fails here is a remark by itself
            said.append(f"{' '.join(_owner(entry))}: {cause_of(error)}")
    return said


def disabled_owner(name: str) -> str:
    """The distribution, with version, of an installed encoder that MEDXFER_DISABLE_PLUGINS leaves out; else empty."""
    for entry in installed_entry_points(tuple(sys.path)).select(group=ENCODERS):
        if entry.name == name and is_disabled(_owner(entry)[0], name):
            return " ".join(_owner(entry))
    return ""


def is_disabled(distribution: str, encoder_id: str) -> bool:
    """Whether MEDXFER_DISABLE_PLUGINS leaves out a distribution's encoder."""
    return _is_off(distribution, encoder_id, _off(os.environ.get("MEDXFER_DISABLE_PLUGINS", "")))


def disabled_error(where: str) -> PluginError:
    """The refusal of what MEDXFER_DISABLE_PLUGINS leaves out."""
    seen = f"disabled: MEDXFER_DISABLE_PLUGINS is set to {os.environ.get('MEDXFER_DISABLE_PLUGINS', '')!r}"
    return PluginError(where, seen, "an encoder in use", "unset it, or take this one out of it")


def build(
    encoder_id: str, *, spatial_dims: int, in_channels: int, options: Mapping[str, Any] | None = None
) -> Encoder:
    """Build an encoder with random weights from torch's global generator, whose state is put back afterwards.

    Args:
        encoder_id: As listed; `adapter:name` hands `name` to the adapter.
        spatial_dims: 2 or 3.
        in_channels: Channels of the first convolution.
        options: By name, as on the card.

    Raises:
        PluginError: Unknown, broken or ambiguous id; dimensions or options not on the card; a failing build,
            or one that gives something else than an `Encoder` with the parts of the contract.
    """
    from ..plugin import Encoder
    from .contract import attribute_fault

    listing = _find(encoder_id)
    chosen = dict(options or {})
    _check_request(listing, spatial_dims, chosen)
    function = _load(listing)
    _, _, rest = encoder_id.partition(":")
    _check_name(listing, function, rest)
    given = (rest,) if rest else ()
    try:
        with undisturbed():
            encoder = function(*given, spatial_dims=spatial_dims, in_channels=in_channels, **chosen)
    except MedxferError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed_build(listing, chosen, error) from error
    if not isinstance(encoder, Encoder):
        raise _broken(listing, f"build returned {type(encoder).__name__}, not a medxfer.plugin.Encoder")
    fault = attribute_fault(encoder, spatial_dims, in_channels)
    if fault is not None:
        raise _broken(listing, f"outside the contract: {fault}")
    return encoder


@functools.cache
def installed_entry_points(path: tuple[str, ...]) -> EntryPoints:
    """What every distribution on `path`, that is `sys.path`, declares; reading it takes longer than all the rest."""
    del path  # part of the key only
    found: EntryPoints = entry_points()  # type: ignore[assignment]  # the stub still has what Python 3.9 gave
    return found


@functools.cache
def _discover(path: tuple[str, ...], disabled: str) -> tuple[Listing, ...]:
    """All listings; the arguments are what the answer depends on: a changed one is looked up anew."""
    found = installed_entry_points(path)
    off = _off(disabled)
    by_owner: dict[str, tuple[dict[str, EncoderCard], list[str]]] = defaultdict(lambda: ({}, []))
    for entry in found.select(group=CARDS):
        cards, errors = by_owner[_owner(entry)[0]]
        try:
            cards.update(read_cards(_card_file(entry)))
        except MedxferError as error:
            errors.append(f"{error.where}: {error.seen}; {error.todo}")
    adapters = {(_owner(entry)[0], entry.name) for entry in found.select(group=ADAPTERS)}
    ids: dict[str, set[str]] = defaultdict(set)
    for entry in found.select(group=ENCODERS):
        ids[_owner(entry)[0]].add(entry.name)
    for name, (cards, errors) in by_owner.items():
        strangers = sorted(cards.keys() - ids[name])
        bare = sorted(one for one in ids[name] - cards.keys() if (name, one) not in adapters)
        if strangers and bare:
            known = f"cards.yaml has `{'`, `'.join(strangers)}`, the entry point is `{'`, `'.join(bare)}`"
            errors.append(f"{known}; give both one name")
    listings: dict[str, list[Listing]] = defaultdict(list)
    for entry in found.select(group=ENCODERS):
        name, version = _owner(entry)
        if _is_off(name, entry.name, off):
            continue
        cards, errors = by_owner[name]
        listing = Listing(
            id=entry.name,
            distribution=name,
            version=version,
            card=cards.get(entry.name),
            error="; ".join(errors) or None if entry.name not in cards else None,
            is_adapter=(name, entry.name) in adapters,
            entry=entry,
        )
        if all(
            other.entry != entry for other in listings[entry.name]
        ):  # one distribution found twice on the path
            listings[entry.name].append(listing)
    return tuple(_one(listings[name]) for name in sorted(listings))


def _one(found: list[Listing]) -> Listing:
    """The listing of one id; several distributions with one id are an error that names them all."""
    if len(found) == 1:
        return found[0]
    owners = sorted(listing.brought_by for listing in found)
    error = f"{' and '.join(owners)} both bring an encoder of this name; uninstall one, or disable it"
    return Listing(id=found[0].id, distribution=", ".join(owners), version="", card=None, error=error)


def _find(encoder_id: str) -> Listing:
    """The usable listing of an id.

    Raises:
        PluginError: Unknown, broken or ambiguous.
    """
    name, colon, _ = encoder_id.partition(":")
    listings = {listing.id: listing for listing in list_encoders()}
    listing = listings.get(name)
    if listing is None:
        owner = disabled_owner(name)
        if owner:
            raise disabled_error(f"encoder {encoder_id} of {owner}")
        package = KNOWN_PACKAGES.get(encoder_id) or KNOWN_PACKAGES.get(name)
        todo = nearest(encoder_id, listings)
        if package:
            todo = f"pip install {package}, which brings it; {todo}"
        raise PluginError(f"encoder {encoder_id}", "not installed", "an installed encoder", todo)
    if listing.error:
        todo = "see `medxfer plugin list`"
        raise PluginError(
            f"encoder {encoder_id} of {listing.brought_by}", listing.error, "a sound plugin", todo
        )
    if colon and listing.card is not None:
        seen = f"{name} takes no further name"
        raise PluginError(f"encoder {encoder_id}", seen, "an id without colon", f"write {name}")
    return listing


def _check_request(listing: Listing, spatial_dims: int, options: Mapping[str, Any]) -> None:
    """Refuse dimensions and options that the card does not name."""
    card = listing.card
    if card is None:
        return
    if spatial_dims not in card.spatial_dims:
        known = " or ".join(f"{dims}D" for dims in sorted(card.spatial_dims))
        todo = f"`medxfer encoders --dims {spatial_dims}` lists the others; {OTHER_DIMENSIONS[spatial_dims]}"
        raise PluginError(f"encoder {card.id}", f"asked for in {spatial_dims}D", known, todo)
    for name in options:
        if name not in card.options:
            seen, known = f"unknown option `{name}`", ", ".join(card.options) or "no options"
            raise PluginError(f"encoder {card.id}", seen, known, nearest(name, card.options))


def _check_name(listing: Listing, function: Any, rest: str) -> None:
    """Refuse an adapter without a further name, and a further name for what is no adapter."""
    parameters = inspect.signature(function).parameters.values()
    adapts = any(one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty for one in parameters)
    if adapts and not rest:
        accepted = f"{listing.id}:NAME"
        todo = "add a colon and the network's name"
        raise PluginError(f"encoder {listing.id}", "an adapter without a name", accepted, todo)
    if rest and not adapts:
        seen = f"{listing.id} takes no further name"
        raise PluginError(f"encoder {listing.id}:{rest}", seen, "an id without colon", f"write {listing.id}")


def _load(listing: Listing) -> Any:
    """The build function: the plugin is imported here and nowhere before."""
    assert listing.entry is not None  # only clashes have none, and _find refuses them
    try:
        with undisturbed():
            function = listing.entry.load()
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    except (Exception, SystemExit) as error:
        raise _broken(listing, f"cannot be loaded: {cause_of(error)}") from error
    if inspect.Parameter.VAR_KEYWORD in kinds:
        raise _broken(
            listing, f"{listing.entry.value} takes **kwargs: a misspelt option would not be refused"
        )
    return function


def _broken(listing: Listing, seen: str) -> PluginError:
    value = listing.entry.value if listing.entry else ""
    todo = f"reinstall or uninstall {listing.distribution}, or tell its authors"
    where = f"encoder {listing.id} of {listing.brought_by} ({value})"
    return PluginError(where, seen, "a build function that gives an Encoder", todo)


def _failed_build(listing: Listing, chosen: Mapping[str, Any], error: BaseException) -> PluginError:
    """Whose fault it is: the plugin's, or that of an option's value which is not the card's."""
    defaults = listing.card.options if listing.card else {}
    changed = {
        name: value for name, value in chosen.items() if name not in defaults or defaults[name] != value
    }
    if not changed or isinstance(error, SystemExit):
        return _broken(listing, f"build failed: {cause_of(error)}")
    given = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    known = ", ".join(f"{name}={defaults[name]!r}" for name in changed if name in defaults)
    accepted = f"a value that its build function takes; on the card: {known or 'no default'}"
    todo = f"change `{'`, `'.join(changed)}`; where the default fails too, tell the authors of {listing.distribution}"
    where = f"encoder {listing.id} of {listing.brought_by}"
    return PluginError(where, f"build failed with {given}: {cause_of(error)}", accepted, todo)


def _card_by_adapter(listing: Listing, encoder_id: str) -> EncoderCard | None:
    """What an adapter's `card` says of the rest of the id; None where it has no such function."""
    _, colon, rest = encoder_id.partition(":")
    if not colon:
        return None
    _load(listing)
    assert listing.entry is not None  # _load saw it
    make = getattr(sys.modules[listing.entry.module], "card", None)
    if make is None:
        return None
    try:
        with undisturbed():
            made = make(rest)
    except MedxferError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(listing, f"card failed: {cause_of(error)}") from error
    if not isinstance(made, EncoderCard):
        raise _broken(listing, f"card returned {type(made).__name__}, not a medxfer.plugin.EncoderCard")
    return made


def _card_by_building(encoder_id: str) -> EncoderCard:
    """What a built encoder tells of itself, in the dimensions that can be built."""
    parameters: dict[int, int] = {}
    problem: PluginError | None = None
    for dims in (2, 3):
        try:
            encoder = build(encoder_id, spatial_dims=dims, in_channels=3)
        except PluginError as error:
            problem = error
            continue
        parameters[dims] = sum(p.numel() for p in encoder.parameters())
        channels = tuple(encoder.channels)
        strides = tuple(tuple(s) if len(set(s)) > 1 else s[0] for s in encoder.strides)
    if not parameters:
        assert problem is not None  # both dimensions failed
        raise problem
    unknown = "not stated: the plugin has no card"
    return EncoderCard(
        id=encoder_id,
        parameters=parameters,
        channels=channels,
        strides=strides,
        licence=unknown,
        citation=unknown,
    )


def _card_file(entry: EntryPoint) -> Path:
    """Where `PACKAGE:FILE` lies, found without importing the package.

    Raises:
        PluginError: No such package, or it is not in a folder.
    """
    module, _, file = entry.value.partition(":")
    top, *inner = module.strip().split(".")
    spec = importlib.util.find_spec(top)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        path = Path(place).joinpath(*inner, file.strip())
        if path.is_file():
            return path
    seen = f"no file {file.strip()} in the package {module}" if places else f"no package {module}"
    raise PluginError(f"card {entry.value}", seen, "PACKAGE:FILE.yaml", "reinstall the plugin")


def _owner(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point belongs to."""
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _off(disabled: str) -> set[str]:
    return {_normal(name) for name in re.split(r"[,\s]+", disabled) if name}


def _is_off(distribution: str, encoder_id: str, off: set[str]) -> bool:
    """`MEDXFER_DISABLE_PLUGINS`: `1` or `all` for every plugin, or names of distributions or encoders."""
    if _normal(distribution) == "medxfer" or not off - {"0"}:
        return False
    return bool(off & {"1", "all", "true", _normal(distribution), _normal(encoder_id)})
