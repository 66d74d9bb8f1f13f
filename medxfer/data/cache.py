"""Every image read once: preprocessed pixels as a memory-mapped array, kept by content and found again."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..bundle.schema import Store
from ..errors import DataError
from ..files import home
from ..progress import Progress
from .cache_entry import Entry, Made, Row, fill_entry, open_entry
from .cache_room import make_room, mark_used
from .case import Case
from .image import Refused, is_constant, shown
from .masks import MaskRule, map_on_grid
from .placed import Placed
from .ragged import Ragged, Rows
from .sampling import Parts, Reading, digests_of, read_case
from .steps.base import Step
from .steps.pictures import LEVELS, Quantise
from .together import MOST_BYTES, bytes_of, prepared_together
from .workers import in_order

VERSION = 4  # counted up when readers or steps give other numbers for the same file
LEAST_SIDE = 16  # pixels
MOST_CONSTANT = 0.01  # share of cases of one value all over
TOGETHER = 2**23  # pixels or voxels of whole images that are held and looked at together, if they are several
_FEW = 97  # every so many-th pixel
SHOWN = 5  # bad files named in one refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Images of all cases in their order; a volume cut into slices gives a row a slice.

    Attributes:
        images: (N, C, *spatial), uint8, int16 or float16, memory-mapped; `Ragged` where sizes differ.
        cases: One a row, in the same order.
        sha256: Content of each row's files, the slice's name with it.
        image_sha256: The same of its images alone, without a mask.
        affines: (N, D + 1, D + 1), from indices of a row to the reader's space.
        maps: (N, *spatial) uint8, class numbers on the images' grids, 255 where nothing counts; None without masks.
        refused: Cases left out, with the reason.
        warnings: What readers remarked, as sentences with the number of cases.
    """

    images: Rows
    cases: tuple[Case, ...]
    sha256: tuple[str, ...]
    affines: np.ndarray
    image_sha256: tuple[str, ...] = ()
    maps: Rows | None = None
    refused: tuple[Refused, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_ragged(self) -> bool:
        """Whether sizes differ, so that rows cannot be stacked."""
        return isinstance(self.images, Ragged)

    def together(self, batch: int) -> int:
        """How many whole images are taken at once: at most `batch`, fewer of large ones, one where sizes differ."""
        if isinstance(self.images, Ragged):
            return 1
        return max(1, min(batch, TOGETHER // math.prod(self.images.shape[2:])))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """(B, C, *spatial) float32 in [0, 1]; of ragged images only those of one size."""
        if isinstance(self.images, Ragged):
            return self.as_image(np.stack([self.images[int(one)] for one in indices]))
        return self.as_image(self.images[np.asarray(indices, dtype=np.int64)])

    def as_image(self, stored: np.ndarray) -> Tensor:
        """Values as stored to float32 in [0, 1], a copy."""
        x = torch.from_numpy(stored).float()
        return x / LEVELS[str(stored.dtype)] if str(stored.dtype) in LEVELS else x


def cache_arrays(
    cases: Sequence[Case],
    steps: tuple[Step, ...],
    store: Store,
    say: Progress,
    on_bad_image: Literal["stop", "skip"] = "stop",
    reading: Reading | None = None,
    *,
    masks: MaskRule | None = None,
    one_size: bool = True,
    dims: int | None = None,
) -> Arrays:
    """Read and preprocess every case, or find what an earlier run kept.

    The key is the content of all files, the steps, the way of reading and the version of the readers, so that an
    edited file or another size never meets old pixels. Two processes may fill one entry at once: the first to
    finish wins. What was not used for longest goes when the cache is larger than MEDXFER_CACHE_BYTES.

    Args:
        cases: What to read.
        steps: Deterministic preprocessing.
        store: How values are rounded.
        say: Shows bars.
        on_bad_image: Whether a case that cannot be read stops everything.
        reading: How files become images.
        masks: How the cases' masks become maps beside the images; None: no maps.
        one_size: Refuse images of different sizes.
        dims: Of what the network looks at, 2 or 3; images of others are refused. None: any.

    Raises:
        DataError: Unreadable images with `stop`; or none left with `skip`. The number and the first five are named.
        RunError: No space or permission.
    """
    reading = reading or Reading()
    with say.bar("hash", len(cases)) as advance:
        digests, of_images = list[str](), list[str]()
        for digest, of_image in in_order(digests_of, cases):
            digests.append(digest)
            of_images.append(of_image)
            advance()
    recipe = [step.monai() for step in steps]
    made_by = [VERSION, store, recipe, reading.plain(), masks and masks.plain(), one_size, dims, digests]
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:32]
    place = home() / "cache" / key
    make = _Maker(steps, store, reading, masks, dims)
    entry = open_entry(place, cases)
    if entry is not None and any(
        not isinstance(make([(cases[number], digests[number])])[0], Refused) for number in entry.refused
    ):
        # What was refused then can be read now: a codec was installed, a limit raised.
        shutil.rmtree(place, ignore_errors=True)
        entry = None
    if entry is None:
        entry = fill_entry(place, cases, digests, make, say, one_size=one_size)
        make_room(place.parent, place, say)
    mark_used(place)
    refused = entry.refused
    if refused and (on_bad_image == "stop" or len(refused) == len(cases)):
        raise _bad_images(list(refused.values()), cases)
    if on_bad_image == "stop":
        _require_varied(entry, cases)
    for one in refused.values():
        say.warn(f"left out: {one.case}: {one.seen}")
    assert entry.images is not None  # else all were refused
    assert entry.affines is not None
    rows = entry.rows
    arrays = Arrays(
        images=entry.images,
        cases=tuple(_case_of(cases[row.case], row) for row in rows),
        sha256=tuple(_content_of(digests[row.case], row) for row in rows),
        image_sha256=tuple(_content_of(of_images[row.case], row) for row in rows),
        affines=entry.affines,
        maps=entry.maps,
        refused=tuple(refused.values()),
        warnings=_summary(entry.warnings, len(cases)),
    )
    return dataclasses.replace(arrays, warnings=(*arrays.warnings, *_flattened(arrays)))


def _case_of(case: Case, row: Row) -> Case:
    if not row.suffix:
        return case
    return dataclasses.replace(case, id=f"{case.id}{row.suffix}", label=row.label or case.label)


def _content_of(digest: str, row: Row) -> str:
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
class _Maker:
    """From a case to its rows."""

    steps: tuple[Step, ...]
    store: str
    reading: Reading
    masks: MaskRule | None
    dims: int | None

    def __call__(self, rows: Sequence[tuple[Case, str]]) -> list[Made | Refused]:
        """Each case, given with the digest of its files; pictures of one size are preprocessed together."""
        found: dict[int, Made | Refused] = {}
        read: dict[int, Parts] = {}
        held = 0
        for number, (case, digest) in enumerate(rows):
            try:
                parts = read_case(case, digest, self.reading, as_stored=True)
                _require_dims(case, parts, self.dims)
                _require_pixels(case, parts)
            except DataError as error:
                found[number] = _refused(case, error)
                continue
            size = sum(bytes_of(part.image) for part in parts.images)
            if held + size > MOST_BYTES:
                self._make(rows, read, found)
                held = 0
            read[number] = parts
            held += size
        self._make(rows, read, found)
        return [found[number] for number in range(len(rows))]

    def _make(
        self, rows: Sequence[tuple[Case, str]], read: dict[int, Parts], found: dict[int, Made | Refused]
    ) -> None:
        """Preprocess what was read, and forget it."""
        images = [part.image for parts in read.values() for part in parts.images]
        try:
            done: Iterator[Placed] | None = iter(prepared_together(images, self._before_store()))
        except DataError:
            done = None  # one of them: each alone tells which
        for number, parts in read.items():
            case = rows[number][0]
            try:
                if done is None:
                    own = prepared_together([part.image for part in parts.images], self._before_store())
                else:
                    own = list(itertools.islice(done, len(parts.images)))
                remarks: list[str] = []
                found[number] = Made(
                    arrays=[self._stored(one) for one in own],
                    maps=self._maps(case, parts, own, remarks),
                    affines=[one.affine for one in own],
                    marks=[(part.suffix, part.label) for part in parts.images],
                    warnings=(*parts.warnings, *remarks),
                )
            except DataError as error:
                found[number] = _refused(case, error)
        read.clear()

    def _before_store(self) -> tuple[Step, ...]:
        """The steps without a last rounding that `_stored` does itself."""
        last = self.steps[-1] if self.steps else None
        return self.steps[:-1] if isinstance(last, Quantise) and last.store == self.store else self.steps

    def _maps(self, case: Case, parts: Parts, done: Sequence[Placed], remarks: list[str]) -> list[np.ndarray]:
        if self.masks is None:
            return []
        return [
            map_on_grid(
                case, part.image, one.shape, one.affine, self.masks, self.reading.policy, remarks=remarks
            )
            for part, one in zip(parts.images, done, strict=True)
        ]

    def _stored(self, image: Placed) -> np.ndarray:
        x = image.values
        if self.store not in LEVELS:
            return x.half().numpy()
        levels = x.numpy() * np.float32(LEVELS[self.store])
        return np.rint(levels, out=levels).astype(self.store)


def _refused(case: Case, error: DataError) -> Refused:
    where = shown(case.images[0]) if error.where == "image" else error.where
    return Refused(case=case.id, where=where, seen=error.seen, accepted=error.accepted, todo=error.todo)


def _require_dims(case: Case, parts: Parts, dims: int | None) -> None:
    """Refuse a picture where the network looks at volumes, or the other way round."""
    if dims is not None and (seen := len(parts.images[0].image.shape)) != dims:
        kinds = {2: "picture", 3: "volume"}
        todo = f"this network looks at {kinds[dims]}s"
        raise DataError(shown(case.images[0]), f"a {kinds[seen]}", f"a {kinds[dims]}", todo)


def _require_pixels(case: Case, parts: Parts) -> None:
    """Refuse pictures of a few pixels: a thumbnail or a damaged export; `predict` only warns of them."""
    first = parts.images[0]
    shape = first.image.shape
    if len(shape) == 2 and min(shape) < LEAST_SIDE and not first.suffix:  # slices are as they are
        seen = f"{shape[0]} rows, {shape[1]} columns"
        todo = "list it in data.exclude, or export it again"
        raise DataError(shown(case.images[0]), seen, f"at least {LEAST_SIDE} pixels a side", todo)


def _require_varied(entry: Entry, cases: Sequence[Case]) -> None:
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
    rows = np.asarray(arrays.images) if isinstance(arrays.images, np.ndarray) else arrays.images
    count = sum(map(_is_flat, rows))
    if not count:
        return ()
    return (
        f"{count} of {len(arrays.images)} images are of one value all over after preprocessing: look at "
        "images.adjust and images.transforms",
    )


def _is_flat(row: np.ndarray) -> bool:
    values = row.ravel()
    first, middle = values[0], values[len(values) // 2]
    # A few pixels of most rows tell that they differ.
    return bool(first == middle and (values[::_FEW] == first).all() and values.min() == values.max())


def _bad_images(refused: Sequence[Refused], cases: Sequence[Case]) -> DataError:
    """All that were refused in one error; a mask by its own path, not under its image's name."""
    count = len(cases)
    masks = {case.id: shown(case.label) for case in cases if isinstance(case.label, Path)}
    of_masks = [one.where == masks.get(one.case) for one in refused]
    told = [
        f"{one.case}: {f'mask {Path(one.where).name}: ' if is_mask else ''}{one.seen}"
        for one, is_mask in zip(refused[:SHOWN], of_masks, strict=False)
    ]
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    seen = f"{len(refused)} of {count} cannot be used: {'; '.join(told)}{more}"
    first = refused[0]
    if len(refused) == count and len({(one.accepted, one.todo) for one in refused}) == 1:
        todo = first.todo  # one fault of all: nothing would be left
    else:
        listed = "their images" if all(of_masks) else "them"
        todo = f"mend them, list {listed} in data.exclude, or leave them out: --set data.on_bad_image=skip"
        todo = f"{todo} ({first.todo})"
    where = (first.where if len(refused) == 1 else "masks") if all(of_masks) else "images"
    return DataError(where, seen, first.accepted or "readable images", todo)
