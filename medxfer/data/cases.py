"""What there is: a folder of images becomes a list of cases with label, patient and given split. No pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.schema import DataSpec, Layout
from ..errors import DataError
from .case import Case, split_word
from .formats.kinds import DICOM_SUFFIXES
from .image import shown
from .listing.case_tables import with_table
from .listing.decathlon import datalist_of, read_datalist
from .listing.exclusions import without_excluded
from .listing.image_files import files_and_notes, files_in
from .listing.labels import MASK_COLUMNS, from_table, image_columns, key_column
from .listing.mask_cases import match_masks, refuse_images_as_masks, require_masks
from .listing.mask_folders import Place, places_in, without_masks
from .listing.misspelt import misspelt
from .listing.patient_columns import key_beside
from .listing.patients import ALONE, with_patients
from .listing.series_cases import may_hold_series, units_of
from .listing.tables import FILE_COLUMNS, Table, joined, match_column, nearest, read_table
from .policy import ReadPolicy

# Folders that say what their files are, not what they show: never classes.
_GENERIC = ("image", "img", "dicom", "picture", "mask", "scan", "file", "data")


__all__ = ["Case", "Found", "existing_folder", "files_in", "find_cases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The cases of a folder, and what the user should know about how they were found."""

    cases: list[Case]
    notes: list[str]
    patient_key: str  # how patients are told apart, in words
    layout: Layout
    labels: Path | None = None  # the label table
    findings: tuple[str, ...] = ()  # names, where cases have several labels at once

    @property
    def has_dicom(self) -> bool:
        """Whether a case is a DICOM file or series: such exports are often named after their patients."""
        return any(
            path.suffix.lower() in DICOM_SUFFIXES or path.is_dir()
            for case in self.cases
            for path in case.images
        )


def find_cases(data: DataSpec, root: Path, *, masks: bool = False) -> Found:
    """Look through a data folder.

    Layouts: a folder a class, perhaps below folders for train, val and test; a CSV table with a class, a mask or a
    column a finding for each file, series, study or patient; a datalist (dataset.json); a folder of images beside a
    folder of masks. A folder that holds one DICOM series is one case.

    Args:
        data: Layout, label table and columns, how patients are told apart, what to leave out.
        root: The folder.
        masks: Whether masks are needed: then neither folders nor a table of classes will do.

    Raises:
        DataError: Absent or empty folder, a class without images, a label table that does not fit, an image without
            mask, a mask that is the image itself.
    """
    existing_folder(root)
    layout: Layout = "class_folders"
    files, notes = files_and_notes(root)
    if not files:
        accepted = "DICOM, NIfTI, NRRD, MHA, PNG, JPEG, TIFF or BMP files"
        raise DataError(shown(root), "no image files", accepted, "name another folder")
    table: Table | None = None
    if (listed := datalist_of(data, root)) is not None:
        table, data = read_datalist(listed, data)
    elif places := _mask_places(data, root, files):
        return _from_mask_folders(data, root, files, places, notes)
    elif masks and not _names_masks(data, root, files):
        return _from_mask_folders(data, root, files, places_in(root, files, is_asked=True), notes)
    elif (table := _table_for(data, root, files)) is not None:
        table = joined(table, _further(data, root))
    if table is None:
        cases = _from_folders(data, root, without_masks(root, files, notes), notes)
    else:
        cases, layout = from_table(data, root, files, table, notes)
    cases = without_excluded(data, root, cases, notes)
    notes += misspelt(cases, table)
    return _completed(data, root, cases, table, layout, notes)


def _from_mask_folders(
    data: DataSpec, root: Path, files: Sequence[Path], places: Sequence[Place], notes: list[str]
) -> Found:
    """Images beside their masks; the table and the list of exclusions go before the question what has no mask."""
    matched = match_masks(data, root, files, places, notes)
    cases, table = with_table(data, root, matched.cases, notes)
    cases = without_excluded(data, root, cases, notes)
    cases = require_masks(data, root, cases, matched.orphans, notes)
    return _completed(data, root, cases, table, "mask_folders", notes)


