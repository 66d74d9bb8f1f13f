"""One DICOM image through pydicom: stored values to real ones by the rules of PS3.3, or refused by name."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ...errors import DataError
from ..image import Image, heard, refuse_size, shown
from .dicom_header import refuse_inflating

_AGAIN = "export the image again, or list it in data.exclude"
PADDED = "padding set to the lowest real value"  # and counted so in every figure
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One decoded picture of a file."""

    values: np.ndarray  # float32 (C, rows, columns)
    padding: np.ndarray | None  # (rows, columns): where there is no image
    applied: tuple[str, ...]
    warnings: tuple[str, ...]


def read_dicom(path: Path, content: bytes, *, frame: int | None = None) -> Image:
    """Decode a DICOM file that holds one image.

    Args:
        path: For messages.
        content: The file.
        frame: Which of several frames, from 0; None: there must be only one.

    Returns:
        Values after inversion of MONOCHROME1 (in stored values: x becomes 2^BitsStored - 1 - x, PS3.3 C.7.6.3.1.2)
        and modality LUT or rescale; palette and YBR as RGB.

    Raises:
        DataError: No pixels, several frames, truncated, no decoder, tags that make no sense.
    """
    with heard() as said:
        header = parse_dicom(path, content)
        picture = decode_frames(path, header, None if frame is None else [frame])[0]
        remarks = list(picture.warnings)
        spacing = _spacing(path, header, remarks)
    extra = any("bytes after the pixels" in text for text in remarks)
    remarks += [text for text in said if "pixel data" in text.lower() and not extra]
    if str(header.get("PixelIntensityRelationship", "")).upper() == "LOG":
        remarks.append("raw detector values on a logarithmic scale (PixelIntensityRelationship LOG)")
    applied = list(picture.applied)
    padding = picture.padding
    if padding is not None and not padding.all():
        picture.values[:, padding] = picture.values[:, ~padding].min()
        applied.append(PADDED)
    return Image(
        array=picture.values,
        spacing=spacing,
        reader="pydicom",
        applied=tuple(applied),
        warnings=tuple(remarks),
    )


def decode_frames(path: Path, header: Dataset, frames: Sequence[int] | None = None) -> list[Frame]:
    """Decode pictures of a parsed file.

    Args:
        path: For messages.
        header: With its pixels.
        frames: Which, from 0; None: there must be only one.

    Raises:
        DataError: As `read_dicom`.
    """
    rows, columns, samples, count = _shape(path, header, several=frames is not None)
    syntax = _refuse_undecodable(path, header)
    extra = _refuse_truncated(path, header, syntax, rows, columns, samples * count)
    decoded: list[Frame] = []
    for index in frames or [0]:
        try:
            stored = pixel_array(header, index=index)
        except Exception as error:  # each codec raises its own kinds
            text = " ".join(str(error).split())[:160]
            seen = f"pixels cannot be decoded ({syntax.name}): {text}"
            raise DataError(shown(path), seen, "undamaged pixel data", _AGAIN) from error
        applied: list[str] = []
        remarks = [extra] if extra else []
        values, padding = _real_values(path, header, stored, index, applied, remarks)
        decoded.append(Frame(values=values, padding=padding, applied=tuple(applied), warnings=tuple(remarks)))
    return decoded


def parse_dicom(path: Path, content: bytes) -> Dataset:
    """The data set. From memory: pydicom reading a file would allocate whatever length an element claims.

    Raises:
        DataError: Damaged.
    """
    refuse_inflating(path, content)
    try:
        header = pydicom.dcmread(io.BytesIO(content), force=content[128:132] != b"DICM")
    except (InvalidDicomError, EOFError, ValueError, OSError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:160]
        seen = f"damaged DICOM, {len(content)} bytes: {text}"
        raise DataError(shown(path), seen, "a whole DICOM file", _AGAIN) from error
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian
    return header


