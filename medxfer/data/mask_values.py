"""What the values of masks probably mean, from a look at some of them: names of classes for `medxfer init`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError
from .case import Case
from .image import shown
from .listing.decathlon import NAME, names_of_values
from .mask_file import one_channel, read_mask
from .policy import STRICT

LOOKED_AT = 20  # masks, spread over the cases
MOST = 16  # different values that are still classes; more are numbered objects
_EDGE = 255  # masks saved as grey pictures: 0 and 255, and between them what resizing or JPEG left
_FULL = 0.5  # share of a grey picture's foreground that is white
_DIFFERENT = 4  # numbers of objects: as many different ones, each mask counting from 1, are no classes
_USUAL_IGNORE = 255  # beside small values: PASCAL VOC, Cityscapes and many more
STRUCTURE = "structure"  # name of a class that nobody named


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskValues:
    """Classes of masks.

    Attributes:
        classes: Name -> masks that hold it, in the order of the values.
        values: `number`, the value is the class's place from 1; `nonzero`, all above 0 is one class; or each class's
            values.
        ignore: Value that counts on neither side.
        masks: How many were looked at.
        notes: What is to be checked by a person.
    """

    classes: Mapping[str, int]
    values: Literal["number", "nonzero"] | Mapping[str, tuple[int, ...]]
    ignore: int | None
    masks: int
    notes: tuple[str, ...] = ()


def values_of(root: Path, cases: Sequence[Case], labels: Path | None) -> MaskValues:
    """Look at up to 20 masks.

    Names come from the datalist (`labels`, or dataset.json in the data folder) where it has one for each value seen;
    else classes are called class_1, class_2, ... or, where there is one, `structure`.

    Args:
        root: The data folder.
        cases: With masks as labels.
        labels: The table or datalist of the cases.

    Raises:
        DataError: No mask can be read, all are empty, or one holds a value that is no whole number from 0.
    """
    step = max(1, -(-len(cases) // LOOKED_AT))
    counts = [_counts(case.label, case.images[0]) for case in cases[::step] if isinstance(case.label, Path)]
    held = Counter(value for one in counts for value in one if value)
    names, ignore = _names(root, labels)
    notes: tuple[str, ...] = ()
    if ignore is None and _USUAL_IGNORE not in names and _is_usual_ignore(counts):
        ignore = _USUAL_IGNORE
        notes = (f"{ignore} beside small values is taken for voxels that count on neither side: task.ignore",)
    held.pop(-1 if ignore is None else ignore, None)
    counts = [{value: number for value, number in one.items() if value != ignore} for one in counts]
    if not held:
        accepted = "masks with something in them"
        raise DataError(
            shown(root), f"{len(counts)} masks looked at, all empty", accepted, "correct the masks"
        )
    if names and set(held) <= set(names):
        named = {name: held[value] for value, name in sorted(names.items())}
        is_plain = sorted(names) == list(range(1, len(names) + 1))
        values: Literal["number", "nonzero"] | Mapping[str, tuple[int, ...]] = "number"
        if not is_plain:
            values = {name: (value,) for value, name in sorted(names.items())}
        return MaskValues(classes=named, values=values, ignore=ignore, masks=len(counts), notes=notes)
    name = next(iter(names.values())) if len(names) == 1 else STRUCTURE
    if names and len(names) > 1:
        known = ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
        told = ", ".join(map(str, sorted(held)[:10]))
        notes = (*notes, f"the masks hold {told}, the datalist names {known}: its names are not used")
    if len(held) == 1:
        return MaskValues(
            classes={name: max(held.values())},
            values="nonzero",
            ignore=ignore,
            masks=len(counts),
            notes=notes,
        )
    found = _one_class(counts)
    if found:
        some = sum(any(one) for one in counts)
        return MaskValues(
            classes={name: some}, values="nonzero", ignore=ignore, masks=len(counts), notes=(*notes, found)
        )
    return _numbered(held, ignore, len(counts), notes)


def _is_usual_ignore(counts: Sequence[Mapping[int, int]]) -> bool:
    """Whether 255 is what many data sets write where nobody decided, not a class.

    Beside one other value it must be the rarer one: else that one may be a trace of resizing in a mask of 0 and 255.
    """
    total = Counter[int]()
    for one in counts:
        total.update(one)
    others = [value for value in total if value not in (0, _USUAL_IGNORE)]
    if not (total[_USUAL_IGNORE] and others and max(others) <= MOST):
        return False
    return len(others) > 1 or total[_USUAL_IGNORE] < total[others[0]]


def _one_class(counts: Sequence[Mapping[int, int]]) -> str:
    """Why several values are one class, in words; '' where they are classes."""
    every = sorted({value for one in counts for value in one if value})
    total = Counter[int]()
    for one in counts:
        total.update(one)
    foreground = sum(number for value, number in total.items() if value)
    if every[-1] == _EDGE and len(every) > MOST and total[_EDGE] > _FULL * foreground:
        share = 1 - total[_EDGE] / foreground
        return (
            f"masks have grey edges ({share:.1%} of the foreground lies between 1 and 254): `values: nonzero` counts "
            "them in; cut the masks at half for exact outlines"
        )
    if len(every) > MOST:
        return f"masks hold {len(every)} different values: taken for numbered objects of one class"
    lengths = {len(one) - (0 in one) for one in counts}
    from_one = all(
        [value for value in sorted(one) if value] == list(range(1, len(one) - (0 in one) + 1))
        for one in counts
    )
    if from_one and len(lengths - {0}) >= _DIFFERENT:
        return (
            f"each mask counts from 1, up to {min(lengths - {0})} to {max(lengths)}: taken for numbered objects of one "
            "class; if they are classes, name them and write `values: number`"
        )
    return ""


def _numbered(held: Mapping[int, int], ignore: int | None, masks: int, notes: tuple[str, ...]) -> MaskValues:
    """One class a value: class_1, class_2, ..."""
    most = max(held)
    if most <= MOST:
        classes = {f"class_{value}": held.get(value, 0) for value in range(1, most + 1)}
        note = "name the classes in task.classes; if the values only number objects of one kind: `values: nonzero`"
        return MaskValues(classes=classes, values="number", ignore=ignore, masks=masks, notes=(*notes, note))
    ordered = sorted(held)
    classes = {f"class_{place}": held[value] for place, value in enumerate(ordered, 1)}
    values = {f"class_{place}": (value,) for place, value in enumerate(ordered, 1)}
    note = f"name the classes of the values {', '.join(map(str, ordered))} in task.classes and task.values"
    return MaskValues(classes=classes, values=values, ignore=ignore, masks=masks, notes=(*notes, note))


def _names(root: Path, labels: Path | None) -> tuple[dict[int, str], int | None]:
    path = labels if labels is not None and labels.suffix.lower() == ".json" else root / NAME
    if not path.is_file():
        return {}, None
    try:
        return names_of_values(path)
    except DataError:
        return {}, None  # any file may be called so


def _counts(path: Path, image: Path) -> dict[int, int]:
    """Value -> voxels."""
    values, numbers = np.unique(stored_values(path, image), return_counts=True)
    wrong = values[(values != np.round(values)) | (values < 0)]
    if len(wrong):
        seen, accepted = f"the value {wrong[0]:g} in a mask", "whole numbers from 0"
        raise DataError(shown(path), seen, accepted, "write the masks again, without interpolation")
    return {int(value): int(number) for value, number in zip(values, numbers, strict=True)}


def stored_values(path: Path, image: Path) -> np.ndarray:
    """What a mask holds, without its place.

    Raises:
        DataError: It cannot be read, or is in colour; a DICOM SEG that does not belong to its image, or whose segments
            overlap.
    """
    labels = seg_values(path, image)
    return one_channel(path, read_mask(path).array) if labels is None else labels


def seg_values(path: Path, image: Path) -> np.ndarray | None:
    """Numbers of segments on the grid of the image's file; None where the mask is no DICOM SEG.

    Raises:
        DataError: As `stored_values`.
    """
    if not path.is_file() or not _is_dicom(path):
        return None
    from .formats.dicom_seg import is_seg, read_seg
    from .formats.grids import source_grid

    if not is_seg(path):
        return None
    labels, _ = read_seg(path, source_grid(image, policy=STRICT))
    if labels.dtype == bool:
        seen, accepted = f"{len(labels)} segments that overlap", "one value a voxel"
        raise DataError(shown(path), seen, accepted, "write segments that do not overlap")
    return labels


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
