"""Elements of a DICOM header as text and numbers, checked as they are taken."""

from __future__ import annotations

import functools
import math
import struct

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..policy import VOLUME_TAGS

TEXTS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "PhotometricInterpretation",
    "RescaleType",
    "Units",
    "PixelIntensityRelationship",
)
NUMBERS = (
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
_GEOMETRY = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_OTHERS = ("SeriesDescription", "ModalityLUTSequence")
_TAGS = {
    name: int(tag_for_keyword(name) or 0) for name in (*TEXTS, *NUMBERS, *_GEOMETRY, *_OTHERS, *VOLUME_TAGS)
}
_KINDS = {name: dictionary_VR(tag) for name, tag in _TAGS.items()}
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}
_CHARACTER_SET = 0x00080005
WANTED = sorted({*_TAGS.values(), _CHARACTER_SET})  # tags that are read at all


class Fault(Exception):
    """An element that is needed and makes no sense."""

    def __init__(self, seen: str, accepted: str) -> None:
        super().__init__(seen)
        self.accepted = accepted


class Elements:
    """Values of raw elements, by name; pydicom's own conversion of each costs more than reading the file."""

    def __init__(self, data: Dataset) -> None:
        self._raw = {int(tag): data.get_item(tag, keep_deferred=True) for tag in data.keys()}  # noqa: SIM118
        declared = getattr(self._raw.get(_CHARACTER_SET), "value", None) or b""
        if not isinstance(declared, bytes):  # pydicom converts this one where it needs it
            names = [declared] if isinstance(declared, str) else declared
            declared = "\\".join(str(name) for name in names).encode("ascii", "replace")
        self._declared = declared
        self.is_little = bool(data.original_encoding[1])
        self.syntax = UID(str(data.file_meta.get("TransferSyntaxUID", "") or ""))
        if not self.syntax:
            plain = ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
            self.syntax = plain if self.is_little else ExplicitVRBigEndian
        if self.syntax == DeflatedExplicitVRLittleEndian:
            self.is_little = True

    def holds(self, name: str) -> bool:
        """Whether the element is there."""
        return _TAGS[name] in self._raw

    def text(self, name: str) -> str:
        """The text in its declared character set; empty where the element is absent."""
        value = self._bytes(name)
        if not value:
            return ""
        return _decoded(value, self._declared)

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        """Exactly that many finite numbers; None where the element is absent or empty."""
        value = self._bytes(name)
        if not value:
            return None
        values = self._converted(name, value)
        if len(values) < count or (count > 1 and len(values) != count):
            raise Fault(f"{name} holds {len(values)} numbers", f"{count} numbers")
        for number in values[:count]:
            if not math.isfinite(number):
                raise Fault(f"{name} is {number}", f"{name} as a finite number")
        return tuple(values[:count])

    def whole(self, name: str) -> int:
        """A whole number; 0 where the element is absent."""
        values = self.numbers(name, 1)
        return int(values[0]) if values else 0

    def volume_tags(self) -> dict[str, str | float]:
        """Text or a number of each tag that may tell volumes apart; not needed, so never a fault."""
        tags: dict[str, str | float] = {}
        for name in VOLUME_TAGS:
            if not self.holds(name):
                continue
            try:
                numbers = self.numbers(name, 1) if _KINDS[name] in ("DS", "IS", *_BINARY) else None
            except Fault:
                numbers = None
            value = numbers[0] if numbers else self.text(name)
            if value != "":
                tags[name] = value
        return tags

    def _bytes(self, name: str) -> bytes:
        value = getattr(self._raw.get(_TAGS[name]), "value", None)
        return value if isinstance(value, bytes) else b""

    def _converted(self, name: str, value: bytes) -> list[float]:
        given = getattr(self._raw[_TAGS[name]], "VR", None)
        kind = given if given in _BINARY or given in ("DS", "IS") else _KINDS[name]
        if "or" in kind:  # US or SS
            signed = self.numbers("PixelRepresentation", 1)
            kind = "SS" if signed and signed[0] else "US"
        if kind in _BINARY:
            code = _BINARY[kind]
            count = len(value) // struct.calcsize(code)
            if count * struct.calcsize(code) != len(value):
                raise Fault(f"{name} of {len(value)} bytes", f"{name} as a number")
            return list(struct.unpack(f"{'<' if self.is_little else '>'}{count}{code}", value))
        try:
            if b"_" in value:
                raise ValueError  # Python's own sign between digits
            return [float(part) for part in value.rstrip(b" \0").split(b"\\")]
        except ValueError:
            raise Fault(f"{name} is no number", f"{name} as a number") from None


@functools.lru_cache(maxsize=4096)
def _decoded(value: bytes, declared: bytes) -> str:
    """Text of an element in the declared character set; what does not fit is replaced, never refused."""
    value = value.rstrip(b" \0")
    if value.isascii():
        return value.decode("ascii").strip()
    try:
        sets = [part.strip().decode("ascii") for part in declared.split(b"\\")]
        return str(decode_bytes(value, convert_encodings(sets), set())).strip()
    except Exception:  # an unknown set
        return value.decode("latin-1").strip()