def _completed(
    data: DataSpec, root: Path, cases: list[Case], table: Table | None, layout: Layout, notes: list[str]
) -> Found:
    """Cases with their patients, and what is said of them."""
    refuse_images_as_masks(cases)
    cases, patient_key = with_patients(data.patient, cases, table, notes)
    if patient_key == ALONE and (key := key_beside(root, table)) is not None:
        where = "data.patient.column" if table is not None else "data.labels and data.patient.column"
        notes.append(f"{key.words} may tell patients apart: name it by {where}")
    names = dict.fromkeys(name for case in cases if isinstance(case.label, Mapping) for name in case.label)
    return Found(
        cases=cases,
        notes=notes,
        patient_key=patient_key,
        layout=layout,
        labels=None if table is None else table.path,
        findings=tuple(names),
    )


def _mask_places(data: DataSpec, root: Path, files: Sequence[Path]) -> list[Place]:
    """Folders of images beside folders of masks, unless the bundle or a table says that labels come otherwise."""
    if data.layout == "mask_folders":
        return places_in(root, files, is_asked=True)
    if (
        data.layout != "auto"
        or data.column is not None
        or data.images is not None
        or data.findings is not None
    ):
        return []
    if data.labels is not None:
        tables = [read_table(root / data.labels)] if (root / data.labels).is_file() else []
    else:
        may_be_series = may_hold_series(files)
        found = [_image_table(data, path, may_be_series) for path in sorted(root.glob("*.csv"))]
        tables = [table for table in found if table is not None]
    if any(_has_labels(data, table) for table in tables):
        return []
    return places_in(root, files, is_asked=False)


def _names_masks(data: DataSpec, root: Path, files: Sequence[Path]) -> bool:
    """Whether a table may say the masks, or the bundle says where labels are."""
    if data.layout != "auto" or data.labels or data.column or data.images or data.findings:
        return True
    may_be_series = may_hold_series(files)
    tables = [_image_table(data, path, may_be_series) for path in sorted(root.glob("*.csv"))]
    return any(match_column(table.columns, MASK_COLUMNS) for table in tables if table is not None)


def _further(data: DataSpec, root: Path) -> list[Table]:
    """The tables to be joined; they lie in the data folder."""
    for name in data.join:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            todo = "put the file into the data folder"
            raise DataError(
                f"data.join: {shown(name)}", "outside of the data", "a path below data.source", todo
            )
    return [read_table(root / name) for name in data.join]


