"""What lies in a data folder, as facts that `medxfer init` writes a bundle from; a guess only where it is certain."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from ..bundle.schema import DataFacts, DataSpec, Layout, PatientSpec
from ..errors import ConfigError, DataError
from .case import Case
from .cases import Found, existing_folder, find_cases
from .formats.kinds import PICTURE_SUFFIXES, image_suffix
from .image import Image, shown
from .listing.patient_columns import key_beside
from .listing.patients import ALONE
from .listing.patients import COLUMNS as _PATIENT_COLUMNS
from .listing.tables import FILE_COLUMNS, match_column, read_table
from .mask_values import values_of
from .presets import default_augment
from .readers import read_image

TASKS = ("classification", "findings", "segmentation")
LOOKED_AT = 48  # images opened for size and channels, spread over the folder
VOLUMES_LOOKED_AT = 8
DOMINATED = 0.9  # share of pixels
_SIDE = 256  # pixels along an axis that are looked at
_STAINED = ("pathology",)  # modalities whose colour says something: kept for the few images that have it
_ALIKE = 1.05  # spacings that differ by less are one
_LABEL_COLUMNS = ("label", "class", "target", "diagnosis", "category")


def facts_of(
    path: Path,
    task: str,
    modality: str,
    *,
    labels: str | None = None,
    column: str | None = None,
    patient_column: str | None = None,
) -> DataFacts:
    """Look at a data folder.

    Args:
        path: Class folders, images with a label table, a datalist, or images beside their masks.
        task: `classification` (one class a case), `findings` (several, each there or not) or `segmentation` (masks).
        modality: A preset, such as `xray`.
        labels: The label table below `path`, where there are several.
        column: Its label column, where the name alone does not tell.
        patient_column: Its column that tells patients apart; None: looked for by its name.

    Returns:
        Layout, classes or findings, patients, given splits, channels, median size, and what could not be settled as
        notes.

    Raises:
        ConfigError: A task or modality that is not known.
        DataError: A folder that `medxfer run` would refuse as well, or labels of another kind than the task asks for.
    """
    if task not in TASKS:
        raise ConfigError("--task", task, ", ".join(TASKS), f"write --task {TASKS[0]}")
    default_augment(modality)  # refuses what has no preset
    existing_folder(path)
    spec = DataSpec(source=str(path), labels=labels, column=column)
    complete = {"findings": _with_patient, "classification": _with_columns}.get(task)
    if complete is not None:
        spec = complete(spec, path)
    if patient_column is not None:
        spec = _with_named(spec, path, patient_column)
    spec, found = _found(spec, path, task)
    found_by = ""
    if found.patient_key == ALONE:
        spec, found, found_by = _with_key(spec, found, path)
    _require_task(found, task, path)
    notes = list(found.notes)
    if found_by:
        notes.append(f"patients are told apart by {found_by}: name another one with --patient-column")
    images, unreadable = _looked_at(found.cases, notes)
    channels, size = _channels_and_size(found.cases, images, modality, notes)
    spacings = [image.spacing for image in images if image.spacing is not None]
    masks = values_of(path, found.cases, found.labels) if task == "segmentation" else None
    notes += () if masks is None else masks.notes
    return DataFacts(
        source=path,
        layout=found.layout,
        classes=_counts(found) if masks is None else masks.classes,
        images=len(found.cases),
        patients=len({case.patient for case in found.cases}),
        splits=dict(Counter(case.split for case in found.cases if case.split is not None)),
        channels=channels,
        median_size=size,
        labels=None if found.labels is None else _below(found.labels, path),
        column=spec.column,
        findings=found.findings,
        dims=3 if len(size) == 3 else 2,
        are_pictures=all(image_suffix(case.images[0]) in PICTURE_SUFFIXES for case in found.cases),
        patient=_patient_of(spec, found, notes),
        patient_found_by=found_by,
        is_dominated=2 * sum(map(_is_dominated, images)) > len(images),
        masks=0 if masks is None else masks.masks,
        values="number" if masks is None else masks.values,
        ignore=None if masks is None else masks.ignore,
        spacing=None if len(spacings) < len(images) else _median_of(spacings),
        is_spacing_mixed=_are_mixed(spacings),
        unreadable=unreadable,
        notes=tuple(notes),
    )


def _found(spec: DataSpec, path: Path, task: str) -> tuple[DataSpec, Found]:
    """The cases; masks in folders and a table of classes may both be there, then the task chooses."""
    found = find_cases(spec, path, masks=task == "segmentation")
    has_masks = any(isinstance(case.label, Path) for case in found.cases)
    other: Layout | None = None
    if task == "segmentation" and not has_masks and spec.column is None:
        other = "mask_folders"
    elif task != "segmentation" and found.layout == "mask_folders":
        other = "csv"
    if other is None:
        return spec, found
    changed = dataclasses.replace(spec, layout=other)
    try:
        return changed, find_cases(changed, path)
    except DataError:
        return spec, found


def _median_of(spacings: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """Along each axis, to 0.01 mm."""
    if len({len(one) for one in spacings}) != 1:
        return None
    return tuple(round(median(axis), 2) for axis in zip(*spacings, strict=True))


def _are_mixed(spacings: Sequence[tuple[float, ...]]) -> bool:
    """Whether voxels differ from image to image by more than 5 %."""
    return any(max(axis) > _ALIKE * min(axis) for axis in zip(*spacings, strict=False))


def _counts(found: Found) -> dict[str, int]:
    """Images of each class; with findings, those with each, in the order of the columns."""
    if not found.findings:
        return dict(sorted(Counter(str(case.label) for case in found.cases).items()))
    labels = [case.label for case in found.cases if isinstance(case.label, Mapping)]
    return {name: sum(bool(label.get(name)) for label in labels) for name in found.findings}


def _require_task(found: Found, task: str, path: Path) -> None:
    """Labels must be what the task asks for."""
    if found.findings:
        kind, fitting = f"findings ({', '.join(found.findings[:5])})", "findings"
    elif any(isinstance(case.label, Path) for case in found.cases):
        kind, fitting = "masks", "segmentation"
    else:
        kind, fitting = "one class a case", "classification"
    if fitting == task:
        return
    where = shown(found.labels or path)
    todo = "name the columns in a bundle: data.findings" if task == "findings" else f"write --task {fitting}"
    if fitting == "segmentation":
        todo += ", or name a column of classes: --column"
    elif task == "segmentation":
        todo += ", or put the masks into a folder beside the images"
    raise DataError(where, f"labels are {kind}", f"what --task {task} needs", todo)


def _with_patient(spec: DataSpec, path: Path) -> DataSpec:
    """Name the table of findings where there is one only, and its patient column."""
    tables = [path / spec.labels] if spec.labels else sorted(path.glob("*.csv"))
    if len(tables) != 1:
        return spec
    columns = read_table(tables[0]).columns
    patients = [found for name in _PATIENT_COLUMNS if (found := match_column(columns, (name,)))]
    patient = PatientSpec(column=patients[0]) if len(set(patients)) == 1 else PatientSpec()
    return dataclasses.replace(spec, labels=tables[0].relative_to(path).as_posix(), patient=patient)


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


def _with_named(spec: DataSpec, path: Path, name: str) -> DataSpec:
    """The patient column that the user named; where folders are the classes, with the one table that has it."""
    spec = dataclasses.replace(spec, patient=PatientSpec(column=name))
    if spec.labels is not None:
        return spec
    tables = []
    for place in sorted(path.glob("*.csv")):
        try:
            columns = read_table(place).columns
        except DataError:
            continue
        if match_column(columns, (name,)) and match_column(columns, FILE_COLUMNS):
            tables.append(place)
    return _by_table(spec, tables[0]) if len(tables) == 1 else spec


def _by_table(spec: DataSpec, table: Path) -> DataSpec:
    """Classes from a table instead of folders, where one of its columns is named like a label."""
    fitting = [
        found for name in _LABEL_COLUMNS if (found := match_column(read_table(table).columns, (name,)))
    ]
    label = fitting[0] if fitting and (len(fitting) == 1 or fitting[0].casefold() == "label") else None
    return dataclasses.replace(spec, labels=table.name, column=spec.column or label)


def _with_key(spec: DataSpec, found: Found, path: Path) -> tuple[DataSpec, Found, str]:
    """Patients by a column that repeats and is named after an exam or a study, if the cases stay the same."""
    if found.layout == "decathlon":
        return spec, found, ""
    table = None if found.labels is None else read_table(found.labels)
    key = key_beside(path, table)
    if key is None:
        return spec, found, ""
    other = dataclasses.replace(spec, patient=PatientSpec(column=key.column))
    if table is None:
        other = _by_table(other, key.table)
    try:
        keyed = find_cases(other, path)
    except DataError:
        return spec, found, ""
    if {case.id: case.label for case in keyed.cases} != {case.id: case.label for case in found.cases}:
        return spec, found, ""
    return other, keyed, key.words


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


def _looked_at(cases: Sequence[Case], notes: list[str]) -> tuple[list[Image], int]:
    """A spread of images, and how many cannot be read, which is said."""
    looked_at = LOOKED_AT if image_suffix(cases[0].images[0]) in PICTURE_SUFFIXES else VOLUMES_LOOKED_AT
    step = max(1, len(cases) // looked_at)
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
            f"{len(faults)} of {len(faults) + len(images)} images looked at cannot be read: {faults[0]}; `medxfer run` "
            "stops there unless they are mended, listed in data.exclude, or data.on_bad_image is skip"
        )
    return images, len(faults)


def _is_dominated(image: Image) -> bool:
    """Whether one value fills more than 90 % of an image, every k-th pixel looked at."""
    array = image.array
    thin = array[(slice(None), *[slice(None, None, -(-side // _SIDE)) for side in array.shape[1:]])]
    return bool(np.unique(thin[0], return_counts=True)[1].max() > DOMINATED * thin[0].size)


def _channels_and_size(
    cases: Sequence[Case], images: Sequence[Image], modality: str, notes: list[str]
) -> tuple[int, tuple[int, ...]]:
    """Channels that keep what there is to see, and the median size along each axis."""
    dims = {image.array.ndim - 1 for image in images}
    if len(dims) > 1:
        volumes = sum(image.array.ndim == 4 for image in images)
        seen = f"{volumes} of {len(images)} images looked at are volumes, the others pictures"
        raise DataError(
            shown(cases[0].images[0].parent), seen, "one kind", "leave one of them out: data.exclude"
        )
    colour = [
        image for image in images if image.array.shape[0] == 3 and "three equal channels" not in image.applied
    ]
    if colour and len(colour) < len(images):
        notes.append(f"{len(colour)} of {len(images)} images looked at are in colour, the others grey")
    for text, count in Counter(text for image in images for text in image.warnings).most_common(3):
        notes.append(f"{count} of {len(images)} images looked at: {text}")
    size = tuple(
        int(median(image.array.shape[axis] for image in images)) for axis in range(1, dims.pop() + 1)
    )
    sequences = len(cases[0].images)
    if sequences > 1:
        return sequences, size
    least = 0 if modality in _STAINED else len(images) / 2
    return 3 if len(colour) > least else 1, size


def _below(labels: Path, path: Path) -> str:
    return labels.relative_to(path).as_posix() if path in labels.parents else str(labels)
