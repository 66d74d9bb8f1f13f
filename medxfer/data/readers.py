"""One gate for every image file: what it is by its content, read rightly, or refused with the reason."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import DataError
from .formats import DICOM_SUFFIXES, PICTURE_SUFFIXES, is_candidate, kind_of, suffix_kind
from .image import Image, Refused, checked, limit, shown

__all__ = [
    "DICOM_SUFFIXES",
    "PICTURE_SUFFIXES",
    "Image",
    "Refused",
    "decode",
    "is_candidate",
    "load_bytes",
    "read_image",
]

ACCEPTED = "DICOM (one image a file), PNG, JPEG, TIFF or BMP"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer: the image itself was not fetched"),
    (b"GIF8", "a GIF picture"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"RIFF", "a RIFF file (WebP, audio or video)"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file (perhaps a NIfTI volume)"),
    (b"NRRD", "an NRRD volume"),
    (b"ObjectType", "a MetaImage volume"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
)
_LFS_TODO = "fetch it with `git lfs pull`"
_AGAIN_TODO = "copy or export the file again, or list it in data.exclude"


def read_image(path: Path) -> Image:
    """Read one image file.

    Args:
        path: DICOM with one frame, PNG, JPEG, TIFF or BMP; told by content, not by name.

    Returns:
        Grey as 1 channel, colour as 3; 16 bits kept; rescale, inversion and orientation applied.

    Raises:
        DataError: Absent, damaged, too large, or of another kind; one reason.
    """
    return decode(path, load_bytes(path))


def load_bytes(path: Path) -> bytes:
    """The content of a regular file; pipes and devices are refused without opening them.

    Raises:
        DataError: Absent, unreadable, empty, or larger than the limit.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise DataError(shown(path), kind, "a file", "name an image file")
        if status.st_size == 0:
            raise DataError(shown(path), "0 bytes", ACCEPTED, _AGAIN_TODO)
        if status.st_size > limit("FILE_BYTES"):
            accepted = f"at most {limit('FILE_BYTES') / 2**30:.1f} GiB"
            raise DataError(
                shown(path), f"{status.st_size / 2**30:.1f} GiB", accepted, "raise MEDXFER_MAX_FILE_BYTES"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(shown(path), "no such file", ACCEPTED, "correct the path") from None
    except OSError as error:
        todo = "change its permissions, or check the disk"
        raise DataError(
            shown(path), f"cannot be read: {error.strerror or error}", "a readable file", todo
        ) from None
    if len(content) != status.st_size:
        seen = f"{status.st_size} bytes, then {len(content)}: it changed while it was read"
        raise DataError(shown(path), seen, "a file at rest", "wait until it is written, then run again")
    return content


def decode(path: Path, content: bytes) -> Image:
    """Read an image from the bytes of its file; `path` is for messages and for its suffix.

    Raises:
        DataError: As `read_image`.
    """
    kind = kind_of(content)
    if kind is None:
        raise _foreign(path, content)
    try:
        image = _decoded(path, content, kind)
    except DataError:
        raise
    except MemoryError:
        raise DataError(
            shown(path), "not enough memory to decode it", "", "free some memory, or make it smaller"
        ) from None
    except (
        Exception
    ) as error:  # a parser given hostile bytes may raise anything; the file is at fault, not the program
        seen = f"damaged {kind}: {type(error).__name__}: {_short(error)}"
        raise DataError(shown(path), seen, ACCEPTED, _AGAIN_TODO) from error
    if suffix_kind(path) not in (None, kind):
        remark = f"the content is {kind}, the name says {path.suffix}"
        image = Image(
            array=image.array,
            spacing=image.spacing,
            affine=image.affine,
            reader=image.reader,
            applied=image.applied,
            warnings=(*image.warnings, remark),
        )
    return checked(path, image)


def _decoded(path: Path, content: bytes, kind: str) -> Image:
    """The reader of a kind; imported when first needed, since work without DICOM needs no pydicom."""
    if kind == "DICOM":
        from .dicom import read_dicom

        return read_dicom(path, content)
    from .pictures import read_picture

    return read_picture(path, content, kind)


def _foreign(path: Path, content: bytes) -> DataError:
    for magic, name in _FOREIGN:
        if content.startswith(magic):
            todo = _LFS_TODO if "git-LFS" in name else "convert it, or list it in data.exclude"
            return DataError(shown(path), name, ACCEPTED, todo)
    start = content[:512].lstrip().lower()
    if content[344:348] in (b"n+1\x00", b"ni1\x00") or content[4:8] == b"n+2\x00":
        return DataError(
            shown(path), "a NIfTI volume", ACCEPTED, "volumes are not read here; list it in data.exclude"
        )
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in start:
        return DataError(
            shown(path), "a web page (HTML), not an image", ACCEPTED, "download the image itself again"
        )
    sample = content[:512]
    if sample.isascii() and all(byte >= 32 or byte in b"\t\r\n\f" for byte in sample):
        return DataError(shown(path), "plain text, not an image", ACCEPTED, _AGAIN_TODO)
    seen = f"{len(content)} bytes of no known image format (the first are {content[:4].hex(' ')})"
    return DataError(shown(path), seen, ACCEPTED, _AGAIN_TODO)


def _short(error: Exception) -> str:
    """One line of a foreign library's words."""
    text = " ".join(str(error).split())
    return shown(text if len(text) <= 160 else text[:157] + "...")
