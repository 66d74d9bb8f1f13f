"""A label table and a folder of images joined: each row finds its files, each file at most one row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...bundle.schema import DataSpec, Layout
from ...errors import DataError
from ..case import Case, SplitName, split_word
from ..formats.kinds import DICOM_SUFFIXES, image_suffix
from ..image import shown
from .files_of_table import Finder
from .findings import finding_columns, findings_of, unknown_note
from .series_cases import KEYS
from .tables import FILE_COLUMNS, Table, match_column, nearest

_YES = {"true": "1", "yes": "1", "false": "0", "no": "0"}
MASK_COLUMNS = (
    "mask",
    "mask_path",
    "mask_file",
    "segmentation",
    "seg",
    "label_path",
    "label_file",
    "label_mask",
)

Label = str | Mapping[str, bool | None] | Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the columns of a table are."""

    images: tuple[str, ...]  # of files; empty where rows go by `key`
    key: tuple[str, str] | None = None  # series, study or patient, and its column
    label: str | None = None
    mask: str | None = None
    findings: tuple[str, ...] = ()
    split: str | None = None
    study: str | None = None


def columns_of(data: DataSpec, table: Table) -> Columns:
    """Find out what the columns are, from the bundle's words and from their names.

    Raises:
        DataError: No column of files or of labels, or a named one that is not there.
    """
    if data.images is not None:
        images: tuple[str, ...] = tuple(table.column(name, "data.images") for name in data.images)
    else:
        images = image_columns(table)
    key = None if images else key_column(table)
    if not images and key is None:
        seen = f"no column with file names; columns: {', '.join(table.columns)}"
        todo = "name the columns of files: data.images"
        raise DataError(shown(table.path), seen, f"one of: {', '.join(FILE_COLUMNS)}", todo)
    split = match_column(table.columns, ("split",))
    if data.split.column:
        split = table.column(data.split.column, "data.split.column")
    label, mask, findings = _label_columns(data, table)
    return Columns(
        images=images,
        key=key,
        label=label,
        mask=mask,
        findings=findings,
        split=split,
        study=match_column(table.columns, ("study", "study_id", "StudyInstanceUID")),
    )


def image_columns(table: Table) -> tuple[str, ...]:
    """The file column; else columns such as image_t1, image_t2 in their order."""
    file_column = match_column(table.columns, FILE_COLUMNS)
    several = tuple(name for name in table.columns if name.casefold().startswith(("image_", "img_")))
    plain = [name for name in several if name.casefold() not in ("image_index", "image_id")]
    if file_column is not None and (file_column not in several or len(plain) == 1):
        return (file_column,)
    return tuple(plain) if plain else (file_column,) if file_column else ()


def key_column(table: Table) -> tuple[str, str] | None:
    """The narrowest of series, study and patient that has a column."""
    for kind, names in KEYS.items():
        if (column := match_column(table.columns, names)) is not None:
            return kind, column
    return None


