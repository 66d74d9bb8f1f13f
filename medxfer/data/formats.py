"""Which files are images: by suffix, and by their first bytes. Nothing is decoded here."""

from __future__ import annotations

import re
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
# Image formats that are not read: kept among the candidates so that they are refused by name, not lost in silence.
OTHER_SUFFIXES = frozenset(
    {".gif", ".webp", ".jp2", ".j2k", ".heic", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npy"}
)

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)


def is_candidate(path: Path) -> bool:
    """Whether a file of a data folder is meant as an image: by its suffix, or without one by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES or suffix in DICOM_SUFFIXES or suffix in OTHER_SUFFIXES:
        return True
    if path.name.lower().endswith(".nii.gz"):
        return True
    # DICOM files often end in a number of their UID, or have no ending: look inside. DICOMDIR lists files, it is none.
    if path.name.upper() == "DICOMDIR" or (suffix and not re.fullmatch(r"\.\d+", suffix)):
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return kind_of(file.read(256)) is not None
    except OSError:
        return False


def kind_of(content: bytes) -> str | None:
    """DICOM, JPEG, PNG, TIFF or BMP, from the first 256 bytes or more; None: something else."""
    if content[128:132] == b"DICM":
        return "DICOM"
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    return "DICOM" if _begins_like_dicom(content) else None


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
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return "DICOM"
    names = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
    return names.get(suffix, "JPEG" if suffix in PICTURE_SUFFIXES else None)
