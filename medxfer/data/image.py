"""What every reader returns, the limits every reader keeps, and the words of a refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:  # readers of a file need no MONAI
    from monai.data.meta_tensor import MetaTensor

# Limits of one file; the variable MEDXFER_MAX_<NAME> replaces each. Nothing is allocated because a header asks for it.
LIMITS = {
    "FILE_BYTES": 2 * 2**30,
    "DECODED_BYTES": 2 * 2**30,  # as float32
    "PIXELS": 512 * 10**6,  # of one picture
    "CSV_BYTES": 200 * 10**6,
    "ENTRIES": 2_000_000,  # of a folder walk
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture as displayed or one volume in the closest RAS axes, with where its numbers come from."""

    array: np.ndarray  # float32, a picture (C, rows, columns) or a volume (C, X, Y, Z)
    spacing: tuple[float, ...] | None = None  # mm of [row, column] or [X, Y, Z]; None: unknown
    affine: np.ndarray | None = (
        None  # (4, 4), indices of this array to mm in RAS; None: a picture without patient axes
    )
    reader: str
    applied: tuple[str, ...] = ()  # what was done to the stored values
    warnings: tuple[str, ...] = ()
    filename: str = ""  # the file or series folder it was read from
    extent: tuple[float, float] | None = None  # least and largest value, where the reader knows them already

    @property
    def full_affine(self) -> np.ndarray:
        """(4, 4) as MONAI wants one of every image: of a picture its spacing down and right, 1 where unknown."""
        if self.affine is not None:
            return self.affine.copy()
        row, column = self.spacing or (1.0, 1.0)
        return np.diag([row, column, 1.0, 1.0])

    def metadata(self) -> dict[str, Any]:
        """What MONAI's pipelines know of an image, under their names, and how it was read.

        Returns:
            `filename_or_obj`, `affine` and `original_affine` (float64 (4, 4), mm in RAS; `full_affine`), `space`,
            `spatial_shape`, `original_channel_dim`, and the sentences `reader`, `applied`, `warnings`.
        """
        return {
            "filename_or_obj": self.filename,
            "affine": self.full_affine,
            "original_affine": self.full_affine,
            "space": "RAS",
            "spatial_shape": np.array(self.array.shape[1:]),
            "original_channel_dim": 0,
            "reader": self.reader,
            "applied": "; ".join(self.applied),
            "warnings": "; ".join(self.warnings),
        }

    def to_metatensor(self) -> MetaTensor:
        """The image for pipelines written in MONAI: what `LoadImaged(reader=MedxferReader)` gives of the same file.

        Returns:
            float32 MetaTensor, a picture (C, rows, columns) or a volume (C, X, Y, Z) in the closest RAS axes, with a
            memory of its own. Its `affine` is in mm, its `meta` that of `metadata`.
        """
        import torch
        from monai.data.meta_tensor import MetaTensor

        tensor: MetaTensor = MetaTensor.ensure_torch_and_prune_meta(torch.tensor(self.array), self.metadata())
        return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A case that cannot be used: a value, so that it survives a worker process."""

    case: str
    where: str
    seen: str
    accepted: str
    todo: str


def limit(name: str) -> int:
    """The limit of that name, or what `MEDXFER_MAX_<name>` says.

    Raises:
        DataError: The variable is no positive whole number.
    """
    variable = f"MEDXFER_MAX_{name}"
    text = os.environ.get(variable)
    if text is None:
        return LIMITS[name]
    if not text.isdecimal() or int(text) == 0:
        raise DataError(
            variable, repr(text), "a positive whole number", f"unset it; the default is {LIMITS[name]}"
        )
    return int(text)


def shown(path: Path | str) -> str:
    """A path as text that cannot move the cursor or break a line: control characters and lost bytes are escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in with_lost_bytes(path)
    )


def with_lost_bytes(path: Path | str) -> str:
    r"""A path whose bytes that are not UTF-8 are written as \xff; nothing else is changed."""
    return "".join(
        f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else character
        for character in str(path)
    )