def _label_columns(data: DataSpec, table: Table) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Exactly one of label, mask and findings."""
    if data.findings is not None:
        return None, None, finding_columns(data, table)
    named = data.column
    if named is not None:
        column = table.column(named)
        cells = [row[column] for row in table.rows if row[column]]
        is_mask = column.casefold() in MASK_COLUMNS and all("." in cell or "/" in cell for cell in cells)
        return (None, column, ()) if is_mask else (column, None, ())
    if (label := match_column(table.columns, ("label",))) is not None:
        return label, None, ()
    if mask := match_column(table.columns, MASK_COLUMNS):
        return None, mask, ()
    if findings := finding_columns(data, table):
        return None, None, findings
    return table.column("label"), None, ()  # refuses, with the nearest name


def from_table(
    data: DataSpec, root: Path, files: Sequence[Path], table: Table, notes: list[str]
) -> tuple[list[Case], Layout]:
    """Cases of a label table.

    Args:
        data: Names the columns where their names do not tell.
        root: The data folder.
        files: Every image below it.
        table: The table.
        notes: Sentences are added here.

    Raises:
        DataError: A column or file that is missing, a file named twice, a path that leaves the folder.
    """
    notes.extend(table.notes)
    columns = columns_of(data, table)
    if columns.split is None:
        notes += unused_splits(table)
    finder = Finder(data, root, files, table, columns.images, columns.key, notes)
    label_of = _labels(columns, table, finder, notes)
    first_row: dict[tuple[Path, ...], int] = {}
    used: set[Path] = set()
    missing: list[int] = []
    unlabelled = twice = 0
    cases: list[Case] = []
    for number, row in enumerate(table.rows):
        found = finder.images(number)
        label = label_of(number)
        if not found or label == Path():
            missing.append(number)
            continue
        for images in found:
            if images in first_row:
                _refuse_other(table, first_row[images], number, columns)
                twice += 1
                continue
            first_row[images] = number
            used.update(images)
            if not label:
                unlabelled += 1
                continue
            cases.append(
                Case(
                    id=shown(images[0].relative_to(root).as_posix()),
                    images=images,
                    patient="",
                    label=label,
                    study=(row[columns.study] or None) if columns.study else None,
                    split=split_of(table, number, row[columns.split]) if columns.split else None,
                    extra=row,
                )
            )
            if isinstance(label, Path):
                used.add(label)
    _tell_missing(data, table, missing, columns, notes)
    if twice:
        notes.append(f"{twice} rows of {table.path.name} repeat an earlier one; one of each is kept")
    if unlabelled:
        notes.append(f"{unlabelled} rows of {table.path.name} have no label and were left out")
    if not cases:
        names = columns.label or columns.mask or ", ".join(columns.findings)
        raise DataError(
            shown(table.path), "no row with a label and a file", "some", f"fill the column `{names}`"
        )
    if columns.findings:
        notes += unknown_note(table, [case.label for case in cases], columns.findings)  # type: ignore[misc]  # findings
    left = finder.count_left(used)
    if left:
        notes.append(f"{left} images are not in {table.path.name} and were left out")
    cases.sort(key=lambda case: case.id)
    return cases, _layout(cases, table)


def unused_splits(table: Table) -> list[str]:
    """Columns that hold a split under another name than `split`: used only when the bundle says so."""
    found = []
    for name in table.columns:
        values = {row[name] for row in table.rows} - {""}
        if len({split_word(value) for value in values} - {None}) > 1 and all(map(split_word, values)):
            words = ", ".join(sorted(values))
            found.append(
                f"column `{name}` holds {words} and is not used: set data.split.column if it is the split"
            )
    return found


def _layout(cases: Sequence[Case], table: Table) -> Layout:
    if table.path.suffix.lower() == ".json":
        return "decathlon"
    firsts = [case.images[0] for case in cases]
    dicom = sum(path.is_dir() or image_suffix(path) in DICOM_SUFFIXES for path in firsts)
    return "dicom_csv" if 2 * dicom > len(cases) else "csv"


def _labels(columns: Columns, table: Table, finder: Finder, notes: list[str]) -> Callable[[int], Label]:
    """A function from a row to its label: '' or nothing known is no label; an empty path is a mask that is missing."""
    if columns.findings:

        def of_findings(number: int) -> Label:
            found = findings_of(table, number, columns.findings)
            return found if any(value is not None for value in found.values()) else ""

        return of_findings
    if columns.mask is not None:
        mask = columns.mask

        def of_mask(number: int) -> Label:
            cell = table.rows[number][mask]
            return (finder.path(number, cell) or Path()) if cell else ""

        return of_mask
    column = columns.label or ""
    rule = _label_rule([row[column] for row in table.rows], column, notes)
    return lambda number: rule(cell) if (cell := table.rows[number][column]) else ""


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


def split_of(table: Table, number: int, cell: str) -> SplitName | None:
    """The split that a cell names; None where it is blank.

    Raises:
        DataError: Another word.
    """
    if not cell:
        return None
    split = split_word(cell)
    if split is None:
        near = nearest(cell, ("train", "val", "test"))
        todo = f"did you mean `{near}`?" if near else "correct the cell, or rename the column"
        raise DataError(table.where(number), f"split `{shown(cell)}`", "train, val, test or nothing", todo)
    return split


def _refuse_other(table: Table, first: int, second: int, columns: Columns) -> None:
    """A row twice is one row; with another label, split or patient nobody knows which is right."""
    one, two = table.rows[first], table.rows[second]
    labels = [name for name in (columns.label, columns.mask, *columns.findings) if name]
    others = [name for name in one if one[name] != two[name]]
    if not others:
        return
    name = shown(two[columns.images[0]] if columns.images else two[(columns.key or ("", ""))[1]])
    seen = f"{name} is named in {table.unit}s {table.lines[first]} and {table.lines[second]}"
    wrong = next((column for column in others if column in labels), others[0])
    what = "labels" if wrong in labels else f"`{wrong}`"
    seen += f", with the {what} `{shown(one[wrong])}` and `{shown(two[wrong])}`"
    raise DataError(
        shown(table.path), f"duplicate case: {seen}", "one row an image", "remove one of the two lines"
    )


def _tell_missing(
    data: DataSpec, table: Table, missing: Sequence[int], columns: Columns, notes: list[str]
) -> None:
    if not missing:
        return
    named = columns.images[0] if columns.images else (columns.key or ("", ""))[1]
    first = ", ".join(
        f"{_hidden(table.rows[row][named], columns)} ({table.unit} {table.lines[row]})" for row in missing[:5]
    )
    seen = f"{len(missing)} of {len(table.rows)} rows name files that are not there: {first}"
    if data.on_bad_image == "skip" and len(missing) < len(table.rows):
        notes.append(f"{table.path.name}: {seen}; left out")
        return
    todo = "add the files, remove the rows, or set data.on_bad_image: skip"
    raise DataError(shown(table.path), seen, "a file for each row", todo)


def _hidden(cell: str, columns: Columns) -> str:
    """A file's name; ids of DICOM are not repeated in messages."""
    return "an id" if columns.key else shown(cell)
