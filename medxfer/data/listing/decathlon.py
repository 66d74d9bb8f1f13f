"""Datalists of the Medical Segmentation Decathlon and of MONAI (dataset.json), read as label tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..formats.kinds import DICOM_SUFFIXES, OTHER_SUFFIXES, PICTURE_SUFFIXES, VOLUME_SUFFIXES, image_suffix
from ..image import limit, shown
from .tables import Table

NAME = "dataset.json"
_SECTIONS = (
    ("training", "train"),
    ("validation", "val"),
    ("val", "val"),
    ("test", "test"),
    ("testing", "test"),
)
_IMAGE, _LABEL, _MASK = "image", "label", "mask"


def is_datalist(path: Path) -> bool:
    """Whether a file is a datalist; anything else called dataset.json is left alone."""
    try:
        return isinstance(_content_of(path).get("training"), list)
    except DataError:
        return False


def read_datalist(path: Path, data: DataSpec) -> tuple[Table, DataSpec]:
    """A datalist as a table, and the data's description with the columns that it has.

    Entries are `{image, label}` or names of images. An image may be a list: its files become channels. A label is the
    path of a mask, a class (by name, or by number with the names under `labels`), or a list of 0 and 1 (findings).
    Entries of `test` and `validation` with a label make a given split; those without a label are left out.

    Args:
        path: The JSON file.
        data: What the bundle says.

    Raises:
        DataError: No JSON, no entries, entries of other forms or of different ones.
    """
    content = _content_of(path)
    names = _label_names(content)
    entries: list[tuple[str, Any]] = [
        (split, entry) for key, split in _SECTIONS for entry in _section(path, content, key)
    ]
    if not entries:
        raise DataError(shown(path), "no entries", "a list `training` of {image, label}", "fill it")
    rows = [_row(path, number, split, entry, names) for number, (split, entry) in enumerate(entries, 1)]
    labelled = {row["split"] for row in rows if row.get(_LABEL) or row.get(_MASK) or _is_findings(row, names)}
    # A training list alone is no split: it is what there is.
    keep_split = len(labelled) > 1
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table_rows = tuple(
        {name: row.get(name, "") if name != "split" or keep_split else "" for name in columns} for row in rows
    )
    images = tuple(name for name in columns if name == _IMAGE or name.startswith(f"{_IMAGE}_"))
    modalities = content.get("modality") or content.get("channel_names") or {}
    notes = []
    if len(modalities) > len(images):
        words = ", ".join(str(value) for value in modalities.values())
        notes.append(
            f"{path.name} lists {len(modalities)} modalities ({shown(words)}) in one file: choose one by data.volume"
        )
    table = Table(
        path=path, columns=tuple(columns), rows=table_rows, lines=tuple(range(1, len(rows) + 1)), notes=tuple(notes),
        unit="entry",
    )  # fmt: skip
    findings = tuple(name for name in names.values() if any(_is_findings(row, {"": name}) for row in rows))
    column = _MASK if any(row.get(_MASK) for row in rows) else None if findings else _LABEL
    return table, dataclasses.replace(
        data,
        images=data.images or (images if len(images) > 1 else None),
        column=data.column or column,
        findings=data.findings or (findings or None),
    )


def _content_of(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > limit("CSV_BYTES"):
            raise DataError(
                shown(path), f"{size / 1e6:.0f} MB", "a smaller file", "raise MEDXFER_MAX_CSV_BYTES"
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:120]
        raise DataError(
            shown(path), f"no JSON: {text}", "a datalist as of the Decathlon", "correct it"
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            shown(path), "a list", "{training: [{image, label}, ...]}", "put the list under `training`"
        )
    return content


def _section(path: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    found = content.get(key) or []
    if not isinstance(found, list):
        raise DataError(f"{shown(path)}, {key}", "no list", "a list of {image, label}", "correct it")
    return found


def _label_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Number of a class -> its name; nnU-Net writes it the other way round."""
    labels = content.get("labels")
    if isinstance(labels, list):
        return {str(number): str(name) for number, name in enumerate(labels)}
    if not isinstance(labels, dict):
        return {}
    if all(isinstance(value, int) for value in labels.values()):
        return {str(value): str(name) for name, value in labels.items()}
    return {str(number): str(name) for number, name in labels.items()}


