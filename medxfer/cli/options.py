"""Options that several commands share."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ConfigError, DataError

if TYPE_CHECKING:  # rich.table costs as much as the whole of --help
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)

data = click.option("--data", metavar="PATH", help="Folder of images; replaces the bundle's own source.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Say warnings and errors only.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
device = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
)
trust = click.option(
    "--trust", is_flag=True, help="Lift the safety rules for a bundle you have read: it may run any code."
)
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, e.g. phases.1.epochs=5."
)


def as_options(text: str, names: Mapping[str, str]) -> str:
    """A message with a command's own options in place of a bundle's keys."""
    text = text.replace("data.patient (column or pattern)", "data.patient.column")
    return re.sub(r"(?<![\w.])data(?:\.\w+)+", lambda match: names.get(match[0], match[0]), text)


@contextlib.contextmanager
def named_as_options(names: Mapping[str, str]) -> Iterator[None]:
    """Refusals of data, worded with the options of the command.

    Args:
        names: Key of a bundle -> option.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        parts = (error.where, error.seen, error.accepted, error.todo)
        raise type(error)(*[as_options(part, names) for part in parts]) from error


def width() -> int:
    """Columns of stdout: those of the terminal, `COLUMNS` where that is set, 120 into a pipe."""
    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if told else 120


def print_table(table: Table) -> None:
    """Print to stdout: as wide as the terminal, 120 columns into a pipe."""
    from rich.console import Console

    Console(width=width(), highlight=False).print(table)
