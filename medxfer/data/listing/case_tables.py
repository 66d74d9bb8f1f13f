"""A table beside cases that folders brought: split, patient and further columns, found by the case that a row names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..case import Case
from ..image import shown
from .labels import split_of, unused_splits
from .mask_cases import name_without_ending
from .tables import FILE_COLUMNS, Table, joined, match_column, read_table

KEY_COLUMNS = (
    "id",
    "case_id",
    "image_id",
    "name",
    "key",
    *FILE_COLUMNS,
)  # the first that names cases is taken
_FEWEST = 0.5  # share of the rows that must name a case before a table that nobody named is one of the cases
_SHOWN = 5
_SEVERAL = -1


def with_table(
    data: DataSpec, root: Path, cases: list[Case], notes: list[str]
) -> tuple[list[Case], Table | None]:
    """Give cases what a table says of them: its row as `extra`, split and study.

    The table is the one that `data.labels` names, else the only one in the data folder of which half the rows or more
    name a case. What it does not name is left out, as with every table.

    Args:
        data: Names the table, its split column and tables to be joined.
        root: The data folder.
        cases: Found by folders.
        notes: Sentences are added here.

    Raises:
        DataError: Several tables, a table that names no case, rows without a case, a case named twice, or a split
            that is another one than the folder's.
    """
    names = _names_of(root, cases)
    table = _table_of(data, root, names)
    if table is None:
        return cases, None
    if data.join:
        table = joined(table, [read_table(root / name) for name in data.join])
    key, _ = _key_column(table, names)
    notes += table.notes
    row_of = _rows(data, table, key, names, notes)
    if data.split.column is None and match_column(table.columns, ("split",)) is None:
        notes += unused_splits(table)
    found = [_joined(data, table, row_of[place], case) for place, case in enumerate(cases) if place in row_of]
    if len(found) < len(cases):
        notes.append(f"{len(cases) - len(found)} images are not in {table.path.name} and were left out")
    notes.append(f"{table.path.name} is joined by its column `{key}`")
    return found, table


def _names_of(root: Path, cases: Sequence[Case]) -> dict[str, int]:
    """Everything that may name a case, and which one it is; `_SEVERAL` where it is not one."""
    names: dict[str, int] = {}
    for place, case in enumerate(cases):
        own: set[str] = set()
        for path in case.images:
            below = path.relative_to(root)
            stem = name_without_ending(path)
            own |= {below.as_posix(), below.with_name(stem).as_posix(), path.name, stem}
            # nnU-Net's number of the channel is no part of the case's name.
            own |= {stem[:-5]} if isinstance(case.label, Path) and _is_numbered(stem, case.label) else set()
        for name in own:
            names[name] = place if name not in names else _SEVERAL
    return names


def _is_numbered(stem: str, mask: Path) -> bool:
    return stem[-5:-4] == "_" and stem[-4:].isdigit() and stem[:-5] == name_without_ending(mask)


def _table_of(data: DataSpec, root: Path, names: Mapping[str, int]) -> Table | None:
    if data.labels is not None:
        path = root / data.labels
        table = read_table(path if path.is_file() or not Path(data.labels).is_file() else Path(data.labels))
        if not _key_column(table, names)[1]:
            seen = f"no column that names a case; columns: {', '.join(table.columns)}"
            accepted = f"a column such as `{KEY_COLUMNS[0]}` with the images' names"
            raise DataError(shown(table.path), seen, accepted, "add it, or name another table")
        return table
    found = []
    for path in sorted(root.glob("*.csv")):
        if path.name in data.join:
            continue
        try:
            table = read_table(path)
        except DataError:
            continue  # other CSV files may lie beside the data
        if _key_column(table, names)[1] >= _FEWEST * len(table.rows):
            found.append(table)
    if len(found) > 1:
        told = ", ".join(table.path.name for table in found)
        raise DataError(shown(root), f"several tables of the cases: {told}", "one", "name it: data.labels")
    return found[0] if found else None


def _key_column(table: Table, names: Mapping[str, int]) -> tuple[str, int]:
    """The column of which most cells name a case, and how many do; of equal ones that of the best name."""
    usual = [found for name in KEY_COLUMNS if (found := match_column(table.columns, (name,)))]
    hits = {
        column: sum(_plain(row[column]) in names for row in table.rows)
        for column in dict.fromkeys((*usual, *table.columns))
    }
    best = max(hits, key=lambda column: hits[column])
    return best, hits[best]


def _plain(cell: str) -> str:
    return PurePosixPath(cell.replace("\\", "/")).as_posix()


def _rows(
    data: DataSpec, table: Table, key: str, names: Mapping[str, int], notes: list[str]
) -> dict[int, int]:
    """Case -> row.

    Raises:
        DataError: A row that names no case or several, or two rows of one case that differ.
    """
    row_of: dict[int, int] = {}
    missing: list[int] = []
    twice = 0
    for number, row in enumerate(table.rows):
        place = names.get(_plain(row[key]))
        if place is None:
            missing.append(number)
            continue
        if place == _SEVERAL:
            seen, todo = f"{shown(row[key])} fits several images", "write the path from the data folder"
            raise DataError(table.where(number), seen, "one image a row", todo)
        first = row_of.setdefault(place, number)
        if first != number:
            twice += 1
            other = next((name for name in table.columns if table.rows[first][name] != row[name]), None)
            if other is not None:
                seen = f"{shown(row[key])} is named in {table.unit}s {table.lines[first]} and {table.lines[number]}"
                seen += f", with the `{other}` `{shown(table.rows[first][other])}` and `{shown(row[other])}`"
                raise DataError(shown(table.path), seen, "one row an image", "remove one of the two lines")
    if twice:
        notes.append(f"{twice} rows of {table.path.name} repeat an earlier one; one of each is kept")
    if missing:
        first_few = ", ".join(
            f"{shown(table.rows[row][key])} ({table.unit} {table.lines[row]})" for row in missing[:_SHOWN]
        )
        seen = f"{len(missing)} of {len(table.rows)} rows name images that are not there: {first_few}"
        if data.on_bad_image != "skip" or not row_of:
            todo = "add the images, remove the rows, or set data.on_bad_image: skip"
            raise DataError(shown(table.path), seen, "an image for each row", todo)
        notes.append(f"{table.path.name}: {seen}; left out")
    return row_of


def _joined(data: DataSpec, table: Table, number: int, case: Case) -> Case:
    row = table.rows[number]
    column = match_column(table.columns, ("split",))
    if data.split.column:
        column = table.column(data.split.column, "data.split.column")
    split = split_of(table, number, row[column]) if column else None
    if split and case.split and split != case.split:
        seen = f"{case.id} is `{split}` here and lies in a folder of `{case.split}`"
        raise DataError(table.where(number), seen, "one split a case", "correct the table, or move the file")
    study = match_column(table.columns, ("study", "study_id", "StudyInstanceUID"))
    return dataclasses.replace(
        case, extra=row, split=split or case.split, study=(row[study] or None) if study else None
    )
