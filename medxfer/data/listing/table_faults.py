"""Every fault of a label table, row by row: the gate itself stops at the first one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..cases import files_in
from ..image import shown
from .labels import from_table
from .tables import Table, read_table

MOST = 20  # faults that are looked for; each costs a few readings of the table
_NOTHING_YET = "no row with a label"  # of rows that come before the first good one
_MISSING = re.compile(r"1 of \d+ rows name files that are not there: (.+) \(\w+ \d+\)")


def table_at_fault(data: DataSpec, root: Path, error: DataError) -> Path | None:
    """The label table that a refusal is about, if it is about one."""
    named = [] if data.labels is None else [root / data.labels, Path(data.labels)]
    for path in [*named, *sorted(root.glob("*.csv"))]:
        if path.is_file() and error.where.startswith(shown(path)):
            return path
    return None


def faults_of(data: DataSpec, root: Path, path: Path) -> list[DataError]:
    """Faults of a table's rows in their order, each as the gate words it, at most 20.

    Found by asking the gate for ever longer beginnings of the table: the row with which it first refuses is at fault,
    and is left out from there on.
    """
    try:
        table = read_table(path)
    except DataError:
        return []  # not a row's fault: the refusal says what it is
    files = files_in(root)

    def refusal(rows: list[int]) -> DataError | None:
        try:
            from_table(data, root, files, _rows_of(table, rows), [])
        except DataError as error:
            return None if error.seen.startswith(_NOTHING_YET) else error
        return None

    if refusal([0]) is not None and not _is_about_row(refusal([0]), table):
        return []
    rows, good = list(range(len(table.rows))), 0
    faults: list[DataError] = []
    while len(faults) < MOST and refusal(rows) is not None:
        low, high = good, len(rows)  # rows[:low] are taken, rows[:high] refused
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if refusal(rows[:middle]) is not None else (middle, high)
        fault = refusal(rows[:high])
        assert fault is not None
        faults.append(_of_row(fault, table, rows[high - 1]))
        del rows[high - 1]
        good = high - 1
    return faults


def _of_row(fault: DataError, table: Table, row: int) -> DataError:
    """A file that is missing told by its own row, where the gate counts them over the whole table."""
    missing = _MISSING.fullmatch(fault.seen)
    if missing is None:
        return fault
    return DataError(table.where(row), f"{missing[1]}: no such file", fault.accepted, fault.todo)


def _rows_of(table: Table, rows: list[int]) -> Table:
    return dataclasses.replace(
        table,
        rows=tuple(table.rows[row] for row in rows),
        lines=tuple(table.lines[row] for row in rows),
        notes=(),
    )


def _is_about_row(error: DataError | None, table: Table) -> bool:
    """Whether a row is at fault; a column that is not there is every row's fault."""
    return error is not None and (
        "line" in error.where.rpartition(",")[2] or str(table.lines[0]) in error.seen
    )
