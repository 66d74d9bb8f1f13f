"""A label table and a folder of images joined: each row finds its file, each file at most one row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ..bundle.schema import DataSpec, Layout
from ..errors import DataError
from .case import Case, SplitName, split_word
from .formats import DICOM_SUFFIXES
from .image import shown
from .tables import FILE_COLUMNS, Table, match_column, nearest

_YES = {"true": "1", "yes": "1", "false": "0", "no": "0"}


def from_table(
    data: DataSpec, root: Path, files: Sequence[Path], table: Table, notes: list[str]
) -> tuple[list[Case], Layout]:
    """Cases of a label table.

    Args:
        data: Names the label column (default `label`).
        root: The data folder.
        files: Every image below it.
        table: The table.
        notes: Sentences are added here.

    Raises:
        DataError: A column or file that is missing, a file named twice, a path that leaves the folder.
    """
    notes.extend(table.notes)
    file_column = match_column(table.columns, FILE_COLUMNS)
    if file_column is None:
        seen = f"no column with file names; columns: {', '.join(table.columns)}"
        raise DataError(
            shown(table.path), seen, f"one of: {', '.join(FILE_COLUMNS)}", "rename the column of file names"
        )
    label_column = table.column(data.column or "label")
    split_column = match_column(table.columns, ("split",))
    study_column = match_column(table.columns, ("study", "study_id", "StudyInstanceUID"))
    find = _finder(root, files, table)
    label_of = _label_rule([row[label_column] for row in table.rows], label_column, notes)
    first_line: dict[Path, int] = {}
    missing: list[int] = []
    unlabelled = 0
    cases: list[Case] = []
    for number, row in enumerate(table.rows):
        path = find(number, row[file_column])
        if path is None:
            missing.append(number)
            continue
        if path in first_line:
            _refuse_twice(table, first_line[path], number, file_column, label_column)
        first_line[path] = number
        if not row[label_column]:
            unlabelled += 1
            continue
        cases.append(
            Case(
                id=shown(path.relative_to(root).as_posix()),
                images=(path,),
                patient="",
                label=label_of(row[label_column]),
                study=(row[study_column] or None) if study_column else None,
                split=_split_of(table, number, row[split_column]) if split_column else None,
                extra=row,
            )
        )
    _tell_missing(data, table, missing, file_column, notes)
    if unlabelled:
        notes.append(f"{unlabelled} rows of {table.path.name} have no label and were left out")
    if not cases:
        raise DataError(
            shown(table.path), "no row with a label and a file", "some", f"fill the column `{label_column}`"
        )
    if len(files) > len(first_line):
        notes.append(f"{len(files) - len(first_line)} images are not in {table.path.name} and were left out")
    cases.sort(key=lambda case: case.id)
    dicom = sum(case.images[0].suffix.lower() in DICOM_SUFFIXES for case in cases)
    return cases, "dicom_csv" if 2 * dicom > len(cases) else "csv"


def _finder(root: Path, files: Sequence[Path], table: Table) -> Callable[[int, str], Path | None]:
    """A function from a cell to its file: by path, else by a name or stem that is unique."""
    known = {path.relative_to(root).as_posix(): path for path in files}
    beside = table.path.parent.relative_to(root).as_posix() if root in table.path.parents else "."
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        for name in {path.name, path.stem}:
            by_name[name].append(path)

    def find(number: int, cell: str) -> Path | None:
        text = cell.replace("\\", "/")
        pure = PurePosixPath(text)
        if not text:
            raise DataError(
                table.where(number), "no file name", "a path relative to the folder", "fill the cell"
            )
        if pure.is_absolute() or ".." in pure.parts or (len(text) > 1 and text[1] == ":"):
            seen = f"{shown(text)} leaves the data folder"
            raise DataError(
                table.where(number), seen, "a path relative to the folder", "write relative paths"
            )
        direct = known.get(pure.as_posix()) or known.get((PurePosixPath(beside) / pure).as_posix())
        if direct is not None:
            return direct
        same = by_name.get(pure.name, [])
        if len(pure.parts) > 1:  # an image id without its suffix may still carry its folder
            same = [
                path for path in same if path.relative_to(root).as_posix().startswith(f"{pure.as_posix()}.")
            ]
        if len(same) > 1:
            first = ", ".join(shown(path.relative_to(root)) for path in same[:3])
            seen = f"{shown(text)} fits {len(same)} files: {first}"
            raise DataError(
                table.where(number), seen, "one file a row", "write the path from the data folder"
            )
        return same[0] if same else None

    return find


def _label_rule(cells: Sequence[str], column: str, notes: list[str]) -> Callable[[str], str]:
    """How cells become class names: one rule for the whole column, said where it changes anything."""
    values = Counter(cell for cell in cells if cell)
    plain = {value: _YES.get(value.casefold(), value) for value in values}
    numbers = {value: _whole(text) for value, text in plain.items()}
    if values and all(number is not None for number in numbers.values()):
        changed = sorted(value for value, number in numbers.items() if value != number)
        # A column of yes and no alone keeps its words: they are the better class names.
        if changed and not all(value.casefold() in _YES for value in values):
            notes.append(f"column `{column}`: {', '.join(changed[:5])} read as whole numbers")
            return lambda cell: numbers[cell] or cell
    by_key: dict[str, list[str]] = defaultdict(list)
    for value in sorted(values, key=lambda value: (-values[value], value)):
        by_key[value.casefold()].append(value)
    mixed = [names for names in by_key.values() if len(names) > 1]
    if mixed:
        said = "; ".join(f"{', '.join(names[1:])} read as {names[0]}" for names in mixed)
        notes.append(f"column `{column}`: {said}")
    return lambda cell: by_key[cell.casefold()][0]


def _whole(text: str) -> str | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # `007` is a name, not a number: leading zeros are kept.
    if text.lstrip("+-").startswith("0") and len(text) > 1 and "." not in text:
        return None
    return str(int(number)) if number.is_integer() else None


def _split_of(table: Table, number: int, cell: str) -> SplitName | None:
    if not cell:
        return None
    split = split_word(cell)
    if split is None:
        near = nearest(cell, ("train", "val", "test"))
        todo = f"did you mean `{near}`?" if near else "correct the cell, or rename the column"
        raise DataError(table.where(number), f"split `{shown(cell)}`", "train, val, test or nothing", todo)
    return split


def _refuse_twice(table: Table, first: int, second: int, file_column: str, label_column: str) -> None:
    one, two = table.rows[first], table.rows[second]
    name = shown(two[file_column])
    seen = f"{name} is named in lines {table.lines[first]} and {table.lines[second]}"
    if one[label_column] != two[label_column]:
        seen += f", with the labels `{one[label_column]}` and `{two[label_column]}`"
    raise DataError(
        shown(table.path), f"duplicate case: {seen}", "one row an image", "remove one of the two lines"
    )


def _tell_missing(
    data: DataSpec, table: Table, missing: Sequence[int], file_column: str, notes: list[str]
) -> None:
    if not missing:
        return
    first = ", ".join(
        f"{shown(table.rows[row][file_column])} (line {table.lines[row]})" for row in missing[:5]
    )
    seen = f"{len(missing)} of {len(table.rows)} rows name files that are not there: {first}"
    if data.on_bad_image == "skip" and len(missing) < len(table.rows):
        notes.append(f"{table.path.name}: {seen}; left out")
        return
    todo = "add the files, remove the rows, or set data.on_bad_image: skip"
    raise DataError(shown(table.path), seen, "a file for each row", todo)
