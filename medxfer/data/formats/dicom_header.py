"""What the header of one DICOM image says: where it lies, how its pixels are stored, what it belongs to."""

from __future__ import annotations

import io
import math
import os
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ...errors import DataError
from ..image import shown
from .dicom_elements import NUMBERS, TEXTS, WANTED, Elements, Fault
from .kinds import kind_of

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PIXELS = 0x7FE00008  # the first of the three elements that hold pixels
_START = 2**16  # bytes read first; a longer header is read through the file
_UNDEFINED, _SHORTEST = 0xFFFFFFFF, 8  # length of encoded pixels; bytes of the shortest element
_FOLLOWING = (b"\xfa\xff\xfa\xff", b"\xfc\xff\xfc\xff", b"\xff\xfa\xff\xfa", b"\xff\xfc\xff\xfc")
_PRIVATE = tuple(group.to_bytes(2, "little") for group in range(0x7FE1, 0x8000, 2))
_META = 1024  # bytes in which the transfer syntax stands
_INFLATED, _RATIO = 64 * 2**20, 200  # a deflated file may become so large, or so many times as large
_RAW_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_AGAIN = "export the image again, or list it in data.exclude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One image: a file, or one frame of a file."""

    path: Path
    frame: int = 0  # from 0
    frames: int = 1  # in the file
    status: tuple[int, int] = (0, 0)  # bytes, time of change in ns
    fault: DataError | None = None  # why its numbers cannot be used
    sop_class: str = ""
    sop_instance: str = ""
    series: str = ""
    study: str = ""
    frame_of_reference: str = ""
    patient: str = ""
    modality: str = ""
    description: str = ""
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    position: tuple[float, ...] | None = None  # mm in LPS, of the first pixel
    orientation: tuple[float, ...] | None = None  # directions of a row and of a column in LPS
    spacing: tuple[float, ...] | None = None  # mm from row to row, from column to column
    slope: float = 1.0
    intercept: float = 0.0
    rescale_type: str = ""
    units: str = ""
    logarithmic: bool = False
    padding: tuple[float, float] | None = None  # stored values from, to
    stored: np.dtype[Any] | None = (
        None  # pixels that can be copied as they lie in the file; None: to be decoded
    )
    bits: int = 0  # stored bits of these
    offset: int = -1  # of the first byte of pixels in the file
    length: int = 0  # bytes of all pixels of the file, as it says
    tags: dict[str, str | float] = field(default_factory=dict)  # of VOLUME_TAGS, those that are there

    @property
    def has_pixels(self) -> bool:
        """Whether there are pixels."""
        return self.offset >= 0

    @property
    def is_localizer(self) -> bool:
        """An overview on which slices were planned."""
        return any(word in ("LOCALIZER", "SCOUT", "TOPOGRAM") for word in self.image_type)

    @property
    def is_mosaic(self) -> bool:
        """One picture that holds all slices as tiles."""
        return "MOSAIC" in self.image_type


