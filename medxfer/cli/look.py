"""What is installed and what is kept: `encoders`, `cache`, `doctor env`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import click

from . import options


@click.command()
@click.option("--dims", type=click.Choice(["2", "3"]), help="Only encoders for pictures (2) or volumes (3).")
@click.option("--modality", help="Only encoders whose card names it, e.g. xray.")
@options.as_json
def encoders(dims: str | None, modality: str | None, as_json: bool) -> None:
    """List the encoders that are installed, with their weights."""
    from ..encoders.registry import list_encoders

    listings = [one for one in list_encoders() if _matches(one, dims, modality)]
    if as_json:
        click.echo(json.dumps([one.to_json() for one in listings], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("encoder", "dims", "parameters", "weights", "licence", "size", "here", "from")
    for one in listings:
        for row in one.rows():
            table.add_row(*row)
    Console(width=None if click.get_text_stream("stdout").isatty() else 120, highlight=False).print(table)


def _matches(listing: Any, dims: str | None, modality: str | None) -> bool:
    card = listing.card
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
