"""One entry of the cache: pixels and masks of a set of cases, written once and whole, opened only undamaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import explained, require_space, sha256_of, write_atomic
from ..progress import Progress
from .case import Case
from .image import Refused, shown
from .ragged import Rows, rows_of
from .workers import at_work, rows_at_once

_FILES = ("images.bin", "maps.bin", "affines.npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stored image: which case it came from, and what cutting the case made of it."""

    case: int
    suffix: str = ""
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a folder of the cache holds; arrays and maps are None where every case was refused."""

    images: Rows | None = None
    maps: Rows | None = None  # class numbers on the images' grids; None without masks
    affines: np.ndarray | None = None
    rows: tuple[Row, ...] = ()
    refused: dict[int, Refused] = field(default_factory=dict)
    warnings: dict[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """One case read and preprocessed: an array a row, and a map of each where the case has a mask to learn from."""

    arrays: list[np.ndarray]
    maps: list[np.ndarray]
    affines: list[np.ndarray]
    marks: list[tuple[str, str | None]]  # suffix, label
    warnings: tuple[str, ...]


def fill_entry(
    place: Path,
    cases: Sequence[Case],
    digests: Sequence[str],
    make: Callable[[list[tuple[Case, str]]], list[Made | Refused]],
    say: Progress,
    *,
    one_size: bool,
) -> Entry:
    """Read everything into a new entry and move it into place.

    Args:
        place: Folder of the entry.
        cases: To be read.
        digests: Content of each case's files.
        make: Reads some cases, each with the digest of its files.
        say: Shows a bar.
        one_size: Refuse images of different sizes.
    """
    temporary = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    with explained(place):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with (
                at_work(make, cases, digests, most=rows_at_once([case.images for case in cases])) as results,
                say.bar("read images", len(cases)) as advance,
                _Writer(temporary, one_size=one_size) as writer,
            ):
                for number, made in enumerate(results):
                    advance()
                    if isinstance(made, Refused):
                        writer.refused[number] = made
                    else:
                        if not writer.rows and made.arrays:
                            rest = (len(cases) - number) * sum(
                                one.nbytes for one in [*made.arrays, *made.maps]
                            )
                            require_space(place, rest + 10_000_000)
                        writer.add(number, cases[number], made)
            if not writer.rows:
                return Entry(refused=writer.refused, warnings=writer.warnings)
            np.save(temporary / "affines.npy", np.stack(writer.affines))
            # On one line: only so does Python's encoder run compiled, and there is a row for every image.
            write_atomic(temporary / "entry.json", json.dumps(_signed(writer.head(cases, temporary))))
            is_own = True
            try:
                temporary.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
                is_own = False  # another process was first: its entry is the same
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    opened = open_entry(place, cases, hashed=is_own)
    assert opened is not None  # written a moment ago
    return opened


class _Writer(contextlib.ExitStack):
    """The files of an entry while they grow."""

    def __init__(self, folder: Path, *, one_size: bool) -> None:
        super().__init__()
        self._one_size = one_size
        self._files = {name: self.enter_context((folder / name).open("wb")) for name in _FILES[:2]}
        self._sums = {name: hashlib.sha256() for name in _FILES[:2]}
        self._dtype = ""
        self.rows: list[Row] = []
        self.shapes: list[tuple[int, ...]] = []
        self.affines: list[np.ndarray] = []
        self.refused: dict[int, Refused] = {}
        self.warnings: dict[int, list[str]] = {}

    def add(self, number: int, case: Case, made: Made) -> None:
        """Append the rows of a case."""
        for array, affine, (suffix, label) in zip(made.arrays, made.affines, made.marks, strict=True):
            self._require_alike(array, case)
            self._append("images.bin", array)
            self._dtype = self._dtype or str(array.dtype)
            self.shapes.append(array.shape)
            self.affines.append(affine)
            self.rows.append(Row(case=number, suffix=suffix, label=label))
        for one in made.maps:
            self._append("maps.bin", one)
        if made.warnings:
            self.warnings[number] = list(made.warnings)

    def _append(self, name: str, array: np.ndarray) -> None:
        pixels = np.ascontiguousarray(array).data
        self._files[name].write(pixels)
        self._sums[name].update(pixels)

    def _require_alike(self, array: np.ndarray, case: Case) -> None:
        if not self.shapes:
            return
        first = self.shapes[0]
        compared = slice(None) if self._one_size else slice(1)
        if len(array.shape) != len(first) or array.shape[compared] != first[compared]:
            seen = f"{case.id} has the shape {array.shape} after preprocessing, the first case {first}"
            todo = "let images.transforms end with one size and number of channels: Channels, Resize or FitTo"
            raise DataError("images", seen, "one shape for all cases", todo)

    def head(self, cases: Sequence[Case], folder: Path) -> dict[str, Any]:
        """What tells how to open the files; without names: the same content may lie elsewhere the next time."""
        sums = {name: digest.hexdigest() for name, digest in self._sums.items()}
        return {
            "cases": len(cases),
            "shapes": self.shapes,
            "dtype": self._dtype,
            # Columns: a list a row would have the garbage collector look through everything.
            "row_columns": [
                [row.case for row in self.rows],
                [row.suffix for row in self.rows],
                [row.label for row in self.rows],
            ],
            "refused": {
                str(number): {
                    "is_of_mask": one.where == _mask_of(cases[number]),
                    "seen": one.seen,
                    "accepted": one.accepted,
                    "todo": one.todo,
                }
                for number, one in self.refused.items()
            },
            "warnings": {str(number): remarks for number, remarks in self.warnings.items()},
            "sha256": {**sums, "affines.npy": sha256_of(folder / "affines.npy")},
        }


def open_entry(place: Path, cases: Sequence[Case], *, hashed: bool = False) -> Entry | None:
    """A kept entry whose content is still what was written; a damaged one is removed and None returned.

    Args:
        place: Folder of the entry.
        cases: That it is of.
        hashed: This process hashed the files as it wrote them, a moment ago.
    """
    if not place.is_dir():
        return None
    try:
        head = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        sound = head.pop("head") == _digest_of_head(head) and head["cases"] == len(cases)
        if not sound or not (
            hashed or all(head["sha256"][name] == sha256_of(place / name) for name in _FILES)
        ):
            raise ValueError("damaged")
        affines = np.load(place / "affines.npy")
        shapes = [tuple(shape) for shape in head["shapes"]]
        if not len(affines) == len(shapes) == len(head["row_columns"][0]):
            raise ValueError("damaged")
        has_maps = (place / "maps.bin").stat().st_size > 0
        return Entry(
            images=_mapped(place / "images.bin", head["dtype"], shapes),
            maps=_mapped(place / "maps.bin", "uint8", [shape[1:] for shape in shapes]) if has_maps else None,
            affines=affines,
            rows=tuple(
                Row(case=number, suffix=suffix, label=label)
                for number, suffix, label in zip(*head["row_columns"], strict=True)
            ),
            refused={
                int(number): _as_refused(cases[int(number)], one) for number, one in head["refused"].items()
            },
            warnings={int(number): remarks for number, remarks in head["warnings"].items()},
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _mapped(path: Path, dtype: str, shapes: Sequence[tuple[int, ...]]) -> Rows:
    total = sum(math.prod(shape) for shape in shapes)
    # Copy on write: torch refuses to share read-only memory in silence.
    return rows_of(np.memmap(path, dtype=dtype, mode="c", shape=(total,)), shapes)


def _signed(head: dict[str, Any]) -> dict[str, Any]:
    return {**head, "head": _digest_of_head(head)}


def _digest_of_head(head: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()


def _mask_of(case: Case) -> str | None:
    return shown(case.label) if isinstance(case.label, Path) else None


def _as_refused(case: Case, plain: dict[str, Any]) -> Refused:
    return Refused(
        case=case.id,
        where=(_mask_of(case) if plain["is_of_mask"] else None) or shown(case.images[0]),
        seen=plain["seen"],
        accepted=plain["accepted"],
        todo=plain["todo"],
    )
