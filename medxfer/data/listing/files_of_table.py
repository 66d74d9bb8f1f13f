"""From a cell of a label table to the file it names: by path, by a unique name, or by an id inside DICOM files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..formats.kinds import image_suffix
from ..image import shown
from ..policy import ReadPolicy
from .tables import Table


class Finder:
    """Finds the images of rows.

    Args:
        data: Rules that choose a series.
        root: The data folder.
        files: Every image below it.
        table: Whose rows are asked for.
        images: Columns of files.
        key: Without these: series, study or patient, and the column that names it.
        notes: Sentences are added here.
    """

    def __init__(
        self,
        data: DataSpec,
        root: Path,
        files: Sequence[Path],
        table: Table,
        images: Sequence[str],
        key: tuple[str, str] | None,
        notes: list[str],
    ) -> None:
        self._root, self._files, self._table = root, files, table
        self._images, self._key = images, key
        self._known = {path.relative_to(root).as_posix(): path for path in files}
        inside = root in table.path.parents
        self._beside = table.path.parent.relative_to(root).as_posix() if inside else "."
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._folders: set[Path] = set()
        for path in files:
            for name in {path.name, _stem(path)}:
                self._by_name[name].append(path)
            self._folders.update(path.parents)
        self._by_key: dict[str, list[Path]] = {}
        if key is not None:
            from .series_cases import require_found, units_by_key, units_of

            policy = ReadPolicy(series=dict(data.series))
            found = units_by_key(units_of(root, files, policy, notes), key[0])
            require_found(found, root, key[1])
            self._by_key = {name: [unit.path for unit in units] for name, units in found.items()}

    def images(self, row: int) -> list[tuple[Path, ...]]:
        """The images of each case of a row: several where an id names several series; none where one is missing.

        Raises:
            DataError: A cell that is empty, leaves the folder or fits several files.
        """
        cells = self._table.rows[row]
        if self._key is not None:
            value = cells[self._key[1]]
            if not value:
                raise DataError(self._table.where(row), f"no {self._key[1]}", "an id", "fill the cell")
            return [(path,) for path in self._by_key.get(value, [])]
        paths = [self.path(row, cells[name]) for name in self._images]
        found = tuple(path for path in paths if path is not None)
        return [found] if len(found) == len(paths) else []

    def path(self, row: int, cell: str) -> Path | None:
        """The file or series folder that a cell names; None where there is none.

        Raises:
            DataError: The cell is empty, leaves the folder or fits several files.
        """
        table, text = self._table, cell.replace("\\", "/")
        pure = PurePosixPath(text)
        if not text:
            raise DataError(
                table.where(row), "no file name", "a path relative to the folder", "fill the cell"
            )
        if pure.is_absolute() or ".." in pure.parts or (len(text) > 1 and text[1] == ":"):
            seen = f"{shown(text)} leaves the data folder"
            raise DataError(table.where(row), seen, "a path relative to the folder", "write relative paths")
        for place in (pure, PurePosixPath(self._beside) / pure):
            direct = self._known.get(place.as_posix())
            if direct is not None:
                return direct
            folder = self._root / place
            if folder in self._folders and folder != self._root:
                return folder
        same = self._by_name.get(pure.name, [])
        if len(pure.parts) > 1:  # an image id without its suffix may still carry its folder
            same = [path for path in same if self._name_of(path).startswith(f"{pure.as_posix()}.")]
        if len(same) > 1:
            first = ", ".join(shown(path.relative_to(self._root)) for path in same[:3])
            seen = f"{shown(text)} fits {len(same)} files: {first}"
            raise DataError(table.where(row), seen, "one file a row", "write the path from the data folder")
        return same[0] if same else None

    def count_left(self, used: set[Path]) -> int:
        """Image files that no row took, not even within a series folder."""
        return sum(path not in used and not (used & set(path.parents)) for path in self._files)

    def _name_of(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _stem(path: Path) -> str:
    """The name without its suffix; `.nii.gz` is one."""
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix == ".nii.gz" else path.stem
