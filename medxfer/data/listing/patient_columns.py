"""Columns of a label table that may tell patients apart without saying `patient`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..image import shown
from .labels import image_columns
from .tables import Table, read_table

_WORDS = (
    "patient",
    "subject",
    "participant",
    "person",
    "case",
    "study",
    "exam",
    "examination",
)  # the best first
_NAME = re.compile(
    rf"({'|'.join(_WORDS)})(?:[ _.-]?(?:instance)?[ _.-]?(?:id|uid|key|no|nr|number|code|name))?",
    re.IGNORECASE,
)
_LEAST = 3  # values: fewer are hospitals or scanners
_MOST = 50  # rows a value, on average


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A column that repeats and by its name may be the patient."""

    table: Path
    column: str
    values: int
    rows: int

    @property
    def words(self) -> str:
        """For messages."""
        return f"column `{shown(self.column)}` of {shown(self.table.name)} ({self.values} values in {self.rows} rows)"


def key_of(table: Table) -> Key | None:
    """The column that most probably tells patients apart: named after a patient, a study or an exam, and repeating."""
    images = image_columns(table)
    ranked = []
    for place, name in enumerate(table.columns):
        match = _NAME.fullmatch(name.strip())
        if match is None or name in images:
            continue
        filled = [row[name] for row in table.rows if row[name]]
        values = len(set(filled))
        if _LEAST <= values < len(filled) <= _MOST * values:
            rank = _WORDS.index(match.group(1).casefold())
            ranked.append((rank, place, Key(table=table.path, column=name, values=values, rows=len(filled))))
    return min(ranked, key=lambda one: one[:2])[2] if ranked else None


def key_beside(root: Path, table: Table | None) -> Key | None:
    """The key of the label table; where folders are the classes, of the one table beside them that has one."""
    if table is not None:
        return key_of(table)
    found: Sequence[Key] = [key for path in sorted(root.glob("*.csv")) if (key := _key_in(path)) is not None]
    return found[0] if len(found) == 1 else None


def _key_in(path: Path) -> Key | None:
    try:
        table = read_table(path)
    except DataError:
        return None
    return key_of(table) if image_columns(table) else None
