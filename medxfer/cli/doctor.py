"""What is wrong, before it costs time: `doctor data`, `doctor env`."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, RunError
from . import options

if TYPE_CHECKING:
    from ..data.doctor import Health, Request
    from ..data.health.findings_of_data import Finding

_SHOWN_FILES = 25  # bad files listed; JSON has them all
_SHOWN_CASES = 3
_SHEET = "doctor-sheet.png"
_OPTIONS = {
    "data.labels": "--labels",
    "data.column": "--column",
    "data.patient.column": "--patient-column",
    "data.patient.pattern": "--patient-pattern",
    "data.split.column": "--split-column",
}
_MEANINGS = {
    "refused": "REFUSED: a run would not begin",
    "suspect": "SUSPECT: look at these",
    "note": "NOTES",
}


@click.group()
def doctor() -> None:
    """Say what is wrong before it costs time."""


@doctor.command("data")
@click.argument("path", type=options.FOLDER, metavar="PATH")
@click.option("--bundle", type=options.FOLDER, metavar="BUNDLE", help="Read the data as this bundle says.")
@click.option("--labels", metavar="FILE.csv", help="Label table inside PATH, where there are several.")
@click.option("--column", metavar="NAME", help="Label column of that table.")
@click.option("--patient-column", metavar="NAME", help="Column of that table that tells patients apart.")
@click.option("--patient-pattern", metavar="REGEX", help="The same from file names: its first group.")
@click.option("--split-column", metavar="NAME", help="Column of that table with a given split.")
@click.option("--set", "overrides", multiple=True, metavar="data.KEY=VALUE",
              help="How the data are read, e.g. data.on_geometry=resample or data.exclude=exclude.txt.")  # fmt: skip
@click.option("-o", "--sheet", type=options.FOLDER, default=_SHEET, show_default=True, metavar="FILE.png",
              help="Where the contact sheet goes.")  # fmt: skip
@click.option("--no-sheet", is_flag=True, help="Write no contact sheet.")
@options.quiet
@options.as_json
def doctor_data(
    path: Path,
    bundle: Path | None,
    labels: str | None,
    column: str | None,
    patient_column: str | None,
    patient_pattern: str | None,
    split_column: str | None,
    overrides: tuple[str, ...],
    sheet: Path,
    no_sheet: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Look at a data set as a whole: what is there, what is suspicious, what a run would refuse.

    Every image is read once. Exit code 3 where a run would refuse the data. Nothing leaves the machine; the contact
    sheet shows patients' images, numbered, without names.
    """
    from ..data.doctor import examine
    from ..progress import Progress

    given = {"--labels": labels, "--column": column, "--patient-column": patient_column,
             "--patient-pattern": patient_pattern, "--split-column": split_column}  # fmt: skip
    if bundle is not None and any(given.values()):
        wrong = ", ".join(name for name, value in given.items() if value)
        raise ConfigError("medxfer doctor data", f"--bundle and {wrong}", "one of them", "change the bundle")
    request = (
        _plain_request(path, given, overrides) if bundle is None else _request_of(bundle, path, overrides)
    )
    say = Progress(quiet=quiet)
    health = examine(path, request, say)
    if bundle is None:
        health = _with_options(health)
    report = health.to_plain()
    if not no_sheet and health.looks:
        report["sheet"] = _write_sheet(health, sheet, say.warn)
    if as_json:
        click.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        _show(health, report.get("sheet"))
    return 3 if health.is_refused else 0


def _with_options(health: Health) -> Health:
    """What was seen, worded with this command's options in place of a bundle's keys."""
    findings = [
        replace(
            one,
            where=options.as_options(one.where, _OPTIONS),
            problem=options.as_options(one.problem, _OPTIONS),
            todo=options.as_options(one.todo, _OPTIONS),
        )
        for one in health.findings
    ]
    bad = [replace(one, todo=options.as_options(one.todo, _OPTIONS)) for one in health.bad]
    return replace(health, findings=tuple(findings), bad=tuple(bad))


def _plain_request(path: Path, given: Mapping[str, str | None], overrides: Sequence[str]) -> Request:
    from ..bundle.parser import load_data
    from ..data.doctor import Request

    plain = {
        "source": str(path),
        "labels": given["--labels"],
        "column": given["--column"],
        "patient": {"column": given["--patient-column"], "pattern": given["--patient-pattern"]},
        "split": {"column": given["--split-column"]},
    }
    return Request(data=load_data(plain, overrides))


def _request_of(bundle: Path, path: Path, overrides: Sequence[str]) -> Request:
    from ..bundle.components import build, check_components
    from ..bundle.parser import load_bundle, require_data_keys
    from ..data.doctor import Request
    from ..data.presets import fill_in, steps_of

    require_data_keys(overrides)
    loaded = load_bundle(bundle, overrides=overrides, data=str(path))
    check_components(loaded)
    task: Any = build(loaded.task, kind="task", trusted=loaded.trusted)
    loaded = fill_in(loaded)
    return Request(
        data=loaded.data,
        steps=steps_of(loaded.images, loaded.encoder.in_channels, trusted=loaded.trusted),
        label_of=task.class_of,
        read_label=task.read_label,
        masks=task.masks,
        has_planes=loaded.images.thin is not None,
        seed=loaded.seed,
    )


def _write_sheet(health: Health, path: Path, warn: Any) -> dict[str, Any] | None:
    """The sheet's place and which case each of its numbers is; None where it cannot be written."""
    from ..data.health.contact_sheet import draw, rows_of
    from ..files import write_atomic

    drawn = draw(rows_of(health))
    try:
        write_atomic(path, drawn.png)
    except RunError as error:
        warn(f"no contact sheet: {error.where}: {error.seen}")
        return None
    return {"file": str(path), "cases": drawn.cases}


