"""What the reader makes of files: `inspect`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import click

from . import options

_WIDEST = 120


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--keep-going", is_flag=True, help="Read on after a refused case; exit code 4 then.")
@options.as_json
def inspect(paths: tuple[Path, ...], keep_going: bool, as_json: bool) -> int:
    """Show what the reader makes of images: size, spacing, values, what was applied, warnings.

    PATH is a file or a folder; a folder is walked, each DICOM series and each other image file is one case. With
    --json each case is one line. The first refused case ends the command with exit code 3. A name that begins with
    a dash goes after --.
    """
    from ..data.describe import records

    counts: Counter[str] = Counter()
    notes: list[str] = []
    for record in records(paths, notes=notes):
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