def existing_folder(path: Path) -> Path:
    """The folder itself.

    Raises:
        DataError: Absent (the nearest folder that exists is named), or no folder.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(shown(path), "a file", "a folder of images", "name the folder that holds it")
    parent = path
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = sorted(entry.name for entry in parent.iterdir()) if os.access(parent, os.R_OK | os.X_OK) else []
    missing = path.relative_to(parent).parts[0] if path != parent else path.name
    near = nearest(missing, names)
    todo = f"did you mean {shown(parent / near)}?" if near else "correct the path"
    raise DataError(
        shown(path), f"no such folder; {shown(parent.resolve())} exists", "a folder of images", todo
    )


def _table_for(data: DataSpec, root: Path, files: Sequence[Path]) -> Table | None:
    """The label table, or None where folders are the classes."""
    if data.labels is not None:
        path = root / data.labels
        return read_table(
            path if path.is_file() else Path(data.labels) if Path(data.labels).is_file() else path
        )
    if data.layout == "class_folders":
        return None
    may_be_series = may_hold_series(files)
    tables = [
        (path, table)
        for path in sorted(root.glob("*.csv"))
        if path.name not in data.join and (table := _image_table(data, path, may_be_series))
    ]
    is_asked = data.layout != "auto" or data.column is not None or data.images is not None
    if not is_asked:
        labelled = [(path, table) for path, table in tables if _has_labels(data, table)]
        if not labelled and _has_class_folders(root, files):
            return None
        tables = labelled or tables
    if len(tables) > 1:
        wanted = data.column or "label"
        with_column = [(path, table) for path, table in tables if match_column(table.columns, (wanted,))]
        tables = with_column if len(with_column) == 1 else tables
    if len(tables) > 1:
        names = ", ".join(path.name for path, _ in tables)
        raise DataError(shown(root), f"several label tables: {names}", "one", "name it: data.labels")
    if tables:
        return tables[0][1]
    raise _no_table(data, root, len(files), is_asked=is_asked)


def _no_table(data: DataSpec, root: Path, images: int, *, is_asked: bool) -> DataError:
    """The refusal of a folder in which neither folders nor a table say the classes."""
    has_csv = bool(list(root.rglob("*.csv")))
    todo = "name the table: data.labels" if has_csv else "add a label table"
    if data.images is not None:
        columns = ", ".join(data.images)
        seen = f"no label table (CSV) with the columns {columns}"
        return DataError(shown(root), seen, "a CSV file with all columns of data.images", todo)
    accepted = (
        f"a folder for each class, or a CSV file with a column `{FILE_COLUMNS[0]}` and a column of labels"
    )
    if is_asked:
        return DataError(shown(root), "no label table (CSV)", accepted, todo)
    todo = "sort them into folders, or add a table"
    if has_csv:
        todo = (
            "sort them into folders, or name the table (data.labels) and its columns of files (data.images)"
        )
    return DataError(shown(root), f"{images} images, no classes", accepted, todo)


def _has_labels(data: DataSpec, table: Table) -> bool:
    """Whether the columns say so by their names; columns of 0 and 1 beside class folders may be anything."""
    if data.findings is not None:
        return all(match_column(table.columns, (name,)) for name in data.findings)
    return match_column(table.columns, ("label", *MASK_COLUMNS)) is not None


def _image_table(data: DataSpec, path: Path, may_be_series: bool) -> Table | None:
    """The table, if it is one of images or of DICOM series; other CSV files may lie beside the data.

    Where the bundle names columns of files, a table that has them all is one.
    """
    try:
        table = read_table(path)
    except DataError:
        if path.stem.casefold() in ("labels", "label"):
            raise
        return None
    if data.images is not None:
        return table if all(match_column(table.columns, (name,)) for name in data.images) else None
    return table if image_columns(table) or (may_be_series and key_column(table)) else None


def _has_class_folders(root: Path, files: Sequence[Path]) -> bool:
    names = {parts[0] for path in files if len(parts := path.relative_to(root).parts) > 1}
    return any(split_word(name) or not name.casefold().startswith(_GENERIC) for name in names)


def _from_folders(data: DataSpec, root: Path, files: Sequence[Path], notes: list[str]) -> list[Case]:
    """ROOT/CLASS/... or ROOT/SPLIT/CLASS/...; a folder that holds one DICOM series is one case."""
    places = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and not path.name.startswith((".", "__MACOSX"))
    ]
    splits = [
        path for path in places if split_word(path.name) and any(child.is_dir() for child in path.iterdir())
    ]
    _refuse_empty_classes(root, splits or [root], files, notes)
    cases: list[Case] = []
    stray = 0
    units = list(files)
    if may_hold_series(files):
        policy = ReadPolicy(series=dict(data.series))
        units = [unit.path for unit in units_of(root, files, policy, notes)]
    for path in units:
        parts = path.relative_to(root).parts
        split = split_word(parts[0]) if splits else None
        depth = 1 if splits else 0
        if len(parts) < depth + 2 or (splits and split is None):
            stray += 1
            continue
        cases.append(
            Case(id=shown("/".join(parts)), images=(path,), patient="", label=parts[depth], split=split)
        )
    if not cases:
        accepted = "a folder for each class, with images in it"
        raise DataError(
            shown(root), f"{len(files)} images, none in a class folder", accepted, "sort them into folders"
        )
    if stray:
        notes.append(f"{stray} images outside the class folders were left aside")
    return cases


def _refuse_empty_classes(root: Path, bases: Sequence[Path], files: Sequence[Path], notes: list[str]) -> None:
    """A class folder without images is a copy that went wrong, not a class of nothing."""
    filled = {
        Path(*path.parts[: len(base.parts) + 1]) for base in bases for path in files if base in path.parents
    }
    for base in bases:
        for folder in sorted(base.iterdir()):
            if not folder.is_dir() or folder.name.startswith((".", "__MACOSX")) or folder in filled:
                continue
            if any(
                entry.is_file() and entry.suffix.lower() in (".csv", ".md", ".json")
                for entry in folder.iterdir()
            ):
                notes.append(f"{folder.relative_to(root).as_posix()} holds no images; it is not a class")
                continue
            accepted = "at least one image in each class folder"
            raise DataError(
                shown(folder), "a class folder without images", accepted, "fill the folder, or remove it"
            )
