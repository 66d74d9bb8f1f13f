"""Label tables (CSV) read whole and strictly: encoding, separator, columns, one sentence for each fault."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..image import limit, shown

FILE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "image",
    "image_path",
    "path",
    "filepath",
    "image_file",
    "case",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A CSV file: column names, and the rows with their line numbers."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...] = ()
    unit: str = "line"  # what `lines` counts

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{shown(self.path)}, {self.unit} {self.lines[row]}"

    def column(self, name: str, key: str = "data.column") -> str:
        """The column of that name; spelling of capitals and spaces aside.

        Args:
            name: As the user wrote it.
            key: Where that was written, for the message.

        Raises:
            DataError: There is none; the columns seen and the nearest are named.
        """
        found = match_column(self.columns, (name,))
        if found is not None:
            return found
        near = nearest(name, self.columns)
        todo = f"did you mean `{near}`? set {key}" if near else f"name one of these columns: {key}"
        raise DataError(
            shown(self.path), f"no column `{name}`; columns: {', '.join(self.columns)}", "that column", todo
        )


def joined(table: Table, others: Sequence[Table]) -> Table:
    """A table with the columns of further ones, joined by the file column; rows that these lack are blank there.

    Raises:
        DataError: A table without a file column, a file named twice in it, or a column that is in both with other
            content.
    """
    key = match_column(table.columns, FILE_COLUMNS)
    rows, columns, notes = [dict(row) for row in table.rows], list(table.columns), list(table.notes)
    for other in others:
        other_key = match_column(other.columns, FILE_COLUMNS)
        if key is None or other_key is None:
            poor = table if key is None else other
            raise DataError(shown(poor.path), "no column with file names", ", ".join(FILE_COLUMNS), "add one")
        row_of: dict[str, int] = {}
        for number, row in enumerate(other.rows):
            if row[other_key] in row_of:
                seen = f"{shown(row[other_key])} is named twice"
                raise DataError(other.where(number), seen, "one row a file", "remove one of the lines")
            row_of[row[other_key]] = number
        new = [name for name in other.columns if name != other_key]
        unknown = len(row_of)
        for row in rows:
            place = row_of.get(row[key])
            unknown -= place is not None
            for name in new:
                value = "" if place is None else other.rows[place][name]
                if name in table.columns and value not in ("", row[name]):
                    seen = f"`{name}` of {shown(row[key])} is `{shown(value)}`, in {table.path.name} `{row[name]}`"
                    raise DataError(shown(other.path), seen, "one answer a file", "rename the column")
                row[name] = row[name] if name in table.columns else value
        columns += [name for name in new if name not in columns]
        notes += other.notes
        notes.append(
            f"{other.path.name} joined by file: {len(row_of) - unknown} of {len(rows)} rows are in it"
        )
        if unknown:
            notes.append(
                f"{unknown} rows of {other.path.name} are not in {table.path.name} and were left out"
            )
    return Table(
        path=table.path,
        columns=tuple(columns),
        rows=tuple(rows),
        lines=table.lines,
        notes=tuple(notes),
        unit=table.unit,
    )


def match_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is a column, exactly or but for capitals and spaces."""
    by_key = {column.strip().casefold(): column for column in reversed(columns)}
    for name in names:
        if name in columns:
            return name
        if name.strip().casefold() in by_key:
            return by_key[name.strip().casefold()]
    return None


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like a misspelt one, if any is like it."""
    by_key = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), list(by_key), n=1, cutoff=0.5)
    return by_key[found[0]] if found else None


def read_table(path: Path) -> Table:
    """Read a CSV file: comma, semicolon or tab; UTF-8 with or without mark, else Windows-1252, which is said.

    Raises:
        DataError: Absent, too large, empty, lines of unequal length, a column named twice.
    """
    text, notes = _text_of(path)
    separator = _separator_of(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: tuple[str, ...] = ()
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = tuple(cell.strip() for cell in cells)
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{shown(path)}, line {reader.line_num}",
                    f"{len(cells)} cells",
                    f"{len(columns)}, as in the first line",
                    "put cells that contain the separator into double quotes",
                )
            rows.append({name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
            lines.append(reader.line_num)
    except csv.Error as error:
        where = f"{shown(path)}, line {reader.line_num}"
        raise DataError(
            where, f"no CSV: {error}", "comma, semicolon or tab between cells", "save it as CSV again"
        ) from None
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(
            shown(path), f"column `{twice[0]}` occurs twice", "every column once", "rename one of them"
        )
    if not rows:
        raise DataError(
            shown(path), "no rows" if columns else "empty", "a line of column names, then a line an image", ""
        )
    return Table(path=path, columns=columns, rows=tuple(rows), lines=tuple(lines), notes=notes)


def _text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        size = path.stat().st_size
        if size > limit("CSV_BYTES"):
            accepted = f"at most {limit('CSV_BYTES') / 1e6:.0f} MB"
            raise DataError(shown(path), f"{size / 1e6:.0f} MB", accepted, "raise MEDXFER_MAX_CSV_BYTES")
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(shown(path), "no such file", "a CSV file", "correct the path") from None
    except OSError as error:
        raise DataError(shown(path), f"cannot be read: {error.strerror}", "a readable CSV file", "") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), (f"{path.name} is UTF-16",)
    notes: tuple[str, ...] = ()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text, notes = (
            content.decode("cp1252", errors="replace"),
            (f"{path.name} is not UTF-8; read as Windows-1252",),
        )
    if "\x00" in text:
        raise DataError(
            shown(path), "binary content", "a CSV file", "save it as CSV (a spreadsheet's own format is none)"
        )
    return text, notes


def _separator_of(path: Path, text: str) -> str:
    """The character that cuts the first line into most cells; a file of one column has none and gets the comma."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in (",", ";", "\t")}
    best = max(counts.values())
    marks = [mark for mark, count in counts.items() if count == best]
    if best > 1 and len(marks) > 1:
        seen = f"the first line can be cut at {' or '.join(repr(mark) for mark in marks)}"
        raise DataError(
            f"{shown(path)}, line 1", seen, "one separator: comma, semicolon or tab", "save it as CSV again"
        )
    return marks[0]
