"""`medxfer init`: from what was seen in a data folder to a bundle that runs as it stands."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import explained, write_atomic, write_json
from .parser import load_bundle
from .schema import DataFacts, PatientSpec
from .source import printable, write_text
from .typed import nearest

TASKS = {"classification": "Classification"}  # option of `init` -> part
PRESETS = {"xray": "xray"}  # modality -> images.preset
MODALITIES = {"xray": "CR"}  # modality -> what metadata.json calls it
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)

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
        task: `classification`.
        modality: `xray`.

    Returns:
        `folder`, with configs/train.yaml, configs/metadata.json and docs/README.md.

    Raises:
        ConfigError: The folder exists, task or modality is not known, or there is nothing to tell apart.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            str(folder), "exists already", "a folder that is not there yet", "name another folder"
        )
    for option, value, known in (("--task", task, TASKS), ("--modality", modality, PRESETS)):
        if value not in known:
            near = nearest(value, known)
            todo = f"did you mean {near[0]}?" if near else f"write {option} {next(iter(known))}"
            raise ConfigError(option, value, ", ".join(known), todo)
    if len(facts.classes) < 2:
        seen = f"{len(facts.classes)} class: {', '.join(facts.classes)}" if facts.classes else "no labels"
        todo = "put each class's images into a folder of its own, or add a label CSV"
        raise ConfigError(str(facts.source), seen, "two or more classes", todo)
    classes = ordered_classes(tuple(facts.classes))
    channels = 3 if facts.channels >= 3 else 1
    name = re.sub(r"[^\w.-]+", "_", folder.resolve().name)
    unfinished = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        write_atomic(
            unfinished / "configs" / "train.yaml", _train_yaml(facts, classes, channels, task, modality)
        )
        metadata = metadata_of(name, classes, channels=channels, size=_size_of(facts), modality=modality)
        write_json(unfinished / "configs" / "metadata.json", metadata)
        write_atomic(unfinished / "docs" / "README.md", _readme(facts, classes, name))
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


def _size_of(facts: DataFacts) -> int:
    """Pixels a side: 128, or less for smaller pictures."""
    longest = max(facts.median_size)
    return 128 if longest >= 128 else max(32, longest // 32 * 32)


def _train_yaml(facts: DataFacts, classes: Sequence[str], channels: int, task: str, modality: str) -> str:
    counts = printable(", ".join(f"{name} {facts.classes[name]}" for name in classes))
    question = printable(" or ".join(classes)) if len(classes) == 2 else f"One of {len(classes)} classes"
    order = "the second is the finding" if len(classes) == 2 else "in this order in every table"
    size = _size_of(facts)
    lines = [
        f"# {question} from one image.",
        "# `medxfer run` reads this file; the exported inference.yaml is what plain MONAI runs.",
        f"# Seen when it was written: {facts.images} images of {facts.patients} patients ({counts}).",
        *(f"# {printable(note)}" for note in facts.notes),
        "seed: 0",
        "data:",
        f"  source: {_text(str(facts.source.resolve()))}",
        f"  layout: {facts.layout}",
        *([f"  labels: {_text(facts.labels)}  # below the source"] if facts.labels is not None else []),
        *([f"  column: {_text(facts.column)}  # label column"] if facts.column is not None else []),
        _patient_line(facts.patient),
        _split_line(facts),
        "  on_bad_image: stop  # or skip: leave unreadable images out and list them in the report",
        "images:",
        f"  preset: {PRESETS[modality]}",
        f"  size: {size}  # pixels a side; 224 is slower and sometimes better",
        "encoder:",
        "  id: efficientnet_lite0  # `medxfer encoders` lists what is installed",
        "  weights: imagenet",
        f"  in_channels: {channels}",
        "task:",
        f"  _target_: {TASKS[task]}",
        f"  classes: {_text(list(classes))}  # {order}",
        "  balance: weights  # a rare class counts as much as a frequent one",
        "phases:",
        "  - {name: probe, train: head, lr: 1.0e-3, epochs: 10}  # the encoder as it came",
        "  - {name: finetune, train: all, lr: 1.0e-4, epochs: 3, layer_decay: 0.8}  # early stages move less",
        "training:",
        "  batch: 32",
        "  threshold: youden  # chosen on val; or f1, half",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _patient_line(patient: PatientSpec) -> str:
    given = {
        key: value
        for key, value in (("column", patient.column), ("pattern", patient.pattern))
        if value is not None
    }
    if not given:
        return "  # patient: {pattern: '...'}  # without: column `patient`, DICOM PatientID, or by file"
    return f"  patient: {_text(given)}"


def _split_line(facts: DataFacts) -> str:
    given = [name for name in ("train", "val", "test") if facts.splits.get(name)]
    comment = (
        f"  # {', '.join(given)} came with the data and stay; this makes what is missing" if given else ""
    )
    return "  split: {test: 0.2, val: 0.15, by: patient}" + comment


def _text(value: Any) -> str:
    """A value inside a line of YAML."""
    return write_text(value, one_line=True)


def _readme(facts: DataFacts, classes: Sequence[str], name: str) -> str:
    rows = "\n".join(f"| {_cell(item)} | {facts.classes[item]} |" for item in classes)
    notes = "".join(f"- {printable(note)}\n" for note in facts.notes)
    size = f"median {facts.median_size[0]} x {facts.median_size[1]} pixels"
    channels = f"{facts.channels} channel{'s' if facts.channels != 1 else ''}"
    return f"""# {name}

