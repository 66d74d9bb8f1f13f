"""Every image read once: preprocessed pixels as a memory-mapped array, kept by content and found again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..bundle.schema import Store
from ..errors import DataError
from ..files import explained, home, require_space, sha256_of, write_json
from ..progress import Progress
from .cache_room import make_room, mark_used
from .case import Case
from .image import Refused, is_constant, shown
from .placed import Placed
from .presets import prepared
from .sampling import Parts, Reading, digest_of, read_case
from .steps.base import Step
from .steps.pictures import LEVELS
from .threads import in_order

VERSION = 2  # counted up when readers or steps give other numbers for the same file
LEAST_SIDE = 16  # pixels
MOST_CONSTANT = 0.01  # share of cases of one value all over
SHOWN = 5  # bad files named in one refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Images of all cases in their order; a volume cut into slices gives a row a slice.

    Attributes:
        images: (N, C, *spatial), uint8, int16 or float16, memory-mapped.
        cases: One a row, in the same order.
        sha256: Content of each row's files, the slice's name with it.
        affines: (N, D + 1, D + 1), from indices of a row to the reader's space.
        refused: Cases left out, with the reason.
        warnings: What readers remarked, as sentences with the number of cases.
    """

    images: np.ndarray
    cases: tuple[Case, ...]
    sha256: tuple[str, ...]
    affines: np.ndarray
    refused: tuple[Refused, ...] = ()
    warnings: tuple[str, ...] = ()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """(B, C, *spatial) float32 in [0, 1]."""
        stored = self.images[np.asarray(indices, dtype=np.int64)]
        x = torch.from_numpy(stored).float()
        return x / LEVELS[str(stored.dtype)] if str(stored.dtype) in LEVELS else x


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One stored image: which case it came from, and what cutting the case made of it."""

    case: int
    suffix: str = ""
    label: str | None = None


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What a folder of the cache holds."""

    images: np.ndarray
    affines: np.ndarray
    rows: list[_Row]
    refused: dict[int, Refused]
    warnings: dict[int, list[str]]


def cache_arrays(
    cases: Sequence[Case],
    steps: tuple[Step, ...],
    store: Store,
    say: Progress,
    on_bad_image: Literal["stop", "skip"] = "stop",
    reading: Reading | None = None,
) -> Arrays:
    """Read and preprocess every case, or find what an earlier run kept.

    The key is the content of all files, the steps, the way of reading and the version of the readers, so that an
    edited file or another size never meets old pixels. Two processes may fill one entry at once: the first to
    finish wins. What was not used for longest goes when the cache is larger than MEDXFER_CACHE_BYTES.

    Raises:
        DataError: Unreadable images with `stop`; or none left with `skip`. The number and the first five are named.
        RunError: No space or permission.
    """
    reading = reading or Reading()
    with say.bar("hash", len(cases)) as advance:
        digests: list[str] = []
        for digest in in_order(digest_of, cases):
            digests.append(digest)
            advance()
    recipe = [step.monai() for step in steps]
    key = hashlib.sha256(json.dumps([VERSION, store, recipe, reading.plain(), digests]).encode()).hexdigest()[
        :32
    ]
    place = home() / "cache" / key
    make = _Maker(steps, store, reading)
    entry = _open_entry(place, cases)
    if entry is not None and any(
        not isinstance(make(cases[number], digests[number]), Refused) for number in entry.refused
    ):
        # What was refused then can be read now: a codec was installed, a limit raised.
        shutil.rmtree(place, ignore_errors=True)
        entry = None
    if entry is None:
        entry = _fill(place, cases, digests, make, say)
        make_room(place.parent, place, say)
    mark_used(place)
    refused = entry.refused
    if refused and (on_bad_image == "stop" or len(refused) == len(cases)):
        raise _bad_images(list(refused.values()), len(cases))
    if on_bad_image == "stop":
        _require_varied(entry, cases)
    for one in refused.values():
        say.warn(f"left out: {one.case}: {one.seen}")
    rows = entry.rows
    arrays = Arrays(
        images=entry.images,
        cases=tuple(_case_of(cases[row.case], row) for row in rows),
        sha256=tuple(_content_of(digests[row.case], row) for row in rows),
        affines=entry.affines,
        refused=tuple(refused.values()),
        warnings=_summary(entry.warnings, len(cases)),
    )
    return dataclasses.replace(arrays, warnings=(*arrays.warnings, *_flattened(arrays)))


