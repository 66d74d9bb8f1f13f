"""Every image read once: preprocessed pixels as a memory-mapped array, kept by content and found again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..files import explained, home, require_space, sha256_of, write_json
from ..progress import Progress
from .case import Case
from .image import Refused, shown
from .presets import Step, preprocess
from .readers import decode, load_bytes

VERSION = 1  # counted up when readers or steps give other numbers for the same file
READERS = 2  # threads; Pillow, pydicom and torch release the interpreter while they work
SHOWN = 5  # bad files named in one refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Images of all cases in their order.

    Attributes:
        images: (N, C, H, W), uint8 or float16, memory-mapped.
        cases: In the same order.
        sha256: Of each case's file.
        refused: Cases left out, with the reason.
    """

    images: np.ndarray
    cases: tuple[Case, ...]
    sha256: tuple[str, ...]
    refused: tuple[Refused, ...] = ()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """(B, C, H, W) float32 in [0, 1]."""
        stored = self.images[np.asarray(indices, dtype=np.int64)]
        x = torch.from_numpy(stored).float()
        return x / 255 if stored.dtype == np.uint8 else x


def cache_arrays(
    cases: Sequence[Case],
    steps: tuple[Step, ...],
    store: Literal["uint8", "float16"],
    say: Progress,
    on_bad_image: Literal["stop", "skip"] = "stop",
) -> Arrays:
    """Read and preprocess every case, or find what an earlier run kept.

    The key is the content of all files, the steps and the version of the readers, so that an edited file or
    another size never meets old pixels. Two processes may fill one entry at once: the first to finish wins.

    Raises:
        DataError: Unreadable images with `stop`; or none left with `skip`. The number and the first five are named.
        RunError: No space or permission.
    """
    files = [case.images[0] for case in cases]
    with say.bar("hash", len(files)) as advance, ThreadPoolExecutor(READERS) as pool:
        digests: list[str] = []
        for digest in pool.map(_digest, files):
            digests.append(digest)
            advance()
    recipe = [step.monai() for step in steps]
    key = hashlib.sha256(json.dumps([VERSION, store, recipe, digests]).encode()).hexdigest()[:32]
    entry = home() / "cache" / key
    kept = _open_entry(entry, cases)
    if kept is not None and any(
        not isinstance(_read(cases[row], digests[row], steps, store), Refused) for row in kept[1]
    ):
        # What was refused then can be read now: a codec was installed, a limit raised.
        shutil.rmtree(entry, ignore_errors=True)
        kept = None
    if kept is None:
        kept = _fill(entry, cases, digests, steps, store, say)
    images, refused = kept
    if refused and (on_bad_image == "stop" or len(refused) == len(cases)):
        raise _bad_images(list(refused.values()), len(cases))
    good = [row for row in range(len(cases)) if row not in refused]
    for one in refused.values():
        say.warn(f"left out: {one.case}: {one.seen}")
    return Arrays(
        images=images if not refused else images[good],
        cases=tuple(cases[row] for row in good),
        sha256=tuple(digests[row] for row in good),
        refused=tuple(refused.values()),
    )


def _digest(path: Path) -> str:
    try:
        # Opening a pipe would wait for ever; the reader names what it is.
        return sha256_of(path) if path.is_file() else "unreadable"
    except OSError:
        return "unreadable"


def _fill(
    entry: Path,
    cases: Sequence[Case],
    digests: Sequence[str],
    steps: tuple[Step, ...],
    store: str,
    say: Progress,
) -> tuple[np.ndarray, dict[int, Refused]]:
    """Read everything into a new entry and move it into place."""
    temporary = entry.with_name(f".{entry.name}.tmp-{os.getpid()}")
    refused: dict[int, Refused] = {}
    images: np.memmap[Any, Any] | None = None
    with explained(entry):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with say.bar("read images", len(cases)) as advance, ThreadPoolExecutor(READERS) as pool:
                for row, result in enumerate(
                    pool.map(lambda case, digest: _read(case, digest, steps, store), cases, digests)
                ):
                    advance()
                    if isinstance(result, Refused):
                        refused[row] = result
                        continue
                    if images is None:
                        require_space(entry, len(cases) * result.nbytes + 10_000_000)
                        shape = (len(cases), *result.shape)
                        images = np.lib.format.open_memmap(
                            temporary / "images.npy", mode="w+", dtype=result.dtype, shape=shape
                        )
                    images[row] = result
            if images is None:
                return np.zeros((len(cases), 1, 1, 1), np.uint8), refused
            images.flush()
            rows = {str(row): _as_plain(one) for row, one in refused.items()}
            head = {"cases": len(cases), "refused": rows, "sha256": sha256_of(temporary / "images.npy")}
            write_json(temporary / "entry.json", head)
            try:
                temporary.rename(entry)
            except OSError:
                if not entry.is_dir():
                    raise
                return images, refused  # another process was first: its entry is the same
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return np.load(entry / "images.npy", mmap_mode="c"), refused


def _read(case: Case, digest: str, steps: tuple[Step, ...], store: str) -> np.ndarray | Refused:
    path = case.images[0]
    try:
        content = load_bytes(path)
        if hashlib.sha256(content).hexdigest() != digest:
            seen, todo = "it changed while it was read", "wait until it is written, then run again"
            raise DataError(str(path), seen, "a file at rest", todo)
        x = preprocess(decode(path, content), steps)
    except DataError as error:
        return Refused(
            case=case.id, where=error.where, seen=error.seen, accepted=error.accepted, todo=error.todo
        )
    if store == "uint8":
        return (x * 255).round().to(torch.uint8).numpy()
    return x.half().numpy()


def _open_entry(entry: Path, cases: Sequence[Case]) -> tuple[np.ndarray, dict[int, Refused]] | None:
    """A kept entry whose content is still what was written; a damaged one is removed and None returned."""
    if not entry.is_dir():
        return None
    try:
        head = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        if head["sha256"] != sha256_of(entry / "images.npy") or head["cases"] != len(cases):
            raise ValueError("damaged")
        # Copy on write: torch refuses to share read-only memory in silence.
        images = np.load(entry / "images.npy", mmap_mode="c")
        return images, {int(row): _as_refused(cases[int(row)], one) for row, one in head["refused"].items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _as_plain(one: Refused) -> dict[str, str]:
    """Without names: the same content may lie elsewhere the next time."""
    return {"seen": one.seen, "accepted": one.accepted, "todo": one.todo}


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