def refuse_size(path: Path, rows: int, columns: int, channels: int, *, frames: int = 1) -> None:
    """Refuse what would not fit, from the header, before anything is allocated.

    Raises:
        DataError: No pixels at all, or more than the limits.
    """
    seen = f"{columns} x {rows} pixels" + (f", {frames} frames" if frames > 1 else "")
    if rows < 1 or columns < 1:
        raise DataError(
            shown(path), seen, "at least one pixel", "export the image again, or list it in data.exclude"
        )
    pixels, decoded = rows * columns * frames, rows * columns * frames * channels * 4
    if pixels > limit("PIXELS") or decoded > limit("DECODED_BYTES"):
        accepted = f"at most {limit('PIXELS') / 1e6:.0f} megapixels, {limit('DECODED_BYTES') / 2**30:.1f} GiB decoded"
        todo = "make it smaller, or raise MEDXFER_MAX_PIXELS and MEDXFER_MAX_DECODED_BYTES if the file is to be trusted"
        raise DataError(shown(path), seen, accepted, todo)


_CONSTANT = ("every pixel has the value", "every voxel has the value")


def is_constant(remark: str) -> bool:
    """Whether a reader's remark says that the image is of one value all over."""
    return remark.startswith(_CONSTANT)


def checked(path: Path, image: Image, *, on_nonfinite: str = "stop") -> Image:
    """The image, if all its numbers are finite; remarks on size and content are added.

    Args:
        path: For messages.
        image: What a reader returned.
        on_nonfinite: `stop` refuses NaN and infinite values, `zero` sets them to 0.

    Raises:
        DataError: NaN or infinite values; their count and the first place are named.
    """
    array, remarks = image.array, list(image.warnings)
    low, high = image.extent or (float(array.min()), float(array.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = ~np.isfinite(array)
        count = int(bad.sum())
        values = "value is" if count == 1 else "values are"
        seen = f"{count} {values} NaN or infinite, the first at {_place(np.argwhere(bad)[0])}"
        if on_nonfinite != "zero":
            todo = "export the image again, set data.on_nonfinite: zero, or list it in data.exclude"
            raise DataError(shown(path), seen, "finite values", todo)
        array = np.where(bad, np.float32(0), array)
        remarks.append(f"{seen}; set to 0")
        low, high = float(array.min()), float(array.max())
    sides = array.shape[1:]
    if len(sides) == 2 and min(sides) < 16:
        remarks.append(f"only {sides[1]} x {sides[0]} pixels")
    if len(sides) == 3 and max(sides) < 4:
        remarks.append(f"only {' x '.join(map(str, sides))} voxels")
    if low == high:
        remarks.append(f"{_CONSTANT[len(sides) - 2]} {low:g}")
    if array is image.array and len(remarks) == len(image.warnings) and image.filename == str(path):
        return image
    return dataclasses.replace(image, array=array, warnings=tuple(remarks), filename=str(path))


def _place(index: np.ndarray) -> str:
    """An index of an array in words."""
    names = ("channel", "row", "column") if len(index) == 3 else ("channel", "x", "y", "z")
    words = [f"{name} {int(value)}" for name, value in zip(names, index, strict=True)]
    return ", ".join((*words[1:], words[0]))


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what a foreign library warns of in this thread, each sentence once, in the list that is yielded.

    `warnings.catch_warnings` is the whole process's: used by several reading threads it would put filters back in
    the wrong order. So the first thread that enters takes the warnings over, and the last that leaves gives them
    back; in between each thread hears its own.
    """
    said: list[str] = []
    outer = getattr(_EAR, "said", None)
    _EAR.said = said
    _LISTENING.begin()
    try:
        yield said
    finally:
        _LISTENING.end()
        _EAR.said = outer


_EAR = threading.local()


class _Listening:
    """One take-over of the process's warnings, shared by the threads that read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._taken = contextlib.ExitStack()

    def begin(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                self._taken.enter_context(warnings.catch_warnings())
                warnings.simplefilter("always")
                self._others = warnings.showwarning
                warnings.showwarning = self._show

    def end(self) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._taken.close()

    def _show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        said = getattr(_EAR, "said", None)
        text = " ".join(str(message).split())
        if said is None:  # of a thread that reads nothing
            self._others(message, category, filename, lineno, file, line)
        elif text not in said:
            said.append(text)


_LISTENING = _Listening()