def _case_of(case: Case, row: _Row) -> Case:
    if not row.suffix:
        return case
    return dataclasses.replace(case, id=f"{case.id}{row.suffix}", label=row.label or case.label)


def _content_of(digest: str, row: _Row) -> str:
    return hashlib.sha256(f"{digest}{row.suffix}".encode()).hexdigest() if row.suffix else digest


def _summary(warnings: dict[int, list[str]], count: int) -> tuple[str, ...]:
    """Each remark once, the most frequent first, with the number of cases."""
    found: dict[str, int] = {}
    for remarks in warnings.values():
        for remark in dict.fromkeys(remarks):
            found[remark] = found.get(remark, 0) + 1
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(f"{number} of {count} cases: {remark}" for remark, number in ordered)


@dataclass(frozen=True, slots=True)
class _Made:
    """One case read and preprocessed: an array a row."""

    arrays: list[np.ndarray]
    affines: list[np.ndarray]
    marks: list[tuple[str, str | None]]  # suffix, label
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Maker:
    """From a case to its rows."""

    steps: tuple[Step, ...]
    store: str
    reading: Reading

    def __call__(self, case: Case, digest: str) -> _Made | Refused:
        try:
            parts = read_case(case, digest, self.reading)
            _require_pixels(case, parts)
            done = [prepared(part.image, self.steps) for part in parts.images]
        except DataError as error:
            where = shown(case.images[0]) if error.where == "image" else error.where
            return Refused(
                case=case.id, where=where, seen=error.seen, accepted=error.accepted, todo=error.todo
            )
        return _Made(
            arrays=[self._stored(one) for one in done],
            affines=[one.affine for one in done],
            marks=[(part.suffix, part.label) for part in parts.images],
            warnings=parts.warnings,
        )

    def _stored(self, image: Placed) -> np.ndarray:
        x = image.values
        if self.store not in LEVELS:
            return x.half().numpy()
        return (x * LEVELS[self.store]).round().to(getattr(torch, self.store)).numpy()


def _require_pixels(case: Case, parts: Parts) -> None:
    """Refuse pictures of a few pixels: a thumbnail or a damaged export; `predict` only warns of them."""
    first = parts.images[0]
    shape = first.image.shape
    if len(shape) == 2 and min(shape) < LEAST_SIDE and not first.suffix:  # slices are as they are
        seen = f"{shape[0]} rows, {shape[1]} columns"
        todo = "list it in data.exclude, or export it again"
        raise DataError(shown(case.images[0]), seen, f"at least {LEAST_SIDE} pixels a side", todo)


def _require_varied(entry: _Entry, cases: Sequence[Case]) -> None:
    """Refuse data of which more than one case in a hundred is of one value all over: an export that went wrong."""
    constant = [cases[number].id for number, said in entry.warnings.items() if any(map(is_constant, said))]
    if len(constant) > MOST_CONSTANT * len(cases):
        more = f" and {len(constant) - SHOWN} more" if len(constant) > SHOWN else ""
        first = ", ".join(constant[:SHOWN])
        seen = f"{len(constant)} of {len(cases)} images are of one value all over as read: {first}{more}"
        todo = "export them again, list them in data.exclude, or set data.on_bad_image=skip to keep them"
        raise DataError("images", seen, f"at most {MOST_CONSTANT:.0%}", todo)


def _flattened(arrays: Arrays) -> tuple[str, ...]:
    """What preprocessing made of one value all over, as a sentence: a window that misses the image, mostly."""
    flat = arrays.images.reshape(len(arrays.images), -1)
    count = int((flat.min(1) == flat.max(1)).sum())
    if not count:
        return ()
    return (
        f"{count} of {len(flat)} images are of one value all over after preprocessing: look at images.adjust and "
        "images.transforms",
    )


