"""MetaImage (.mha, .mhd): header lines `Key = Value`, mm in LPS as ITK writes them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..image import Image, shown
from ..policy import ReadPolicy
from .geometry import lps_to_ras
from .raw_volume import RawVolume, decoded
from .volumes import AGAIN

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SAME = {  # older names
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "position": "offset",
    "origin": "offset",
    "elementbyteordermsb": "binarydatabyteordermsb",
}
_LONGEST_HEADER = 2**20


def read_metaimage(path: Path, content: bytes, *, policy: ReadPolicy) -> Image:
    """Decode a MetaImage file.

    Args:
        path: For messages, and where the data file of an .mhd lies.
        content: The file with the header.
        policy: Which of several volumes, what to do with sheared axes.

    Raises:
        DataError: Truncated, damaged, a data file elsewhere, several volumes, no place in space.
    """
    return decoded(path, content, metaimage_header(path, content), policy=policy, reader="MetaImage")


def metaimage_header(path: Path, content: bytes) -> RawVolume:
    """What the header of a MetaImage file says of the voxels."""
    fields, end = _fields(path, content)
    number = _whole(path, fields, "ndims", 1)[0]
    if not 2 <= number <= 5:
        raise _bad(path, f"NDims = {number}", "2 to 5 axes")
    shape = _whole(path, fields, "dimsize", number)
    if min(shape) < 1:
        raise _bad(path, f"DimSize = {shape}", "at least one voxel on each axis")
    kind = fields.get("elementtype", "").upper()
    dtype = _TYPES.get(kind)
    if dtype is None:
        raise _bad(path, f"ElementType = {shown(kind) or 'absent'}", ", ".join(_TYPES))
    if not _flag(path, fields, "binarydata", default=True):
        raise DataError(shown(path), "BinaryData = False", "binary voxels", "save it as binary")
    parts = (
        _whole(path, fields, "elementnumberofchannels", 1)[0] if "elementnumberofchannels" in fields else 1
    )
    if parts < 1:
        raise _bad(path, f"ElementNumberOfChannels = {parts}", "at least 1")
    name = fields["elementdatafile"]
    local = name.upper() == "LOCAL"
    shape = [parts, *shape] if parts > 1 else shape
    first = 1 if parts > 1 else 0
    affine, spacing, remarks = _place(path, fields, number)
    start = end if local else int(_numbers(path, fields, "headersize", 1, [0.0])[0])
    return RawVolume(
        shape=tuple(shape),
        dtype=np.dtype(dtype).newbyteorder(
            ">" if _flag(path, fields, "binarydatabyteordermsb", default=False) else "<"
        ),
        spatial=tuple(range(first, first + min(number, 3))),
        affine=affine,
        spacing=spacing,
        packed=_flag(path, fields, "compresseddata", default=False),
        start=max(start, -1),
        data_file=None if local else name,
        remarks=tuple(remarks),
    )


def _fields(path: Path, content: bytes) -> tuple[dict[str, str], int]:
    """Keys in small letters, and where the header ends: behind ElementDataFile, its last line."""
    fields: dict[str, str] = {}
    place = 0
    while place < min(len(content), _LONGEST_HEADER):
        end = content.find(b"\n", place, _LONGEST_HEADER)
        end = len(content) if end < 0 else end
        line = content[place:end].decode("latin-1").strip()
        place = end + 1
        if not line:
            continue
        key, equals, value = line.partition("=")
        key = re.sub(r"\s", "", key).lower()
        key = _SAME.get(key, key)
        if not equals or not re.fullmatch(r"[a-z]\w*", key):
            raise _bad(path, f"header line {shown(line)[:60]!r}", "lines `Key = Value`")
        if key in fields and key != "comment":
            raise _bad(path, f"{shown(key)} twice", "each key once")
        fields[key] = value.strip()
        if key == "elementdatafile":
            return fields, min(place, len(content))
    raise _bad(path, "no ElementDataFile", "a header that ends with ElementDataFile")


def _place(
    path: Path, fields: dict[str, str], number: int
) -> tuple[np.ndarray | None, tuple[float, ...] | None, list[str]]:
    """Affine to RAS of a volume or spacing of a picture, and remarks."""
    remarks: list[str] = []
    has_spacing = "elementspacing" in fields or "elementsize" in fields
    sizes = _numbers(path, fields, "elementsize", number, [1.0] * number)
    steps = np.array(_numbers(path, fields, "elementspacing", number, sizes))
    if number == 2:
        return None, (float(steps[0]), float(steps[1])) if has_spacing else None, remarks
    if not has_spacing:
        remarks.append("no voxel spacing: taken as 1 mm")
    if "transformmatrix" not in fields:
        remarks.append("no TransformMatrix: orientation unknown, taken as LPS")
    identity = np.eye(number).ravel().tolist()
    rows = np.array(_numbers(path, fields, "transformmatrix", number**2, identity)).reshape(number, number)
    affine = np.eye(4)
    affine[:3, :3] = rows[:3, :3].T * steps[:3]  # each row is the direction of an axis
    affine[:3, 3] = _numbers(path, fields, "offset", number, [0.0] * number)[:3]
    return lps_to_ras(affine), None, remarks


def _whole(path: Path, fields: dict[str, str], key: str, count: int) -> list[int]:
    words = fields.get(key, "").split()
    if len(words) != count or not all(re.fullmatch(r"\d{1,12}", word) for word in words):
        raise _bad(path, f"{key} = {shown(fields.get(key, 'absent'))[:60]}", f"{count} whole numbers")
    return [int(word) for word in words]


def _numbers(path: Path, fields: dict[str, str], key: str, count: int, default: list[float]) -> list[float]:
    if key not in fields:
        return default
    try:
        values = [float(word) for word in fields[key].split()]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise _bad(path, f"{key} = {shown(fields[key])[:60]}", f"{count} numbers")
    return values


def _flag(path: Path, fields: dict[str, str], key: str, *, default: bool) -> bool:
    text = fields.get(key, str(default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise _bad(path, f"{key} = {shown(text)[:40]}", "True or False")
    return text in ("true", "1")


def _bad(path: Path, seen: str, accepted: str) -> DataError:
    return DataError(shown(path), seen, accepted, AGAIN)
