"""The files that each row of a table names, labels or none: cases to predict, not to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..image import shown
from .files_of_table import Finder
from .labels import image_columns, key_column
from .tables import FILE_COLUMNS, read_table


def rows_of_table(data: DataSpec, path: Path, notes: list[str]) -> Iterator[tuple[Path, ...] | DataError]:
    """The files of each row, in order.

    Args:
        data: `images` names the columns of files; None: they are found by their names, as for training.
        path: The table; files are relative to its folder.
        notes: Sentences are added here.

    Yields:
        One or several files, which are channels; a refusal for a row whose files are not there.

    Raises:
        DataError: No such table, or it has no such columns.
    """
    from ..cases import files_in

    table = read_table(path)
    root = path.parent
    columns = tuple(map(table.column, data.images)) if data.images is not None else image_columns(table)
    key = None if columns else key_column(table)
    if not columns and key is None:
        seen = f"no column with file names; columns: {', '.join(map(shown, table.columns))}"
        todo = "rename the column of file names"
        raise DataError(shown(path), seen, f"one of: {', '.join(FILE_COLUMNS)}", todo)
    finder = Finder(data, root, files_in(root), table, columns, key, notes)
    for number in range(len(table.rows)):
        try:
            found = finder.images(number)
        except DataError as error:
            yield error
            continue
        if not found:
            seen = "names a file that is not there"
            yield DataError(table.where(number), seen, "files below the table's folder", "correct the path")
        yield from found