def names_of_values(path: Path) -> tuple[dict[int, str], int | None]:
    """Names of mask values but for the background (0), and the value that is to be ignored, as a datalist tells them.

    nnU-Net's dataset.json has no list of cases, but names as well. Regions (lists of values) have no name of one value.

    Raises:
        DataError: No JSON.
    """
    names = {
        int(value): name for value, name in _label_names(_content_of(path)).items() if value.strip().isdigit()
    }
    ignored = next((value for value, name in names.items() if name.casefold() == "ignore"), None)
    return {value: name for value, name in names.items() if value not in (0, ignored)}, ignored


def _row(path: Path, number: int, split: str, entry: Any, names: Mapping[str, str]) -> dict[str, str]:
    where = f"{shown(path)}, entry {number}"
    if isinstance(entry, str):
        entry = {_IMAGE: entry}
    if not isinstance(entry, dict) or _IMAGE not in entry:
        raise DataError(where, "no `image`", "{image: PATH, label: ...} or a path", "correct the entry")
    images = entry[_IMAGE] if isinstance(entry[_IMAGE], list) else [entry[_IMAGE]]
    if not images or not all(isinstance(image, str) for image in images):
        raise DataError(where, "`image` is no path", "a path, or a list of paths", "correct the entry")
    row = {_IMAGE if place == 0 else f"{_IMAGE}_{place + 1}": image for place, image in enumerate(images)}
    row |= _label(where, entry.get(_LABEL), names)
    row["split"] = split
    for key, value in entry.items():
        if key not in (_IMAGE, _LABEL, "split") and isinstance(value, str | int | float) and key not in row:
            row[str(key)] = str(value)
    return row


def _label(where: str, label: Any, names: Mapping[str, str]) -> dict[str, str]:
    if label is None:
        return {}
    if isinstance(label, list):
        if len(label) == 1 and isinstance(label[0], str):
            return _label(where, label[0], names)
        if len(label) != len(names) or any(value not in (0, 1, None) for value in label):
            seen = f"a label of {len(label)} values, {len(names)} names under `labels`"
            raise DataError(where, seen, "0, 1 or null for each name", "correct the entry")
        # A finding each; null is unknown.
        return {
            name: "" if value is None else str(int(value))
            for name, value in zip(names.values(), label, strict=True)
        }
    if isinstance(label, bool | int | float):
        text = str(int(label)) if float(label).is_integer() else str(label)
        if names and text not in names:
            raise DataError(
                where, f"class {text}", ", ".join(names), "add it to `labels`, or correct the entry"
            )
        return {_LABEL: names.get(text, text)}
    if isinstance(label, str):
        return {_MASK: label} if _is_file(label) else {_LABEL: names.get(label, label)}
    raise DataError(
        where, "a label of another form", "a path, a class or a list of 0 and 1", "correct the entry"
    )


def _is_file(text: str) -> bool:
    known = PICTURE_SUFFIXES | DICOM_SUFFIXES | VOLUME_SUFFIXES | OTHER_SUFFIXES
    return image_suffix(Path(PurePosixPath(text))) in known


def _is_findings(row: Mapping[str, str], names: Mapping[str, str]) -> bool:
    return any(row.get(name) for name in names.values())


def datalist_of(data: DataSpec, root: Path) -> Path | None:
    """The datalist of a data folder, if it has one."""
    if data.labels is not None:
        path = root / data.labels
        return path if path.suffix.lower() == ".json" else None
    path = root / NAME
    if data.layout == "decathlon" or (data.layout == "auto" and data.column is None):
        found = [path] if path.is_file() else _others(root) if data.layout == "decathlon" else []
        listed = [one for one in found if data.layout == "decathlon" or is_datalist(one)]
        if len(listed) == 1:
            return listed[0]
        if data.layout == "decathlon":
            seen = f"{len(listed)} JSON files" if listed else f"no {NAME}"
            raise DataError(shown(root), seen, "one datalist (JSON)", "name it: data.labels")
    return None


def _others(root: Path) -> Sequence[Path]:
    return sorted(root.glob("*.json"))
