"""One gate for every image: what it is by its content, read rightly, or refused with the reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..errors import DataError
from .formats.content import ACCEPTED, AGAIN, load_bytes
from .formats.kinds import DICOM_SUFFIXES, PICTURE_SUFFIXES, is_candidate, kind_of, suffix_kind
from .image import Image, Refused, checked, shown
from .policy import STRICT, ReadPolicy

__all__ = [
    "DICOM_SUFFIXES",
    "PICTURE_SUFFIXES",
    "STRICT",
    "Image",
    "ReadPolicy",
    "Refused",
    "decode",
    "is_candidate",
    "load_bytes",
    "read_image",
]

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer: the image itself was not fetched"),
    (b"GIF8", "a GIF picture"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"RIFF", "a RIFF file (WebP, audio or video)"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file that holds no NIfTI volume"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
)
_LFS_TODO = "fetch it with `git lfs pull`"


def read_image(path: Path | str, *, policy: ReadPolicy = STRICT) -> Image:
    """Read one image: a file of any kind, or a folder that holds one DICOM series.

    Args:
        path: DICOM (one image or an enhanced multi-frame one), NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or BMP, told
            by content, not by name; of a .hdr/.img pair either half. Or a folder of DICOM files.
        policy: What may be done with what is not plain; the default refuses it.

    Returns:
        A picture (C, rows, columns) or a volume (C, X, Y, Z) in the closest RAS axes: grey as 1 channel, colour as 3;
        16 bits kept; rescale, inversion and orientation applied.

    Raises:
        DataError: Absent, damaged, too large, of another kind, or against the policy; one reason.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, policy)
    if path.name.lower().endswith((".img", ".img.gz")):
        from .formats.nifti import header_half

        path = header_half(path)
    return decode(path, load_bytes(path), policy=policy)


def _read_folder(folder: Path, policy: ReadPolicy) -> Image:
    """The one series of a folder, or the one that the policy's rules choose."""
    from .series import choose_series, find_series, read_series

    image = read_series(choose_series(find_series(folder), policy), policy)
    return checked(folder, image, on_nonfinite=policy.on_nonfinite)


def decode(path: Path, content: bytes, *, policy: ReadPolicy = STRICT, as_stored: bool = False) -> Image:
    """Read an image from the bytes of its file.

    Args:
        path: For messages, for its suffix, and where the other file of a pair lies.
        content: The file.
        policy: As `read_image`.
        as_stored: A picture of 8 bits is given as uint8, a quarter of the memory; everything else as float32.

    Raises:
        DataError: As `read_image`.
    """
    kind = kind_of(content)
    if kind is None:
        raise _foreign(path, content)
    try:
        image = _decoded(path, content, kind, policy, as_stored)
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
        raise DataError(shown(path), seen, ACCEPTED, AGAIN) from error
    if suffix_kind(path) not in (None, kind):
        remark = f"the content is {kind}, the name says {path.suffix}"
        image = dataclasses.replace(image, warnings=(*image.warnings, remark))
    return checked(path, image, on_nonfinite=policy.on_nonfinite)


def _decoded(path: Path, content: bytes, kind: str, policy: ReadPolicy, as_stored: bool) -> Image:
    """The reader of a kind; imported when first needed, since work without DICOM needs no pydicom."""
    if kind == "DICOM":
        from .formats.dicom_frames import read_dicom_file

        return read_dicom_file(path, content, policy=policy)
    if kind == "NIfTI":
        from .formats.nifti import read_nifti

        return read_nifti(path, content, policy=policy)
    if kind == "NRRD":
        from .formats.nrrd import read_nrrd

        return read_nrrd(path, content, policy=policy)
    if kind == "MetaImage":
        from .formats.metaimage import read_metaimage

        return read_metaimage(path, content, policy=policy)
    from .formats.pictures import read_picture

    return read_picture(path, content, kind, policy=policy, as_stored=as_stored)


def _foreign(path: Path, content: bytes) -> DataError:
    for magic, name in _FOREIGN:
        if content.startswith(magic):
            todo = _LFS_TODO if "git-LFS" in name else "convert it, or list it in data.exclude"
            return DataError(shown(path), name, ACCEPTED, todo)
    start = content[:512].lstrip().lower()
    if int.from_bytes(content[:4], "little") == 348 or int.from_bytes(content[:4], "big") == 348:
        seen = "an Analyze 7.5 header, which does not say what is left and right"
        return DataError(shown(path), seen, ACCEPTED, "convert it to NIfTI with the program that wrote it")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in start:
        return DataError(
            shown(path), "a web page (HTML), not an image", ACCEPTED, "download the image itself again"
        )
    sample = content[:512]
    if sample.isascii() and all(byte >= 32 or byte in b"\t\r\n\f" for byte in sample):
        return DataError(shown(path), "plain text, not an image", ACCEPTED, AGAIN)
    seen = f"{len(content)} bytes of no known image format (the first are {content[:4].hex(' ')})"
    return DataError(shown(path), seen, ACCEPTED, AGAIN)


def _short(error: Exception) -> str:
    """One line of a foreign library's words."""
    text = " ".join(str(error).split())
    return shown(text if len(text) <= 160 else text[:157] + "...")
