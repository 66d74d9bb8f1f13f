"""Bytes of a file: looked at before it is opened, and again after it was read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...errors import DataError
from ...files import AT_ONCE, read_small
from ..image import limit, shown

ACCEPTED = "DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or BMP"
AGAIN = "copy or export the file again, or list it in data.exclude"


def load_bytes(path: Path) -> bytes:
    """The content of a regular file; pipes and devices are refused without opening them.

    Raises:
        DataError: Absent, unreadable, empty, larger than the limit, or changed while it was read.
    """
    try:
        before = path.stat()
        _refuse_odd(path, before)
        content, after = _read(path, before.st_size)
    except FileNotFoundError:
        raise DataError(shown(path), "no such file", ACCEPTED, "correct the path") from None
    except OSError as error:
        todo = "change its permissions, or check the disk"
        raise DataError(
            shown(path), f"cannot be read: {error.strerror or error}", "a readable file", todo
        ) from None
    if (len(content), after.st_size, after.st_mtime_ns) != (
        before.st_size,
        before.st_size,
        before.st_mtime_ns,
    ):
        seen = (
            f"{before.st_size} bytes, then {max(len(content), after.st_size)}: it changed while it was read"
        )
        raise DataError(shown(path), seen, "a file at rest", "wait until it is written, then run again")
    return content


def _read(path: Path, size: int) -> tuple[bytes, os.stat_result]:
    """Content, and what the open file is then."""
    if size <= AT_ONCE:
        return read_small(path, size)
    with path.open("rb") as file:
        return file.read(), os.fstat(file.fileno())


def _refuse_odd(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise DataError(shown(path), kind, "a file", "name an image file")
    if status.st_size == 0:
        raise DataError(shown(path), "0 bytes", ACCEPTED, AGAIN)
    if status.st_size > limit("FILE_BYTES"):
        accepted = f"at most {limit('FILE_BYTES') / 2**30:.1f} GiB"
        raise DataError(
            shown(path), f"{status.st_size / 2**30:.1f} GiB", accepted, "raise MEDXFER_MAX_FILE_BYTES"
        )