def _show(health: Health, sheet: dict[str, Any] | None) -> None:
    """The report for people: facts, findings with the worst first, bad files, the verdict last."""
    width = min(options.width(), 120)
    for name, text in _facts_of(health.facts):
        click.echo(_wrapped(text, width, f"{name:<12}", " " * 12))
    for level, title in _MEANINGS.items():
        findings = [one for one in health.findings if one.level == level]
        if findings:
            click.echo(f"\n{title}")
        for number, finding in enumerate(findings):
            is_said_again = finding.todo in [later.todo for later in findings[number + 1 : number + 2]]
            click.echo("\n".join(_lines_of(finding, width, with_todo=not is_said_again)))
    if health.bad:
        _show_bad(health)
    click.echo("")
    if sheet is not None:
        click.echo(f"contact sheet: {sheet['file']}")
    verdict = "a run would refuse these data" if health.is_refused else "a run would take these data"
    click.echo(f"verdict: {verdict}")


def _lines_of(finding: Finding, width: int, *, with_todo: bool) -> Iterator[str]:
    yield _wrapped(f"{finding.where}: {finding.problem}", width, "  ", "    ")
    few = finding.cases[:_SHOWN_CASES]
    if few:
        rest = f" and {len(finding.cases) - len(few)} more" if len(finding.cases) > len(few) else ""
        yield _wrapped(", ".join(few) + rest, width, "    which: ", "           ")
    if finding.todo and with_todo:
        yield _wrapped(finding.todo, width, "    do: ", "        ")


def _wrapped(text: str, width: int, first: str, rest: str) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=True,
    )


def _show_bad(health: Health) -> None:
    from rich.markup import escape
    from rich.table import Table

    count = len(health.bad)
    title = f"{count} bad file{'s' if count > 1 else ''} or table row{'s' if count > 1 else ''}"
    table = Table(title=f"\n{title}", title_justify="left", show_lines=False)
    for name in ("file", "cause", "remedy"):
        table.add_column(name, overflow="fold")
    for one in health.bad[:_SHOWN_FILES]:
        table.add_row(*(escape(text) for text in (one.case, one.seen, one.todo)))
    options.print_table(table)
    if count > _SHOWN_FILES:
        click.echo(f"and {count - _SHOWN_FILES} more: --json lists all")


def _facts_of(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as lines: a name and a sentence."""
    yield "data", f"{facts['source']} ({facts['layout']}{', ' + facts['labels'] if facts['labels'] else ''})"
    yield "cases", f"{facts['cases']}, of which {facts['readable']} can be read"
    key, most = facts["patient_key"], facts["most_cases_of_a_patient"]
    if facts["patients_told_apart"]:
        yield "patients", f"{facts['patients']}, told apart by {key}; at most {most} cases of one"
    else:
        yield "patients", f"unknown: {key}"
    if facts["classes"]:
        yield "classes", _counts(facts["classes"])
    for name, key in (("given split", "given_splits"), ("a run's", "splits_of_a_run")):
        if facts[key]:
            yield name, _counts(facts[key])
    if not facts["readable"]:
        return
    yield "kinds", _counts(facts["kinds"])
    if set(facts["modalities"]) != {"not told"}:
        yield "modalities", _counts(facts["modalities"])
    yield "channels", _counts(facts["channels"])
    for name in ("sizes", "volumes"):
        if facts[name]:
            yield name, _sizes(facts[name])
    spacing = facts["spacings_mm"]
    if spacing["known"]:
        yield (
            "spacing",
            f"{spacing['least']:.4g} to {spacing['most']:.4g} mm, known of {spacing['known']} cases",
        )
    else:
        yield "spacing", "unknown"
    values = facts["values"]
    ends = f"{values['least']:.6g} to {values['most']:.6g}"
    yield "values", f"{ends}, median of the means {values['median_of_means']:.4g}"
    if facts["mask_values"]:
        told = ", ".join(f"{value:g}" for value in facts["mask_values"][:8])
        more = ", ..." if len(facts["mask_values"]) > 8 else ""
        low, high = facts["mask_share"]
        yield "masks", f"values {told}{more}; {low:.2%} to {high:.2%} of an image is foreground"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _sizes(sizes: dict[str, Any]) -> str:
    told = [f"{name} {' x '.join(map(str, sizes[name]))}" for name in ("least", "median", "most")]
    if sizes["different"] == 1:
        return f"all {' x '.join(map(str, sizes['most']))} ({sizes['axes']})"
    return f"{sizes['axes']}: {', '.join(told)}; {sizes['different']} different ones"


@doctor.command("env")
@options.as_json
def doctor_env(as_json: bool) -> None:
    """Show what this machine offers: processor, devices, versions, broken plugins."""
    import torch

    from ..encoders.registry import list_encoders, remarks
    from ..files import home
    from ..surroundings import hardware, pick_device, versions

    facts: dict[str, Any] = {
        "versions": versions(),
        "hardware": hardware(pick_device("auto"), 1),
        "cuda": torch.cuda.is_available(),
        "bf16_on_cpu": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "home": str(home()),
        "free_gb": round(shutil.disk_usage(home()).free / 1e9, 1),
        "broken_plugins": [
            f"{one.id} of {one.brought_by}: {one.error}" for one in list_encoders() if one.error
        ],
        "plugins_say": remarks(),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        elif isinstance(value, list):
            value = "; ".join(value) or "none"
        click.echo(f"{name:<15}{value}")


COMMANDS = (doctor,)
