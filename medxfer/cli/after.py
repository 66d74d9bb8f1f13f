"""After a run: `predict`, `evaluate`, `report`, `compare`, `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from . import options

_TABLES = (".csv", ".json", ".txt", ".tsv")  # endings of a table; anything else is a folder of masks


@click.command()
@click.argument("run", type=options.FOLDER)
@click.argument("files", nargs=-1, type=options.FOLDER)
@click.option("--data", "table", type=options.FOLDER, metavar="TABLE.csv",
              help="A case a row, by the columns of files that the training table had; no labels needed.")  # fmt: skip
@click.option("--out", "-o", type=options.FOLDER, metavar="FILE.csv|FOLDER",
              help="For the table; default stdout. Where RUN segments, a FOLDER for masks and the table.")  # fmt: skip
@click.option("--probabilities", is_flag=True,
              help="Where RUN segments: those of each class too, in FOLDER/probabilities.")  # fmt: skip
@options.as_json
@options.quiet
def predict(
    run: Path,
    files: tuple[Path, ...],
    table: Path | None,
    out: Path | None,
    probabilities: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Answers for FILES (or folders) by RUN: a run folder or an exported bundle.

    A row a file: probabilities and the decision, or the size of each segmented class. With -o FOLDER a network that
    segments writes masks there too, on each file's own grid (NIfTI, PNG, or DICOM SEG for DICOM), and the table as
    predictions.csv; nothing in FOLDER is overwritten.

    An image that looks unlike the training images (inverted, of another modality, too small) is marked `warned`, with
    the reason.

    A folder is walked as by `inspect`. Where a case is several files (data.images), --data names a table of them.
    A bad file is reported on its line and does not stop the others (exit code 4; 3 when none could be read).
    """
    from ..progress import Progress
    from ..run_folder import csv_text
    from ..trained import open_run

    if not files and table is None:
        raise click.UsageError("Missing argument 'FILES...', or --data TABLE.csv.")
    trained = open_run(run)
    place, folder = _places(out, writes_files=trained.writes_files, as_json=as_json)
    rows = trained.predict(
        files,
        table=table,
        folder=folder,
        probabilities=probabilities,
        overwrite=False,
        say=Progress(quiet=quiet),
    )
    text = json.dumps(rows, indent=1) + "\n" if as_json else csv_text(rows)
    if place is None:
        click.echo(text, nl=False)
    else:
        from ..files import write_atomic

        write_atomic(place, text)
    refused, warned = (sum(row["status"] == status for row in rows) for status in ("refused", "warned"))
    if warned and not quiet:
        click.echo(f"{warned} of {len(rows)} answers with a warning; see the column `reason`", err=True)
    if refused and not quiet:
        click.echo(f"{refused} of {len(rows)} files refused; see the column `reason`", err=True)
    return 0 if not refused else 3 if refused == len(rows) else 4


def _places(out: Path | None, *, writes_files: bool, as_json: bool) -> tuple[Path | None, Path | None]:
    """Where the table goes (None: stdout), and the folder of files beside it (None: none are written).

    Raises:
        ConfigError: A folder was named that is a file, or one that holds a table already.
    """
    if out is None or out.suffix.lower() in _TABLES or not (writes_files or out.is_dir()):
        return out, None
    table = out / ("predictions.json" if as_json else "predictions.csv")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}", "a file", "FILE.csv or a folder", "name another folder")
    if table.exists():
        todo = "name another folder, or move it away"
        raise ConfigError(f"--out {out}", f"{table.name} is there already", "a folder without it", todo)
    return table, out if writes_files else None


@click.command()
@click.argument("run", type=options.FOLDER)
@click.option("--data", required=True, type=options.FOLDER, metavar="PATH", help="Folder of labelled images.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="How these data are read, e.g. data.column=diagnosis or data.patient.pattern=null.")  # fmt: skip
@click.option("--part", type=click.Choice(["all", "train", "val", "test"]), default="all", show_default=True,
              help="With data that bring a split: the part to measure on.")  # fmt: skip
@click.option("--out", "-o", type=options.FOLDER, metavar="FILE.json", help="Write the scores here too.")
@options.quiet
def evaluate(
    run: Path, data: Path, overrides: tuple[str, ...], part: str, out: Path | None, quiet: bool
) -> None:
    """Measure RUN on other labelled data: threshold and temperature stay as they are."""
    from ..files import write_json
    from ..progress import Progress
    from ..trained import evaluate_on

    scores = evaluate_on(run, data, part=part, overrides=overrides, say=Progress(quiet=quiet))
    click.echo(json.dumps(scores, indent=1))
    if out is not None:
        write_json(out, scores)


@click.command()
@click.argument("run", type=options.FOLDER)
def report(run: Path) -> None:
    """Draw the report and the model card of RUN again, from the files in its folder."""
    from ..reports.html import write_report
    from ..reports.model_card import write_model_card
    from ..run_folder import RunFolder

    folder = RunFolder.open(run)
    write_model_card(folder)
    click.echo(str(write_report(folder)))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=options.FOLDER, metavar="RUN RUN...")
@options.as_json
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Compare runs on the test cases they share: paired differences with intervals by patient."""
    from ..methods.compare import compare_runs

    rows = compare_runs(runs)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table("run", "score", "value", "minus the first (95 % interval)", "cases")
    for row in rows:
        table.add_row(
            str(row["run"]), str(row["score"]), _number(row["value"]), _difference(row), str(row["n"])
        )
    options.print_table(table)


def _number(value: Any) -> str:
    return "not defined" if value is None or value != value else f"{value:.3f}"


def _difference(row: dict[str, Any]) -> str:
    if row.get("difference") is None:
        return "-"
    return f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


@click.command()
@click.argument("run", type=options.FOLDER)
@click.option("--to", "form", required=True, type=click.Choice(["bundle", "pt2", "onnx", "torchscript"]),
              help="bundle: a MONAI bundle; the others: one file.")  # fmt: skip
@click.option(
    "--out", "-o", type=options.FOLDER, metavar="PATH", help="Where to; default beside the run's files."
)
def export(run: Path, form: str, out: Path | None) -> None:
    """Write the model of RUN for other programs."""
    from ..export.trained_export import export_trained
    from ..progress import Progress

    click.echo(str(export_trained(run, form, out, Progress().warn)))


COMMANDS = (predict, evaluate, report, compare, export)