def _fill(place: Path, cases: Sequence[Case], digests: Sequence[str], make: _Maker, say: Progress) -> _Entry:
    """Read everything into a new entry and move it into place."""
    temporary = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    entry = _Entry(
        images=np.zeros((0, 1, 1, 1), np.uint8), affines=np.zeros((0, 3, 3)), rows=[], refused={}, warnings={}
    )
    affines: list[np.ndarray] = []
    written = hashlib.sha256()
    with explained(place):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with (
                say.bar("read images", len(cases)) as advance,
                (temporary / "images.bin").open("wb") as file,
            ):
                for number, made in enumerate(in_order(make, cases, digests)):
                    advance()
                    if isinstance(made, Refused):
                        entry.refused[number] = made
                        continue
                    if not entry.rows and made.arrays:
                        entry.images = made.arrays[0][None][:0]
                        rest = (len(cases) - number) * sum(one.nbytes for one in made.arrays)
                        require_space(place, rest + 10_000_000)
                    for array, affine, (suffix, label) in zip(
                        made.arrays, made.affines, made.marks, strict=True
                    ):
                        _require_shape(array, entry.images, cases[number])
                        pixels = np.ascontiguousarray(array).data
                        file.write(pixels)
                        written.update(pixels)
                        affines.append(affine)
                        entry.rows.append(_Row(case=number, suffix=suffix, label=label))
                    if made.warnings:
                        entry.warnings[number] = list(made.warnings)
            if not entry.rows:
                return entry
            entry.affines = np.stack(affines)
            np.save(temporary / "affines.npy", entry.affines)
            sums = {"images.bin": written.hexdigest(), "affines.npy": sha256_of(temporary / "affines.npy")}
            write_json(temporary / "entry.json", _as_plain(entry, len(cases), sums))
            try:
                temporary.rename(place)
            except OSError:
                if not place.is_dir():
                    raise  # else another process was first: its entry is the same
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    opened = _open_entry(place, cases)
    assert opened is not None  # written a moment ago
    return opened


def _require_shape(array: np.ndarray, first: np.ndarray, case: Case) -> None:
    if array.shape != first.shape[1:]:
        seen = f"{case.id} has the shape {array.shape} after preprocessing, the first case {first.shape[1:]}"
        todo = "let images.transforms end with one size and number of channels: Channels, Resize or FitTo"
        raise DataError("images", seen, "one shape for all cases", todo)


def _as_plain(entry: _Entry, cases: int, sums: dict[str, str]) -> dict[str, Any]:
    """The entry's head; without names: the same content may lie elsewhere the next time."""
    refused = {
        str(number): {"seen": one.seen, "accepted": one.accepted, "todo": one.todo}
        for number, one in entry.refused.items()
    }
    head = {
        "cases": cases,
        "shape": [len(entry.rows), *entry.images.shape[1:]],
        "dtype": str(entry.images.dtype),
        "rows": [[row.case, row.suffix, row.label] for row in entry.rows],
        "refused": refused,
        "warnings": {str(number): remarks for number, remarks in entry.warnings.items()},
        "sha256": sums,
    }
    return {**head, "head": _digest_of_head(head)}


def _digest_of_head(head: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()


def _open_entry(place: Path, cases: Sequence[Case]) -> _Entry | None:
    """A kept entry whose content is still what was written; a damaged one is removed and None returned."""
    if not place.is_dir():
        return None
    try:
        head = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        if head.pop("head") != _digest_of_head(head):
            raise ValueError("damaged")
        if head["cases"] != len(cases) or any(
            head["sha256"][name] != sha256_of(place / name) for name in ("images.bin", "affines.npy")
        ):
            raise ValueError("damaged")
        refused = {
            int(number): _as_refused(cases[int(number)], one) for number, one in head["refused"].items()
        }
        affines = np.load(place / "affines.npy")
        if len(affines) != len(head["rows"]):
            raise ValueError("damaged")
        return _Entry(
            # Copy on write: torch refuses to share read-only memory in silence.
            images=np.memmap(place / "images.bin", dtype=head["dtype"], mode="c", shape=tuple(head["shape"])),
            affines=affines,
            rows=[_Row(case=number, suffix=suffix, label=label) for number, suffix, label in head["rows"]],
            refused=refused,
            warnings={int(number): remarks for number, remarks in head["warnings"].items()},
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _as_refused(case: Case, plain: dict[str, str]) -> Refused:
    return Refused(
        case=case.id,
        where=shown(case.images[0]),
        seen=plain["seen"],
        accepted=plain["accepted"],
        todo=plain["todo"],
    )


def _bad_images(refused: Sequence[Refused], count: int) -> DataError:
    first = "; ".join(f"{one.case}: {one.seen}" for one in refused[:SHOWN])
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    todo = f"mend them, list them in data.exclude, or leave them out: --set data.on_bad_image=skip ({refused[0].todo})"
    seen = f"{len(refused)} of {count} cannot be used: {first}{more}"
    return DataError("images", seen, refused[0].accepted or "readable images", todo)