def read_header(path: Path) -> Header | str:
    """The header of a file.

    Returns:
        The header, or a sentence on what the file is where it is no DICOM.

    Raises:
        DataError: It begins like DICOM and cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return "a pipe, socket or device"
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            start = file.read(_START)
            if not start:
                raise DataError(shown(path), "0 bytes", "a whole DICOM file", _AGAIN)
            if kind_of(start[:4096]) != "DICOM":
                return "no DICOM file"
            size = (status.st_size, status.st_mtime_ns)
            if status.st_size > len(start):
                try:
                    return parse_header(path, io.BytesIO(start), size, whole=False)
                except _Longer:
                    file.seek(0)
                    return parse_header(path, file, size)
            return parse_header(path, io.BytesIO(start), size)
    except OSError as error:
        todo = "change its permissions, or check the disk"
        seen = f"cannot be read: {error.strerror or error}"
        raise DataError(shown(path), seen, "a readable file", todo) from None


class _Longer(Exception):
    """The header goes on after the bytes that were read."""


def parse_header(path: Path, file: BinaryIO, status: tuple[int, int], *, whole: bool = True) -> Header:
    """The header from an open file or its first bytes.

    Args:
        path: For messages.
        file: At its start.
        status: Bytes of the file and time of its last change in ns.
        whole: False: `file` holds the first bytes only.

    Raises:
        DataError: Damaged.
    """
    pixels: list[tuple[int, int]] = []

    def at_pixels(tag: int, _: str | None, length: int) -> bool:
        if int(tag) < _PIXELS:  # pydicom's own comparison of tags is ten times as slow
            return False
        pixels.append((file.tell(), length))
        return True

    try:
        start = file.read(_META)
        if not whole and _is_deflated(start):
            raise _Longer
        file.seek(0)
        if _is_deflated(start):
            refuse_inflating(path, file.read())
            file.seek(0)
        data = read_partial(
            file,
            stop_when=at_pixels,
            defer_size=_START,
            force=start[128:132] != b"DICM",
            specific_tags=list(WANTED),
        )
        if not whole and not pixels:
            raise _Longer
        return _header_of(path, data, status, pixels[0] if pixels else (-1, 0))
    except (DataError, _Longer):
        raise
    except Exception as error:  # a parser given hostile bytes may raise anything
        if not whole:
            raise _Longer from None
        seen = f"damaged DICOM, {status[0]} bytes: {' '.join(str(error).split())[:160]}"
        raise DataError(shown(path), seen, "a whole DICOM file", _AGAIN) from error


def _is_deflated(start: bytes) -> bool:
    return start[128:132] == b"DICM" and DeflatedExplicitVRLittleEndian.encode() in start


def refuse_inflating(path: Path, content: bytes) -> None:
    """Unpack a deflated data set piece by piece, to see how large it becomes before pydicom unpacks it at once.

    Raises:
        DataError: It grows beyond all measure, or cannot be unpacked.
    """
    if not _is_deflated(content[:_META]):
        return
    start = 144 + int.from_bytes(
        content[140:144], "little"
    )  # after the group whose length stands first in it
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, total = content[start:], 0
    try:
        while packed and not unpacker.eof:
            total += len(unpacker.decompress(packed, 2**20))
            packed = unpacker.unconsumed_tail
            if total > max(_INFLATED, _RATIO * len(content)):
                seen = f"{len(content)} bytes that unpack to more than {total // 2**20} MiB"
                raise DataError(shown(path), seen, "an image", "list it in data.exclude")
    except zlib.error as error:
        seen = f"damaged deflated data: {error}"
        raise DataError(shown(path), seen, "a whole DICOM file", _AGAIN) from None


def _header_of(path: Path, data: Dataset, status: tuple[int, int], pixels: tuple[int, int]) -> Header:
    """The parsed elements as a header; numbers that are none become its fault."""
    reader = Elements(data)
    texts = {name: reader.text(name) for name in TEXTS}
    names: dict[str, Any] = {
        "path": path,
        "status": status,
        "sop_class": texts["SOPClassUID"],
        "sop_instance": texts["SOPInstanceUID"],
        "series": texts["SeriesInstanceUID"],
        "study": texts["StudyInstanceUID"],
        "frame_of_reference": texts["FrameOfReferenceUID"],
        "patient": texts["PatientID"],
        "modality": texts["Modality"].upper(),
        "description": reader.text("SeriesDescription"),
        "image_type": tuple(word.strip().upper() for word in reader.text("ImageType").split("\\")),
        "rescale_type": texts["RescaleType"],
        "units": texts["Units"],
        "logarithmic": texts["PixelIntensityRelationship"].upper() == "LOG",
        "photometric": texts["PhotometricInterpretation"] or "MONOCHROME2",
        "offset": pixels[0],
        "length": pixels[1],
    }
    try:
        return Header(**names, **_figures(reader, status, pixels))
    except Fault as fault:
        refusal = DataError(shown(path), str(fault), fault.accepted, _AGAIN)
        return Header(**names, fault=refusal)


def _figures(reader: Elements, status: tuple[int, int], pixels: tuple[int, int]) -> dict[str, Any]:
    """All that is a number."""
    numbers = {name: reader.numbers(name, 1) for name in NUMBERS}
    plain = {name: values[0] for name, values in numbers.items() if values}
    rows, columns = (reader.whole(name) for name in ("Rows", "Columns"))
    bits = int(plain.get("BitsAllocated", 0))
    padding = plain.get("PixelPaddingValue")
    limits = sorted((padding, plain.get("PixelPaddingRangeLimit", padding))) if padding is not None else None
    figures: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples": int(plain.get("SamplesPerPixel", 1)),
        "frames": max(int(plain.get("NumberOfFrames", 1)), 1),
        "position": reader.numbers("ImagePositionPatient", 3),
        "orientation": reader.numbers("ImageOrientationPatient", 6),
        "spacing": reader.numbers("PixelSpacing", 2),
        "slope": plain.get("RescaleSlope", 1.0),
        "intercept": plain.get("RescaleIntercept", 0.0),
        "padding": None if limits is None else (limits[0], limits[1]),
        "bits": int(plain.get("BitsStored", bits)),
        "tags": reader.volume_tags(),
    }
    if figures["slope"] == 0:
        raise Fault("RescaleSlope 0", "a slope that is not 0")
    if _lies_plain(reader, plain):
        figures["stored"] = np.dtype(f"<{'i' if plain.get('PixelRepresentation') else 'u'}{bits // 8}")
        expected = rows * columns * figures["frames"] * bits // 8
        found = min(pixels[1], status[0] - pixels[0])
        if found < expected:
            seen = f"truncated: {max(found, 0)} of {expected} bytes of pixels"
            raise Fault(seen, "all pixels that the header announces")
    return figures


def _lies_plain(reader: Elements, plain: dict[str, float]) -> bool:
    """Whether stored values can be copied from the file, and slope and intercept are all there is to do."""
    bits = int(plain.get("BitsAllocated", 0))
    used = plain.get("BitsStored", bits)
    return (
        reader.syntax in _RAW_SYNTAXES
        and reader.text("PhotometricInterpretation") == "MONOCHROME2"
        and plain.get("SamplesPerPixel", 1) == 1
        and bits in (8, 16, 32)
        and 0 < used <= bits
        and plain.get("HighBit", used - 1) == used - 1
        and not reader.holds("ModalityLUTSequence")
    )


def number_of(path: Path, name: str, value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly that many finite numbers of an element that pydicom converted; None where it is absent or empty.

    Raises:
        DataError: Other numbers, or none.
    """
    if value is None or value == "":
        return None
    try:
        values = tuple(float(one) for one in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        values = ()
    if len(values) != count or not all(math.isfinite(one) for one in values):
        seen = f"{name} {shown(str(value))[:60]}"
        raise DataError(shown(path), seen, f"{count} finite numbers", _AGAIN)
    return values


def bytes_after(header: Header, content: bytes) -> str:
    """A remark on what follows the pixels of a file and is no element of DICOM; empty where nothing does.

    Args:
        header: Of the file.
        content: The whole file.
    """
    if not header.has_pixels or _is_deflated(content[:_META]):
        return ""
    end = header.offset + header.length
    if header.length == _UNDEFINED:
        end = _end_of_items(content, header.offset)
    return remark_on_rest(content[end : end + 4], len(content) - end)


def remark_on_rest(start: bytes, count: int) -> str:
    """The words for bytes behind the pixels.

    Args:
        start: Their first four: signatures (FFFA,FFFA), padding (FFFC,FFFC) and vendors' groups from 7FE1 may follow
            the pixels, since tags ascend (PS3.5 section 7.1).
        count: How many there are; one is padding.
    """
    if count <= 1 or (count >= _SHORTEST and (start in _FOLLOWING or start[:2] in _PRIVATE)):
        return ""
    return f"{count} bytes after the pixels left aside"


def _end_of_items(content: bytes, place: int) -> int:
    """Where the fragments of encoded pixels end; the end of the file where they are not delimited."""
    while place + 8 <= len(content):
        tag, length = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8
        if tag == b"\xfe\xff\xdd\xe0":
            return place
        if tag != b"\xfe\xff\x00\xe0":
            break
        place += length
    return len(content)