Tells {printable(", ".join(classes[:-1]))} and {printable(classes[-1])} apart in one image.
Written by `medxfer init`; not for diagnosis.

    medxfer run {name}

## Data

{facts.images} images of {facts.patients} patients, {size}, {channels}.

| class | images |
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


def metadata_of(
    name: str, classes: Sequence[str], *, channels: int, size: int, modality: str
) -> dict[str, Any]:
    """metadata.json after MONAI's bundle specification.

    Args:
        name: Of the bundle.
        classes: In the order of the network's outputs.
        channels: Of the network's input.
        size: Pixels a side.
        modality: As in `init`.
    """
    listed = " or ".join(classes) if len(classes) == 2 else f"one of {', '.join(classes)}"
    image = _tensor("image", "magnitude", MODALITIES[modality], channels, [size, size])
    image["channel_def"] = {
        str(i): "image" if channels == 1 else colour for i, colour in enumerate(_COLOURS[:channels])
    }
    pred = _tensor("probabilities", "classes", "n/a", len(classes), [])
    pred["channel_def"] = {str(i): item for i, item in enumerate(classes)}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "written by medxfer init"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            package: _version(package)
            for package in ("fire", "itk", "jsonschema", "pillow", "pytorch-ignite", "pyyaml")
        },
        "name": name,
        "task": f"Image classification: {listed}",
        "description": f"A pretrained encoder and a linear head that tell from one image: {listed}.",
        "authors": "to be named by the publisher",
        "copyright": "to be named by the publisher",
        "data_type": "DICOM, PNG or JPEG",
        "image_classes": f"{channels} channel, {size} x {size} pixels, intensity in [0, 1]",
        "label_classes": f"one of {', '.join(classes)}",
        "pred_classes": f"{len(classes)} probabilities: {', '.join(classes)}",
        "intended_use": "Research; not for diagnosis",
        "references": [],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


_COLOURS = ("red", "green", "blue")

# The tested set, named when a package is not installed here: only the exported bundle needs it.
_TESTED = {
    "fire": "0.7.1",
    "itk": "5.4.7",
    "jsonschema": "4.26.0",
    "pillow": "13.0.0",
    "pytorch-ignite": "0.5.5",
    "pyyaml": "6.0.3",
}


def _version(package: str) -> str:
    """Release of an installed package, without a local part such as `+cpu`."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return _TESTED[package]


def _tensor(kind: str, form: str, modality: str, channels: int, shape: list[int]) -> dict[str, Any]:
    return {
        "type": kind,
        "format": form,
        "modality": modality,
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
    }
