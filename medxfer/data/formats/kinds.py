"""Which files are images: by suffix, and by their first bytes. Nothing is decoded here."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
VOLUME_SUFFIXES = frozenset({".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"})
# Image formats that are not read: kept among the candidates so that they are refused by name, not lost in silence.
OTHER_SUFFIXES = frozenset({".gif", ".webp", ".jp2", ".j2k", ".heic", ".npy", ".mgz", ".mgh"})

VOLUME_KINDS = frozenset({"NIfTI", "NRRD", "MetaImage"})
NIFTI_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_SNIFFED = 4096  # enough of a gzip file for its first 540 bytes
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    (b"NRRD000", "NRRD"),
)
_SUFFIX_KINDS = {
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".nii": "NIfTI",
    ".hdr": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}


def is_candidate(path: Path) -> bool:
    """Whether a file of a data folder is meant as an image: by its suffix, or without one by its first bytes."""
    suffix = image_suffix(path)
    if suffix in PICTURE_SUFFIXES or suffix in DICOM_SUFFIXES or suffix in VOLUME_SUFFIXES | OTHER_SUFFIXES:
        return True
    # DICOM files often end in a number of their UID, or have no ending: look inside. DICOMDIR lists files, it is none.
    if path.name.upper() == "DICOMDIR" or (suffix and not re.fullmatch(r"\.\d+", suffix)):
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return kind_of(file.read(_SNIFFED)) is not None
    except OSError:
        return False


def image_suffix(path: Path) -> str:
    """The suffix in small letters; `.nii.gz` (and `.hdr.gz`) count as one."""
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        return ".nii.gz"
    return ".hdr" if name.endswith(".hdr.gz") else path.suffix.lower()


def kind_of(content: bytes) -> str | None:
    """What a file is, from its first 4096 bytes or more: DICOM, NIfTI, NRRD, MetaImage, JPEG, PNG, TIFF, BMP."""
    if content[128:132] == b"DICM":
        return "DICOM"
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content.startswith(b"\x1f\x8b"):
        return "NIfTI" if is_nifti(unpacked_start(content)) else None
    if is_nifti(content):
        return "NIfTI"
    if (
        re.match(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*=", content[:256])
        and b"NDims" in content[:4096]
    ):
        return "MetaImage"
    return "DICOM" if _begins_like_dicom(content) else None


def is_nifti(header: bytes) -> bool:
    """The magic numbers of NIfTI-1 (one file or a pair) and NIfTI-2; Analyze has none and is not read."""
    one = header[344:348] in (b"n+1\x00", b"ni1\x00")
    return one or header[4:8] in (b"n+2\x00", b"ni2\x00")


def unpacked_start(content: bytes, size: int = NIFTI_HEADER_BYTES) -> bytes:
    """The first bytes inside a gzip file, as many as there are up to `size`; what is damaged ends it."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content[:_SNIFFED], size)
    except zlib.error:
        return b""


def _begins_like_dicom(content: bytes) -> bool:
    """No preamble: the file opens with an element of group 2 or 8, of a length that fits."""
    if len(content) < 16 or content[0:4] == b"\x00\x00\x00\x00":
        return False
    little, big = int.from_bytes(content[0:2], "little"), int.from_bytes(content[0:2], "big")
    if little in (2, 8):
        explicit = content[4:6].isalpha() and content[4:6].isupper()
        length = int.from_bytes(content[6:8] if explicit else content[4:8], "little")
        return length <= 1024 and int.from_bytes(content[2:4], "little") < 0x1200
    return big == 8 and content[4:6].isalpha() and content[4:6].isupper()


def suffix_kind(path: Path) -> str | None:
    """What the name says a file is; None where it says nothing."""
    suffix = image_suffix(path)
    if suffix in DICOM_SUFFIXES:
        return "DICOM"
    if suffix == ".nii.gz":
        return "NIfTI"
    return _SUFFIX_KINDS.get(suffix, "JPEG" if suffix in PICTURE_SUFFIXES else None)
