"""`medxfer run`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from . import options


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

    from rich.markup import escape
    from rich.table import Table

    from ..evaluation.scores import short_names

    found = json.loads((root / "folds.json").read_text(encoding="utf-8"))
    table = Table(
        "score", "test, mean", "lowest", "highest", title=f"{found['folds']} folds", title_justify="left"
    )
    rows = [(name, name, found["test"][name]) for name in short_names(found["test"])]
    by_class = found.get("by_class") or {}
    for one, scores in by_class.items() if len(by_class) > 1 else ():
        rows += [(f"{name} of {one}", name, scores[name]) for name in short_names(scores)[:1]]
    for title, name, score in rows:
        table.add_row(escape(title), *[_number(score[key], name) for key in ("mean", "low", "high")])
    options.print_table(table)
    click.echo("the spread over folds is no confidence interval: their training parts overlap")
    for name, score in (found.get("pooled") or {}).items():
        people = f"{score['n']} cases of {score['patients']} patients, each tested once"
        click.echo(f"{name} over {people}: {_interval(score, name)} (95 % interval)")
    base = found.get("baseline") or {}
    if rows and rows[0][1] in base:
        trivial, own = base[rows[0][1]]["mean"], rows[0][2]["mean"]
        click.echo(f"trivial baseline, {rows[0][0]}: {_number(trivial, rows[0][1])}")
        if own <= trivial:
            click.echo(
                f"ALARM: the mean of the folds ({_number(own, rows[0][1])}) does not beat the trivial baseline"
            )
    click.echo(f"time of training in all folds: {found['seconds']['training']:.0f} s")
    click.echo(f"folds:  {root}")


def _print_scores(scores: dict[str, Any], about: dict[str, Any]) -> None:
    """Scores with intervals on stdout, the baseline beside them, alarms first."""
    from rich.table import Table

    from ..evaluation.scores import short_names
    from ..surroundings import settings_for_again

    for alarm in scores.get("alarms", []):
        click.echo(f"ALARM: {alarm}")
    kind = "SYNTHETIC data" if about["data"]["kind"] == "synthetic" else about["data"]["source"]
    table = Table(title=f"{about['bundle']} on {kind}", title_justify="left")
    table.add_column("score")
    for name in ("test", "val"):
        table.add_column(f"{name} (95 % interval)", justify="right")
    table.add_column("baseline, test", justify="right")
    shown = short_names(scores["test"])
    for name in shown:
        base = scores["baseline"].get("test", {}).get(name)
        cells = [_interval(scores[split][name], name) for split in ("test", "val")]
        table.add_row(name, *cells, "" if base is None else _number(base["value"], name))
    options.print_table(table)
    _print_classes((scores.get("by_class") or {}).get("test") or {})
    first = scores["test"][shown[0]]
    told = f"test: {first['n']} images of {first['patients']} patients"
    rule = scores.get("baseline_rule")
    click.echo(f"{told}; the trivial baseline: {rule}" if rule else told)
    seconds = about.get("seconds", {})
    if seconds:
        told = f" (resumed {times}, training summed)" if (times := _times(about)) else ""
        click.echo("time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + told)
    if settings := settings_for_again(about):
        click.echo(f"precision and memory format were chosen here; for the same again: {settings}")


def _times(about: dict[str, Any]) -> str:
    """How often a run was resumed, in words."""
    count = about.get("resumed", 0)
    return "" if not count else "once" if count == 1 else f"{count} times"


def _print_classes(by_class: dict[str, Any]) -> None:
    """Test scores of each class, where there are several."""
    if len(by_class) < 2:
        return
    from rich.markup import escape
    from rich.table import Table

    from ..evaluation.scores import short_names

    names = short_names(dict.fromkeys(name for own in by_class.values() for name in own))
    table = Table("class, test", *names)
    for one, own in by_class.items():
        table.add_row(escape(one), *[_interval(own[name], name) if name in own else "" for name in names])
    options.print_table(table)


def _interval(score: dict[str, Any], name: str) -> str:
    return f"{_number(score['value'], name)} ({_number(score['low'], name)}-{_number(score['high'], name)})"


def _number(value: float | None, name: str) -> str:
    from ..evaluation.scores import meaning_of

    return "not defined" if value is None or value != value else f"{value:.{meaning_of(name).digits}f}"


COMMANDS = (run,)