def _shape(path: Path, header: Dataset, *, several: bool) -> tuple[int, int, int, int]:
    """Rows, columns, samples of a pixel, frames; refuses what has no pixels, frames not asked for, impossible sizes."""
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        uid = header.get("SOPClassUID")
        if uid is None and "Rows" not in header:
            raise DataError(shown(path), "no DICOM image: no pixels, no SOP class", "one DICOM image", _AGAIN)
        name = UID(str(uid)).name if uid else "no SOP class"
        raise DataError(
            shown(path), f"no pixels ({name})", "one DICOM image", "remove it, or list it in data.exclude"
        )
    rows, columns = (int(_number(path, header, name)) for name in ("Rows", "Columns"))
    samples = int(_number(path, header, "SamplesPerPixel", 1.0))
    frames = int(_number(path, header, "NumberOfFrames", 1.0))
    refuse_size(path, rows, columns, samples, frames=max(frames, 1))
    if frames > 1 and not several:
        todo = "save the frame that is meant as a file of its own"
        raise DataError(shown(path), f"{frames} frames", "one image a file", todo)
    return rows, columns, samples, max(frames, 1)


def _refuse_undecodable(path: Path, header: Dataset) -> UID:
    """The transfer syntax; refuses one that is unknown or whose codec is not installed."""
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    label = (
        f"transfer syntax {syntax} ({syntax.name})" if syntax.name != syntax else f"transfer syntax {syntax}"
    )
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        todo = "convert it to an uncompressed transfer syntax (for example with dcmdjpeg or gdcmconv --raw)"
        raise DataError(shown(path), label, "a transfer syntax that pydicom decodes", todo) from None
    if not decoder.is_available:
        needs = "; ".join(decoder.missing_dependencies)
        todo = 'install the codecs: pip install "medxfer[dicom]"'
        raise DataError(shown(path), f"{label}, no codec installed", f"one of: {needs}", todo)
    return syntax


def _refuse_truncated(path: Path, header: Dataset, syntax: UID, rows: int, columns: int, samples: int) -> str:
    """Compare the length of uncompressed pixels with what the header asks for; a remark when there are too many."""
    if syntax.is_encapsulated or "PixelData" not in header:
        return ""
    bits = int(_number(path, header, "BitsAllocated"))
    used = int(_number(path, header, "BitsStored", float(bits)))
    if int(_number(path, header, "HighBit", used - 1.0)) != used - 1:
        seen = f"HighBit {header.HighBit} with {used} bits stored"
        raise DataError(shown(path), seen, f"HighBit {used - 1}", _AGAIN)
    expected = math.ceil(rows * columns * samples * bits / 8)
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        expected = expected * 2 // 3
    found = len(header.PixelData)
    if found < expected:
        seen = f"truncated: {found} of {expected} bytes of pixels"
        raise DataError(shown(path), seen, "all pixels that the header announces", _AGAIN)
    return f"{found - expected} bytes after the pixels left aside" if found > expected + 1 else ""


