"""`medxfer run`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from . import options

SHOWN = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")


@click.command()
@click.argument("bundle", required=False, type=options.FOLDER)
@options.data
@options.overrides
@click.option(
    "--weights", metavar="FILE", help="Start from this weights file, or from a tag of the encoder's card."
)
@click.option(
    "--split", "split_file", type=options.FOLDER, metavar="FILE", help="Split as in a run's split.csv."
)
@click.option(
    "--folds", type=int, metavar="K", help="Cross-validate: one run for each of K parts of the patients."
)
@click.option("--out", type=options.FOLDER, metavar="DIR", help="Run folder; default runs/NAME-DATE-TIME.")
@click.option("--resume", type=options.FOLDER, metavar="RUN", help="Go on with an interrupted run.")
@click.option(
    "--accept-changes", is_flag=True, help="With --resume: go on although versions or settings changed."
)
@options.device
@click.option(
    "--print-config", is_flag=True, help="Print the whole configuration, defaults filled in, and stop."
)
@options.trust
@options.quiet
def run(
    bundle: Path | None,
    data: str | None,
    overrides: tuple[str, ...],
    weights: str | None,
    split_file: Path | None,
    folds: int | None,
    out: Path | None,
    resume: Path | None,
    accept_changes: bool,
    device: str,
    print_config: bool,
    trust: bool,
    quiet: bool,
) -> None:
    """Train and measure what BUNDLE describes: a bundle folder or a YAML file."""
    if (bundle is None) == (resume is None):
        seen = "neither BUNDLE nor --resume" if bundle is None else "BUNDLE and --resume"
        todo = "medxfer run bundles/pneumonia_cls, or medxfer run --resume RUN"
        raise ConfigError("medxfer run", seen, "one of them", todo)
    given = any((data, overrides, weights, split_file, folds, out, print_config, trust))
    if resume is not None and given:
        accepted = "--accept-changes, --device and --quiet"
        todo = "leave the rest out: the run's own config.yaml is used"
        raise ConfigError("medxfer run --resume", "other options beside it", accepted, todo)
    if accept_changes and resume is None:
        raise ConfigError("--accept-changes", "no --resume", "--resume RUN with it", "name the run")
    if bundle is not None:
        from ..bundle.parser import load_bundle

        loaded = load_bundle(bundle, overrides=overrides, data=data, weights=weights, trust=trust)
        if print_config:
            from ..bundle.parser import to_yaml
            from ..data.presets import fill_in

            click.echo(to_yaml(fill_in(loaded)), nl=False)
            return
    from ..pipeline import Request, resume_run, run_bundle
    from ..progress import Progress

    say = Progress(quiet=quiet)
    if resume is not None:
        folder = resume_run(resume, device=device, accept_changes=accept_changes, say=say)
    else:
        request = Request(out=out, device=device, split_file=split_file, command=["medxfer", *sys.argv[1:]])
        if folds is not None:
            from ..methods.folds import run_folds

            _print_folds(run_folds(loaded, folds, request, say))
            return
        folder = run_bundle(loaded, request, say)
    if folder.has("scores.json"):
        _print_scores(folder.read("scores.json"), folder.read("run.json"))
        click.echo(f"report: {folder.root / 'report.html'}")
        click.echo(f"model:  {folder.root / 'bundle'}")


def _print_folds(root: Path) -> None:
    """Mean and spread of the test scores over folds on stdout."""
    import json

    from rich.table import Table

    found = json.loads((root / "folds.json").read_text(encoding="utf-8"))
    table = Table(
        "score", "test, mean", "lowest", "highest", title=f"{found['folds']} folds", title_justify="left"
    )
    for name, one in found["test"].items():
        if name in SHOWN:
            table.add_row(name, *[_number(one[key]) for key in ("mean", "low", "high")])
    options.print_table(table)
    click.echo("the spread over folds is no confidence interval: their training parts overlap")
    click.echo(f"folds:  {root}")


def _print_scores(scores: dict[str, Any], about: dict[str, Any]) -> None:
    """Scores with intervals on stdout, the baseline beside them, alarms first."""
    from rich.table import Table

    for alarm in scores.get("alarms", []):
        click.echo(f"ALARM: {alarm}")
    kind = "SYNTHETIC data" if about["data"]["kind"] == "synthetic" else about["data"]["source"]
    table = Table(title=f"{about['bundle']} on {kind}", title_justify="left")
    table.add_column("score")
    for name in ("test", "val"):
        table.add_column(f"{name} (95 % interval)", justify="right")
    table.add_column("baseline, test", justify="right")
    shown = [name for name in SHOWN if name in scores["test"]] or list(scores["test"])
    for name in shown:
        base = scores["baseline"].get("test", {}).get(name)
        cells = [_interval(scores[split][name]) for split in ("test", "val")]
        table.add_row(name, *cells, "" if base is None else _number(base["value"]))
    options.print_table(table)
    first = scores["test"][shown[0]]
    told = f"test: {first['n']} images of {first['patients']} patients"
    rule = scores.get("baseline_rule")
    click.echo(f"{told}; the trivial baseline: {rule}" if rule else told)
    seconds = about.get("seconds", {})
    if seconds:
        click.echo("time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


def _interval(score: dict[str, Any]) -> str:
    return f"{_number(score['value'])} ({_number(score['low'])}-{_number(score['high'])})"


def _number(value: float | None) -> str:
    return "not defined" if value is None or value != value else f"{value:.3f}"


COMMANDS = (run,)
