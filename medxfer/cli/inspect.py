"""What the reader makes of files: `inspect`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..data.policy import ON_GEOMETRY, ON_NONFINITE, ReadPolicy
from ..errors import ConfigError
from . import options

_WIDEST = 120


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--keep-going", is_flag=True, help="Read on after a refused case; exit code 4 then.")
@click.option("--on-geometry", type=click.Choice(ON_GEOMETRY), default="stop", show_default=True,
              help="A slice missing, uneven steps or a tilted gantry: refuse, even out, or keep.")  # fmt: skip
@click.option("--on-nonfinite", type=click.Choice(ON_NONFINITE), default="stop", show_default=True,
              help="NaN and infinite values: refuse, or set to 0.")  # fmt: skip
@click.option("--series", multiple=True, metavar="RULE=VALUE",
              help="Which of several series: modality, description, orientation or slices (at least).")  # fmt: skip
@click.option("--select", multiple=True, metavar="TAG=VALUE",
              help="Which of several volumes in one series, e.g. EchoTime=30.")  # fmt: skip
@click.option("--volume", type=int, metavar="N", help="Which volume of a 4D file, from 0.")
@click.option(
    "--frames", metavar="WHICH", help="Which picture of a film: first, middle, or its number from 1."
)
@options.as_json
def inspect(
    paths: tuple[Path, ...],
    keep_going: bool,
    on_geometry: str,
    on_nonfinite: str,
    series: tuple[str, ...],
    select: tuple[str, ...],
    volume: int | None,
    frames: str | None,
    as_json: bool,
) -> int:
    """Show what the reader makes of images: size, spacing, values, what was applied, warnings.

    PATH is a file or a folder; a folder is walked, each DICOM series and each other image file is one case. With
    --json each case is one line. The first refused case ends the command with exit code 3. A name that begins with
    a dash goes after --. The reading options are those of a bundle (data.on_geometry and so on): what they give here,
    a run gives too.
    """
    from ..data.describe import records

    policy = ReadPolicy(
        on_geometry=on_geometry,
        on_nonfinite=on_nonfinite,
        series={name: _whole_or_text(value) for name, value in _pairs("--series", series).items()},
        select={name: _number_or_text(value) for name, value in _pairs("--select", select).items()},
        volume=volume,
        frames=None if frames is None else _whole_or_text(frames),
    )
    counts: Counter[str] = Counter()
    notes: list[str] = []
    for record in records(paths, policy=policy, notes=notes):
        counts[record["status"]] += 1
        if as_json:
            click.echo(json.dumps(record, allow_nan=False))
        else:
            click.echo("\n".join(_lines_of(record)))
        sys.stdout.flush()
        while notes:
            click.echo(notes.pop(0), err=True)
        if counts["refused"] and not keep_going:
            break
    if not as_json and sum(counts.values()) > 1:
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count)
        click.echo(f"{sum(counts.values())} cases: {told}")
    return (4 if keep_going else 3) if counts["refused"] else 0


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, as often as it is given."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            accepted = "modality=CT" if option == "--series" else "EchoTime=30"
            raise ConfigError(option, text, f"NAME=VALUE, e.g. {accepted}", "write a name, `=` and a value")
        pairs[name] = value
    return pairs


def _whole_or_text(value: str) -> str | int:
    return int(value) if value.isdecimal() else value


def _number_or_text(value: str) -> str | float:
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        return value


def _lines_of(record: dict[str, Any]) -> list[str]:
    """A case for people: its name, then what it is, as wide as the terminal."""
    from ..data.image import shown

    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    head = f"{record['status']:<8} {shown(record['path'])}"
    texts = []
    if record["reason"] is not None:
        seen = record["reason"].removeprefix(f"{shown(record['path'])}: ")
        texts += seen.replace("; accepted: ", "\naccepted: ").replace("; do: ", "\ndo: ").split("\n")
    else:
        texts.append(_figures_of(record))
        if record["applied"]:
            texts.append("applied: " + "; ".join(record["applied"]))
        texts += [f"warning: {text}" for text in record["warnings"]]
    indent = " " * 9
    lines = [head]
    for text in texts:
        lines += textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )
    return lines


def _figures_of(record: dict[str, Any]) -> str:
    is_picture = len(record["shape"]) == 2
    sides = reversed(record["shape"]) if is_picture else record["shape"]
    size = " x ".join(map(str, sides)) + (" pixels" if is_picture else " voxels")
    spacing = "spacing unknown"
    if record["spacing"] is not None:
        steps = reversed(record["spacing"]) if is_picture else record["spacing"]
        spacing = " x ".join(f"{step:.4g}" for step in steps) + " mm"
    channels = f"{record['channels']} channel" + ("s" if record["channels"] > 1 else "")
    values = f"{record['min']:g} to {record['max']:g}, mean {record['mean']:.4g}"
    return f"{record['kind']}, {size}, {spacing}, {channels}, {values}"


COMMANDS = (inspect,)