def _real_values(
    path: Path, header: Dataset, stored: np.ndarray, frame: int, applied: list[str], remarks: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored values to float32 (C, rows, columns), and where there is no image."""
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if photometric == "PALETTE COLOR":
        applied.append("palette to RGB")
        return _planes(apply_color_lut(stored, header)), None
    if photometric in _COLOUR and stored.ndim == 3:
        if photometric.startswith("YBR"):
            applied.append(f"{photometric} to RGB")
        return _planes(stored), None
    if photometric not in _GREY or stored.ndim != 2:
        seen = f"PhotometricInterpretation {photometric}, array of {stored.ndim} axes"
        raise DataError(shown(path), seen, ", ".join((*_GREY, *_COLOUR, "PALETTE COLOR")), _AGAIN)
    padding = _padding(header, stored)
    if photometric == "MONOCHROME1":
        stored = _inverted(path, header, stored)
        applied.append("MONOCHROME1 inverted")
    values = _rescaled(path, header, stored, frame, applied, remarks)
    return values[None], padding if padding is not None and padding.any() else None


def _planes(colour: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(colour.transpose(2, 0, 1), dtype=np.float32)


def _inverted(path: Path, header: Dataset, stored: np.ndarray) -> np.ndarray:
    """White to black in stored values: 2^BitsStored - 1 - x, and -1 - x when signed."""
    if stored.dtype.kind == "f":
        raise DataError(shown(path), "MONOCHROME1 with float pixels", "MONOCHROME2", _AGAIN)
    bits = int(_number(path, header, "BitsStored"))
    top = -1 if int(_number(path, header, "PixelRepresentation", 0.0)) else 2**bits - 1
    return top - stored.astype(np.int64)


def _rescaled(
    path: Path, header: Dataset, stored: np.ndarray, frame: int, applied: list[str], remarks: list[str]
) -> np.ndarray:
    """Modality LUT, else slope and intercept (PS3.3 C.11.1)."""
    if header.get("ModalityLUTSequence"):
        applied.append("modality LUT")
        if "RescaleSlope" in header:
            remarks.append("modality LUT and rescale slope both present; the LUT is used")
        if stored.dtype == np.int64 and stored.min() >= 0:
            stored = stored.astype(np.uint16 if stored.max() < 2**16 else np.uint32)
        return apply_modality_lut(stored, header).astype(np.float32)
    holder = header
    if "RescaleSlope" not in header:
        holder = functional_group(header, "PixelValueTransformationSequence", frame) or header
    slope = _number(path, holder, "RescaleSlope", 1.0)
    intercept = _number(path, holder, "RescaleIntercept", 0.0)
    if slope == 0:
        raise DataError(shown(path), "RescaleSlope 0", "a slope that is not 0", _AGAIN)
    if slope == 1 and intercept == 0:
        return stored.astype(np.float32)
    applied.append(rescale_text(slope, intercept))
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def rescale_text(slope: float, intercept: float) -> str:
    """What slope and intercept do, in `applied`."""
    return f"rescale {slope:g} * x {'-' if intercept < 0 else '+'} {abs(intercept):g}"


def _padding(header: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where pixels are outside the image (PixelPaddingValue, or the range up to its limit)."""
    value = _plain(header.get("PixelPaddingValue"))
    if value is None:
        return None
    last = _plain(header.get("PixelPaddingRangeLimit"))
    low, high = sorted((value, value if last is None else last))
    mask: np.ndarray = (stored >= low) & (stored <= high)
    return mask


def _spacing(path: Path, header: Dataset, remarks: list[str]) -> tuple[float, ...] | None:
    """Millimetres of [row, column]; at the detector where only that is known."""
    holder = functional_group(header, "PixelMeasuresSequence", 0)
    sources = ((header, "PixelSpacing"), (holder, "PixelSpacing"))
    detector = ((header, "ImagerPixelSpacing"), (header, "NominalScannedPixelSpacing"))
    for place, name in (*sources, *detector):
        given = None if place is None else place.get(name)
        if given is None or given == "":
            continue
        try:
            values = tuple(float(value) for value in given)
        except (TypeError, ValueError):
            values = ()
        if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values):
            seen = f"{name} {shown(str(given))[:60]}"
            raise DataError(shown(path), seen, "two positive numbers, row and column in mm", _AGAIN)
        if name != "PixelSpacing":
            remarks.append(f"spacing at the detector ({name})")
        return values
    remarks.append("no pixel spacing")
    return None


def functional_group(header: Dataset, name: str, frame: int) -> Dataset | None:
    """An item of the functional groups of an enhanced object: the frame's own, or the one that all frames share."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        outer = header.get(groups)
        inner = outer[index].get(name) if outer and index < len(outer) else None
        if inner:
            item: Dataset = inner[0]
            return item
    return None


def _plain(value: Any) -> float | None:
    """A number, where the tag holds one."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _number(path: Path, header: Dataset, name: str, default: float | None = None) -> float:
    """A number that is needed.

    Raises:
        DataError: Absent without a default, or no finite number; the tag is named.
    """
    try:
        value = header.get(name)
        if value is None or value == "":
            if default is None:
                raise DataError(shown(path), f"no {name}", f"{name} as a number", _AGAIN)
            return default
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(shown(path), f"{name} is no number", f"{name} as a number", _AGAIN) from None
    if not math.isfinite(number):
        raise DataError(shown(path), f"{name} is {number}", f"{name} as a finite number", _AGAIN)
    return number
