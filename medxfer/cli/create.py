"""`medxfer init`: a bundle for a folder of images."""

from __future__ import annotations

from pathlib import Path

import click

from . import options

_OPTIONS = {"data.labels": "--labels", "data.column": "--column", "data.patient.column": "--patient-column"}


@click.command()
@click.argument("folder", type=options.FOLDER, metavar="DIR")
@click.option(
    "--data", required=True, type=options.FOLDER, metavar="PATH", help="Folder of images to look at."
)
@click.option("--task", type=click.Choice(["classification", "findings", "segmentation"]), default="classification",
              show_default=True, help="One class a case, several findings at once, or masks.")  # fmt: skip
@click.option("--modality", type=click.Choice(["xray", "ct", "mri", "pathology"]), default="xray", show_default=True,
              help="Decides preprocessing and augmentation.")  # fmt: skip
@click.option("--labels", metavar="FILE.csv", help="Label table inside PATH, where there are several.")
@click.option("--column", metavar="NAME", help="Label column of that table.")
@click.option("--patient-column", metavar="NAME", help="Column of that table that tells patients apart.")
def init(
    folder: Path,
    data: Path,
    task: str,
    modality: str,
    labels: str | None,
    column: str | None,
    patient_column: str | None,
) -> None:
    """Look at a data folder and write a bundle for it into DIR that runs as it stands."""
    from ..bundle.create import write_bundle
    from ..data.inspect import facts_of

    with options.named_as_options(_OPTIONS):
        facts = facts_of(data, task, modality, labels=labels, column=column, patient_column=patient_column)
    written = write_bundle(facts, folder, task=task, modality=modality)
    classes = ", ".join(f"{name} {count}" for name, count in facts.classes.items())
    if facts.masks:
        classes += f" (of {facts.masks} masks looked at)"
    click.echo(f"{facts.images} images of {facts.patients} patients; {classes}", err=True)
    for note in facts.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(str(written))
    first = "mend what cannot be read, or list it in data.exclude; then " if facts.unreadable else ""
    click.echo(f"next: {first}medxfer run {folder}", err=True)


COMMANDS = (init,)
