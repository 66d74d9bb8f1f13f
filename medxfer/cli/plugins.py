"""Packages that bring encoders: `plugin list`, `plugin check`, `plugin new`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..progress import Progress
    from ..testing import Check, Outcome

_MARKS = {"passed": "ok", "failed": "FAILED", "follows": "follows", "expected": "expected"}


@click.group()
def plugin() -> None:
    """Packages that bring encoders: list them, check them, begin one."""


@plugin.command("list")
@options.as_json
def plugin_list(as_json: bool) -> None:
    """List every package that brings encoders, with its version, its ids and what is wrong with it."""
    from ..encoders.distributions import list_distributions

    found = list_distributions()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    columns = (Column("package", no_wrap=True), Column("version", no_wrap=True), Column("encoders"))
    table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for one in found:
        off = " (left out by MEDXFER_DISABLE_PLUGINS)" if one.is_disabled else ""
        table.add_row(one.name, one.version, f"{', '.join(one.encoders)}{off}")
    options.print_table(table)
    for one in found:
        for error in one.errors:
            click.echo(f"not usable: {one.name} {one.version}: {error}")


@plugin.command("check")
@click.argument("name")
@click.option(
    "--dims", type=click.Choice(["2", "3"]), help="Only in so many dimensions; default: all of the card's."
)
@options.as_json
def plugin_check(name: str, dims: str | None, as_json: bool) -> None:
    """Run the conformance kit on NAME: an encoder's id, timm:resnet50 too, or a package for all that it brings.

    Exit code 3 when a check fails.
    """
    from ..progress import Progress
    from ..testing import all_checks

    say = Progress(quiet=as_json)
    reports: dict[str, list[Outcome]] = {}
    for encoder_id in _ids_of(name):
        checks = all_checks(encoder_id, spatial_dims=_dims_of(encoder_id, dims))
        reports[encoder_id] = _outcomes(checks, encoder_id, say)
        if not as_json:
            _print_report(encoder_id, reports[encoder_id])
    if as_json:
        told = {key: [asdict(one) for one in found] for key, found in reports.items()}
        click.echo(json.dumps(told, indent=1))
    if any(one.state in ("failed", "follows") for found in reports.values() for one in found):
        sys.stdout.flush()
        click.get_current_context().exit(3)


def _ids_of(name: str) -> list[str]:
    """The encoders that are meant.

    Raises:
        PluginError: Neither an encoder nor a package that brings some; or an adapter without a further name.
    """
    from ..cards import nearest
    from ..encoders.distributions import list_distributions
    from ..encoders.registry import disabled_error, disabled_owner, list_encoders
    from ..errors import PluginError

    found = {one.name: one for one in list_distributions()}
    listings = {one.id: one for one in list_encoders()}
    ids = [name] if name.partition(":")[0] in listings else []
    if not ids and name in found:
        ids = [one for one in found[name].encoders if one.partition(":")[0] in listings]
    if not ids and (disabled_owner(name) or name in found):
        raise disabled_error(f"plugin {name}")
    if not ids:
        todo = nearest(name, {*listings, *found})
        raise PluginError(f"plugin {name}", "not installed", "an encoder or a package", todo)
    adapters = [one.partition(":")[0] for one in ids if one.endswith(":<name>")]
    adapters += [one for one in ids if one in listings and listings[one].is_adapter]
    if adapters:
        accepted = f"{adapters[0]}:NAME"
        raise PluginError(f"plugin {name}", "an adapter", accepted, "name one of its networks")
    return ids


def _dims_of(encoder_id: str, dims: str | None) -> tuple[int, ...]:
    """What the card says, or what is asked for; 2 where the card itself is broken, which the kit will tell."""
    from ..encoders.registry import card_of
    from ..errors import PluginError

    if dims is not None:
        return (int(dims),)
    try:
        return tuple(sorted(card_of(encoder_id).spatial_dims))
    except PluginError:
        return (2,)


def _outcomes(checks: Sequence[Check], encoder_id: str, say: Progress) -> list[Outcome]:
    found = []
    with say.bar(encoder_id, len(checks)) as advance:
        for check in checks:
            found.append(check.outcome())
            advance(note=found[-1].check)
    return found


def _print_report(encoder_id: str, found: Sequence[Outcome]) -> None:
    """A row a check, a column a number of dimensions; then what is wrong, consequences under their cause."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    dims = sorted({one.spatial_dims for one in found if one.spatial_dims is not None})
    columns = [Column(encoder_id, no_wrap=True), *(Column(f"{one}D", no_wrap=True) for one in dims)]
    table = Table(*columns, Column("remark"), box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    for name in dict.fromkeys(one.check for one in found):
        rows = {one.spatial_dims: one for one in found if one.check == name}
        marks = [_MARKS[(rows.get(one) or rows[None]).state] for one in dims]
        remarks = {
            one.text: None for one in rows.values() if one.state in ("passed", "expected") and one.text
        }
        table.add_row(name, *marks, "; ".join(remarks))
    options.print_table(table)
    for one in found:
        if one.state == "failed":
            click.echo(f"\n{_title(one)}: {one.text}")
            _print_consequences(one, found)
    count = sum(one.state in ("passed", "expected") for one in found)
    click.echo(f"\n{encoder_id}: {count} of {len(found)} checks passed\n")


def _print_consequences(cause: Outcome, found: Sequence[Outcome]) -> None:
    names = [
        one.check
        for one in found
        if one.state == "follows"
        and one.root == cause.check
        and cause.spatial_dims in (one.spatial_dims, None)
    ]
    if names:
        click.echo(f"  {len(names)} more follow from this: {', '.join(dict.fromkeys(names))}")


def _title(one: Outcome) -> str:
    return one.check if one.spatial_dims is None else f"{one.check} in {one.spatial_dims}D"


@plugin.command("new")
@click.argument("name")
def plugin_new(name: str) -> None:
    """Write a plugin to start from into the working folder: a package that installs, passes the kit and runs."""
    from ..encoders.scaffold import write_plugin

    folder = write_plugin(name, Path.cwd())
    encoder_id = folder.name.removeprefix("medxfer-").replace("-", "_")
    click.echo(f"wrote {folder.name}; next:")
    click.echo(f"  pip install --editable {folder.name}")
    click.echo(f"  medxfer plugin check {encoder_id}")
    click.echo(f"  medxfer run BUNDLE --set encoder.id={encoder_id} --set encoder.weights=none")


COMMANDS = (plugin,)
