"""`medxfer init`: from what was seen in a data folder to a bundle that runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import explained, write_atomic, write_json
from .metadata import metadata_of
from .parser import load_bundle
from .recipes import Recipe, of_classes, of_findings, of_masks
from .schema import DataFacts
from .source import printable, write_text
from .typed import nearest

# Option of `init` -> what its bundle says from `images` on.
TASKS: Mapping[str, Callable[[DataFacts, Sequence[str], int, str], Recipe]] = {
    "classification": of_classes,
    "findings": of_findings,
    "segmentation": of_masks,
}
DIMS = {
    "xray": (2,),
    "ct": (2, 3),
    "mri": (2, 3),
    "pathology": (2,),
}  # modality, its preset too -> pictures, volumes

# Class names that say "nothing found": with two classes the other one is the finding.
_ABSENT = re.compile(
    r"^(0|no|none|not?[ _-].*|non[ _-].*|normal.*|healthy.*|negative.*|benign.*|control.*|absent|false)$",
    re.IGNORECASE,
)


def write_bundle(facts: DataFacts, folder: Path, *, task: str, modality: str) -> Path:
    """Write a bundle for a data folder; all of it or nothing.

    Args:
        facts: What `data.inspect` saw.
        folder: The new bundle folder.
        task: `classification`, `findings` or `segmentation`.
        modality: `xray`, `ct`, `mri` or `pathology`.

    Returns:
        `folder`, with configs/train.yaml, configs/metadata.json and docs/README.md.

    Raises:
        ConfigError: The folder exists, task or modality is not known, or there is nothing to tell apart.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            str(folder), "exists already", "a folder that is not there yet", "name another folder"
        )
    for option, value, known in (("--task", task, TASKS), ("--modality", modality, DIMS)):
        if value not in known:
            near = nearest(value, known)
            todo = f"did you mean {near[0]}?" if near else f"write {option} {next(iter(known))}"
            raise ConfigError(option, value, ", ".join(known), todo)
    if facts.dims not in DIMS[modality]:
        fitting = [name for name, dims in DIMS.items() if facts.dims in dims]
        kind = "volumes" if facts.dims == 3 else "pictures"
        todo = f"write --modality {fitting[0]}"
        raise ConfigError("--modality", f"{modality}, but the data are {kind}", ", ".join(fitting), todo)
    if len(facts.classes) < 2 and task == "classification":
        seen = f"{len(facts.classes)} class: {', '.join(facts.classes)}" if facts.classes else "no labels"
        todo = "put each class's images into a folder of its own, or add a label CSV"
        raise ConfigError(str(facts.source), seen, "two or more classes", todo)
    classes = tuple(facts.classes)
    if task == "classification":
        classes = ordered_classes(classes)
    channels = facts.channels if facts.dims == 3 else 3 if facts.channels >= 3 else 1
    recipe = TASKS[task](facts, classes, channels, modality)
    name = re.sub(r"[^\w.-]+", "_", folder.resolve().name)
    unfinished = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        write_atomic(unfinished / "configs" / "train.yaml", _train_yaml(facts, classes, recipe, task))
        metadata = metadata_of(
            name,
            classes,
            channels=channels,
            shape=recipe.shape,
            modality=modality,
            task=task,
        )
        write_json(unfinished / "configs" / "metadata.json", metadata)
        write_atomic(unfinished / "docs" / "README.md", _readme(facts, classes, name, recipe))
        load_bundle(unfinished)
        with explained(folder):
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def ordered_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Classes in the order of the task: of two, the one that says "nothing found" comes first."""
    if len(names) == 2 and _ABSENT.match(names[1]) and not _ABSENT.match(names[0]):
        return (names[1], names[0])
    return tuple(names)


def _train_yaml(facts: DataFacts, classes: Sequence[str], recipe: Recipe, task: str) -> str:
    counts = printable(", ".join(f"{name} {facts.classes[name]}" for name in classes))
    if facts.masks:
        counts += f", of {facts.masks} masks looked at"
    what = "volume" if facts.dims == 3 else "image"
    lines = [
        f"# {recipe.question} {'in' if facts.masks else 'from'} one {what}.",
        "# `medxfer run` reads this file; the exported inference.yaml is what plain MONAI runs.",
        f"# Seen when it was written: {facts.images} {what}s of {facts.patients} patients ({counts}).",
        *(f"# {printable(note)}" for note in facts.notes),
        "seed: 0",
        "data:",
        f"  source: {_text(str(facts.source.resolve()))}",
        f"  layout: {facts.layout}",
        *([f"  labels: {_text(facts.labels)}  # below the source"] if facts.labels is not None else []),
        *([f"  column: {_text(facts.column)}  # label column"] if facts.column is not None else []),
        *_findings_lines(facts, task),
        _patient_line(facts),
        _split_line(facts),
        "  on_bad_image: stop  # or skip: leave unreadable images out and list them in the report",
        *recipe.lines,
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _findings_lines(facts: DataFacts, task: str) -> list[str]:
    if task != "findings" or facts.layout == "decathlon":
        return []
    return [f"  findings: {_text(list(facts.findings))}  # a column each: 1, 0, or blank where it is unknown"]


def _patient_line(facts: DataFacts) -> str:
    patient = facts.patient
    given = {
        key: value
        for key, value in (("column", patient.column), ("pattern", patient.pattern))
        if value is not None
    }
    if not given:
        return "  # patient: {pattern: '...'}  # without: column `patient`, DICOM PatientID, or by file"
    by = printable(facts.patient_found_by)
    return f"  patient: {_text(given)}" + (f"  # {by}: correct it if that is not the patient" if by else "")


def _split_line(facts: DataFacts) -> str:
    given = [name for name in ("train", "val", "test") if facts.splits.get(name)]
    comment = (
        f"  # {', '.join(given)} came with the data and stay; this makes what is missing" if given else ""
    )
    return "  split: {test: 0.2, val: 0.15, by: patient}" + comment


def _text(value: Any) -> str:
    """A value inside a line of YAML."""
    return write_text(value, one_line=True)


def _readme(facts: DataFacts, classes: Sequence[str], name: str, recipe: Recipe) -> str:
    rows = "\n".join(f"| {_cell(item)} | {facts.classes[item]} |" for item in classes)
    notes = "".join(f"- {printable(note)}\n" for note in facts.notes)
    unit, what = ("voxels", "volume") if facts.dims == 3 else ("pixels", "image")
    counted = "mask" if facts.masks else what
    size = f"median {' x '.join(map(str, facts.median_size))} {unit}"
    channels = f"{facts.channels} channel{'s' if facts.channels != 1 else ''}"
    return f"""# {name}

{recipe.aim}
Written by `medxfer init`; not for diagnosis.

    medxfer run {name}

## Data

{facts.images} {what}s of {facts.patients} patients, {size}, {channels}.

| {recipe.counted} | {counted}s |
|---|---|
{rows}

{notes}
## Files

- `configs/train.yaml`: the task. It is read by `medxfer run`; it is not a MONAI training configuration.
- `configs/metadata.json`: MONAI's metadata. `medxfer export` fills in what was measured and adds
  `configs/inference.yaml`, which plain MONAI runs.
"""


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
