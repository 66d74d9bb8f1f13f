"""Stored values as they lie in DICOM files, without a decoder."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ...errors import DataError
from ..image import shown
from .dicom_header import Header, remark_on_rest

_AGAIN = "copy or export the files again"


def same_pixels(content: bytes | None) -> Callable[[Header, Header], bool]:
    """A function that tells whether two images hold the same pixels, byte by byte."""

    def compare(one: Header, other: Header) -> bool:
        if one.frames > 1 or other.frames > 1:
            if content is None or one.stored is None or other.stored is None:
                return False
            return bool(np.array_equal(raw_frame(one, content), raw_frame(other, content)))
        if one.length != other.length:
            return False
        return _tail(one) == _tail(other)

    return compare


def _tail(image: Header) -> bytes:
    """Everything from the pixels on: the same for encoded pixels of unknown length."""
    with image.path.open("rb") as file:
        file.seek(image.offset)
        return file.read()


def raw_frame(image: Header, content: bytes) -> np.ndarray:
    """Stored values of a frame (rows, columns), where they lie in the file as they are."""
    assert image.stored is not None
    count = image.rows * image.columns
    start = image.offset + image.frame * count * image.stored.itemsize
    return np.frombuffer(content, image.stored, count, start).reshape(image.rows, image.columns)


def load_stored(image: Header, into: np.ndarray) -> str:
    """Stored values of a file straight to their place; a remark on what follows them.

    Raises:
        DataError: Unreadable, truncated, or changed since its header was read.
    """
    try:
        with image.path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != image.status:
                seen = "changed while it was read"
                todo = "wait until it is written, then run again"
                raise DataError(shown(image.path), seen, "a file at rest", todo)
            file.seek(image.offset)
            count = file.readinto(into.data.cast("B"))
            end = image.offset + image.length
            rest = status.st_size - end
            start = b""
            if rest > 1:
                file.seek(end)
                start = file.read(4)
    except OSError as error:
        seen = f"cannot be read: {error.strerror or error}"
        raise DataError(shown(image.path), seen, "a readable file", _AGAIN) from None
    if count != into.nbytes:
        seen = f"truncated: {count} of {into.nbytes} bytes of pixels"
        raise DataError(shown(image.path), seen, "all pixels that the header announces", _AGAIN)
    if image.length > into.nbytes + 1:
        return f"{image.length - into.nbytes} bytes after the pixels left aside"
    return remark_on_rest(start, rest)
