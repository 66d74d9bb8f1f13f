"""What lies in a data folder, as facts that `medxfer init` writes a bundle from; a guess only where it is certain."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from ..bundle.schema import DataFacts, DataSpec, PatientSpec
from ..errors import ConfigError, DataError
from .case import Case
from .cases import Found, existing_folder, find_cases
from .image import Image
from .patients import ALONE
from .presets import default_augment
from .readers import read_image
from .tables import match_column, read_table

LOOKED_AT = 48  # images opened for size and channels, spread over the folder
_LABEL_COLUMNS = ("label", "class", "target", "diagnosis", "category")
_PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id")


def facts_of(
    path: Path, task: str, modality: str, *, labels: str | None = None, column: str | None = None
) -> DataFacts:
    """Look at a data folder.

    Args:
        path: Class folders, or images with a label table.
        task: `classification`.
        modality: A preset, such as `xray`.
        labels: The label table below `path`, where there are several.
        column: Its label column, where the name alone does not tell.

    Returns:
        Layout, classes, patients, given splits, channels, median size, and what could not be settled as notes.

    Raises:
        ConfigError: A task or modality that is not known.
        DataError: A folder that `medxfer run` would refuse as well.
    """
    if task != "classification":
        raise ConfigError("--task", task, "classification", "write --task classification")
    default_augment(modality)  # refuses what has no preset
    existing_folder(path)
    spec = _with_columns(DataSpec(source=str(path), labels=labels, column=column), path)
    found = find_cases(spec, path)
    notes = list(found.notes)
    channels, size = _channels_and_size(found.cases, notes)
    return DataFacts(
        source=path,
        layout=found.layout,
        classes=dict(sorted(Counter(str(case.label) for case in found.cases).items())),
        images=len(found.cases),
        patients=len({case.patient for case in found.cases}),
        splits=dict(Counter(case.split for case in found.cases if case.split is not None)),
        channels=channels,
        median_size=size,
        labels=None if found.labels is None else _below(found.labels, path),
        column=spec.column,
        patient=_patient_of(spec, found, notes),
        notes=tuple(notes),
    )


def _with_columns(spec: DataSpec, path: Path) -> DataSpec:
    """Name the label and patient columns of a lone label table where exactly one name fits."""
    if spec.labels is not None:
        tables = [path / spec.labels]
    else:
        tables = [place for place in sorted(path.glob("*.csv")) if spec.column or _holds_labels(place)]
    if len(tables) != 1 or not (spec.labels or spec.column or _is_needed(spec, path)):
        return spec
    columns = read_table(tables[0]).columns
    fitting = [found for name in _LABEL_COLUMNS if (found := match_column(columns, (name,)))]
    patients = [found for name in _PATIENT_COLUMNS if (found := match_column(columns, (name,)))]
    label = "label" if "label" in fitting else fitting[0] if len(fitting) == 1 else None
    return dataclasses.replace(
        spec,
        labels=spec.labels or tables[0].name,
        column=spec.column or label,
        patient=PatientSpec(column=patients[0]) if len(set(patients)) == 1 else PatientSpec(),
    )


def _holds_labels(path: Path) -> bool:
    try:
        table = read_table(path)
    except DataError:
        return False
    named = match_column(table.columns, ("file", "filename", "image", "path"))
    return named is not None and match_column(table.columns, _LABEL_COLUMNS) is not None


def _is_needed(spec: DataSpec, path: Path) -> bool:
    """Whether the folders alone say nothing: tables often lie beside class folders and repeat them."""
    try:
        return find_cases(spec, path).layout != "class_folders"
    except DataError:
        return True


def _patient_of(spec: DataSpec, found: Found, notes: list[str]) -> PatientSpec:
    """The rule for patients; where none is certain, a note says what to look at."""
    if found.patient_key != ALONE:
        return spec.patient
    names = ", ".join(case.images[0].name for case in found.cases[:3])
    notes.append(f"if file names such as {names} hold the patient, set data.patient.pattern to find it")
    return PatientSpec()


def _channels_and_size(cases: Sequence[Case], notes: list[str]) -> tuple[int, tuple[int, int]]:
    """Channels that keep what there is to see, and the median rows and columns, from a spread of images."""
    step = max(1, len(cases) // LOOKED_AT)
    images: list[Image] = []
    faults: list[str] = []
    for case in cases[::step]:
        try:
            images.append(read_image(case.images[0]))
        except DataError as error:
            faults.append(f"{case.id}: {error.seen}")
    if not images:
        raise DataError(
            f"{len(faults)} images", f"none can be read; {faults[0]}", "readable images", "replace them"
        )
    if faults:
        notes.append(
            f"{len(faults)} of {len(faults) + len(images)} images looked at cannot be read: {faults[0]}"
        )
    colour = [
        image for image in images if image.array.shape[0] == 3 and "three equal channels" not in image.applied
    ]
    if colour and len(colour) < len(images):
        notes.append(f"{len(colour)} of {len(images)} images looked at are in colour, the others grey")
    for text, count in Counter(text for image in images for text in image.warnings).most_common(3):
        notes.append(f"{count} of {len(images)} images looked at: {text}")
    rows = median(image.array.shape[1] for image in images)
    columns = median(image.array.shape[2] for image in images)
    return 3 if 2 * len(colour) > len(images) else 1, (int(rows), int(columns))


def _below(labels: Path, path: Path) -> str:
    return labels.relative_to(path).as_posix() if path in labels.parents else str(labels)
