"""What is installed and what is kept: `encoders`, `cache`, `doctor env`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import click

from ..cards import EncoderCard
from ..encoders.registry import Listing
from . import options


@click.command()
@click.argument("name", required=False)
@click.option("--dims", type=click.Choice(["2", "3"]), help="Only encoders for pictures (2) or volumes (3).")
@click.option("--modality", help="Only encoders whose card names it, e.g. xray.")
@options.as_json
def encoders(name: str | None, dims: str | None, modality: str | None, as_json: bool) -> None:
    """List the encoders that are installed, with their weights; with NAME, that one alone."""
    from ..encoders.registry import card_of, list_encoders

    if name is not None:
        card_of(name)  # refuses an unknown name with the nearest ones
    listings = [
        one for one in list_encoders() if name in (None, one.id) and _matches(one.card, dims, modality)
    ]
    if as_json:
        click.echo(json.dumps([row for one in listings for row in _rows_of(one)], indent=1))
        return
    from rich.table import Column, Table

    table = Table(
        Column("encoder", no_wrap=True),
        "dims",
        "parameters",
        "weights",
        "trained on",
        "licence",
        "size",
        "here",
        "from",
    )
    for row in (row for one in listings for row in _rows_of(one)):
        here = "" if row["here"] is None else "yes" if row["here"] else "no"
        size = f"{row['size_bytes'] / 1e6:.0f} MB" if row["size_bytes"] else ""
        parameters = ", ".join(f"{count / 1e6:.1f} M" for count in row["parameters"].values())
        told = row["error"] or row["trained_on"] or ""
        dims_text = ", ".join(row["parameters"])
        table.add_row(
            row["encoder"],
            dims_text,
            parameters,
            row["weights"],
            told,
            row["licence"],
            size,
            here,
            row["from"],
        )
    options.print_table(table)


def _rows_of(listing: Listing) -> list[dict[str, Any]]:
    """A row for each weights tag, or one without weights."""
    from ..encoders.weights import locate

    card = listing.card
    base: dict[str, Any] = {
        "encoder": listing.id,
        "from": listing.brought_by,
        "error": listing.error,
        "parameters": {str(dims): count for dims, count in card.parameters.items()} if card else {},
        "modalities": list(card.modalities) if card else [],
        "citation": card.citation if card else None,
        "weights": "none",
        "licence": card.licence if card else "",
        "size_bytes": None,
        "source": None,
        "sha256": None,
        "trained_on": None,
        "here": None,
    }
    if card is None or not card.weights:
        return [base]
    return [
        {
            **base,
            "weights": one.tag,
            "licence": one.licence,
            "size_bytes": one.size_bytes,
            "source": one.source,
            "sha256": one.sha256,
            "trained_on": one.trained_on,
            "citation": one.citation,
            "here": locate(one) is not None,
        }
        for one in card.weights
    ]


def _matches(card: EncoderCard | None, dims: str | None, modality: str | None) -> bool:
    if card is None:
        return dims is None and modality is None
    if dims is not None and int(dims) not in card.spatial_dims:
        return False
    return modality is None or modality in card.modalities


@click.command()
@click.option("--clear", is_flag=True, help="Remove cached images; synthetic data and weights stay.")
def cache(clear: bool) -> None:
    """Show what medxfer keeps on this machine, and where."""
    from ..files import home

    place = home()
    for folder in sorted(one for one in place.iterdir() if one.is_dir()):
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        click.echo(f"{folder}: {len(files)} files, {size:.1f} MB")
    if clear:
        shutil.rmtree(place / "cache", ignore_errors=True)
        click.echo(f"removed {place / 'cache'}")


@click.group()
def doctor() -> None:
    """Say what is wrong before it costs time."""


@doctor.command("env")
@options.as_json
def doctor_env(as_json: bool) -> None:
    """Show what this machine offers: processor, devices, versions, broken plugins."""
    import torch

    from ..encoders.registry import list_encoders
    from ..files import home
    from ..surroundings import hardware, pick_device, versions

    facts: dict[str, Any] = {
        "versions": versions(),
        "hardware": hardware(pick_device("auto"), 1),
        "cuda": torch.cuda.is_available(),
        "bf16_on_cpu": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "home": str(home()),
        "free_gb": round(shutil.disk_usage(home()).free / 1e9, 1),
        "broken_plugins": [one.error for one in list_encoders() if one.error],
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        click.echo(f"{name:<15}{value if value != [] else 'none'}")


COMMANDS = (encoders, cache, doctor)
