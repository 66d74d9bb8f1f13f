"""Tables with one column a finding: 1 there, 0 not there, blank unknown, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..image import shown
from .tables import FILE_COLUMNS, Table

_VALUES: dict[str, bool | None] = {
    "1": True, "1.0": True, "true": True, "yes": True,
    "0": False, "0.0": False, "false": False, "no": False,
    "": None, "nan": None, "na": None, "n/a": None, "none": None, "unknown": None,
}  # fmt: skip
LEAST = 2  # columns of 0 and 1 that are taken for findings without being named


def finding_columns(data: DataSpec, table: Table) -> tuple[str, ...]:
    """The columns that hold findings: those that the bundle names, else all that hold only 0, 1 and blanks.

    Columns with one value only are left out where they were not named: they tell nothing apart.

    Raises:
        DataError: A named column is not there.
    """
    if data.findings is not None:
        return tuple(table.column(name, "data.findings") for name in data.findings)
    found = []
    for name in table.columns:
        values = {_VALUES.get(row[name].casefold(), "other") for row in table.rows}
        if {True, False} <= values <= {True, False, None} and name.casefold() not in FILE_COLUMNS:
            found.append(name)
    return tuple(found) if len(found) >= LEAST else ()


def findings_of(table: Table, number: int, columns: Sequence[str]) -> dict[str, bool | None]:
    """What a row says of each finding; None where it says nothing.

    Raises:
        DataError: Another value; -1 (uncertain) is one, since only the user knows what it stands for.
    """
    row = table.rows[number]
    found: dict[str, bool | None] = {}
    for name in columns:
        cell = row[name]
        if cell.casefold() not in _VALUES:
            uncertain = cell in ("-1", "-1.0")
            todo = "decide what uncertain means: write 0, 1 or nothing" if uncertain else "correct the cell"
            raise DataError(
                table.where(number), f"{name}: `{shown(cell)}`", "0, 1 or a blank cell for unknown", todo
            )
        found[name] = _VALUES[cell.casefold()]
    return found


def unknown_note(table: Table, rows: Sequence[dict[str, bool | None]], columns: Sequence[str]) -> list[str]:
    """How many cells are unknown, said once."""
    blanks = sum(value is None for row in rows for value in row.values())
    if not blanks:
        return []
    cells = len(rows) * len(columns)
    return [f"{blanks} of {cells} cells of findings in {table.path.name} are blank: unknown, not absent"]
