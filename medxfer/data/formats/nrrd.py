"""NRRD (.nrrd, .nhdr) and its header: format of teem.sourceforge.net/nrrd/format.html, versions 1 to 5."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..image import Image, shown
from ..policy import ReadPolicy
from .raw_volume import RawVolume, decoded
from .volumes import AGAIN

_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
# Signs that turn the file's space into RAS.
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
_SHORT_SPACES = {
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
    "lps": "left-posterior-superior",
}
_SPATIAL_KINDS = ("domain", "space")
_IGNORED = {
    "content", "centers", "centerings", "labels", "number", "min", "max", "old min", "old max", "oldmin", "oldmax",
    "block size", "blocksize", "sample units", "sampleunits", "thicknesses", "axis mins", "axismins", "axis maxs",
    "axismaxs", "measurement frame",
}  # fmt: skip
_READ = {
    "type", "dimension", "sizes", "encoding", "endian", "space", "space dimension", "space directions",
    "space origin", "kinds", "spacings", "data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip",
    "space units", "units",
}  # fmt: skip


def read_nrrd(path: Path, content: bytes, *, policy: ReadPolicy) -> Image:
    """Decode an NRRD file.

    Args:
        path: For messages, and where a detached data file lies.
        content: The file with the header.
        policy: Which of several volumes, what to do with sheared axes.

    Raises:
        DataError: Truncated, damaged, a data file elsewhere, several volumes, no place in space.
    """
    return decoded(path, content, nrrd_header(path, content), policy=policy, reader="NRRD")


def nrrd_header(path: Path, content: bytes) -> RawVolume:
    """What an NRRD header says of the voxels.

    Raises:
        DataError: A field that is missing, unknown, or no sense; an encoding other than raw and gzip.
    """
    end, gap = _end_of(content)
    fields = _fields(path, content[:end].decode("latin-1"))
    number = _whole(path, fields, "dimension")[0]
    shape = _whole(path, fields, "sizes")
    if len(shape) != number or not 1 <= number <= 16 or min(shape) < 1:
        raise _bad(path, f"dimension {number}, sizes {shape}", "a positive size for each axis")
    dtype = _TYPE_OF.get(_field(path, fields, "type").lower())
    if dtype is None:
        raise _bad(path, f"type {shown(fields['type'])}", "whole numbers or floats")
    encoding = _field(path, fields, "encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        todo = "save it with encoding raw or gzip"
        raise DataError(shown(path), f"encoding {shown(encoding)[:40]}", "raw or gzip", todo)
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big") and not (dtype.endswith("1") and not endian):
        raise _bad(path, f"endian {shown(endian) or 'absent'}", "little or big")
    for name in ("byte skip", "byteskip", "line skip", "lineskip"):
        if fields.get(name, "0").strip() != "0":
            raise _bad(
                path, f"{name}: {shown(fields[name])}", "voxels that begin where the header or file does"
            )
    place = _place(path, fields, number)
    detached = fields.get("data file", fields.get("datafile"))
    return RawVolume(
        shape=tuple(shape),
        dtype=np.dtype(dtype).newbyteorder(">" if endian == "big" else "<"),
        spatial=place.spatial,
        affine=place.affine,
        spacing=place.spacing,
        packed=encoding != "raw",
        start=0 if detached else end + gap,
        data_file=detached,
        colour=_colour(fields, number),
        remarks=tuple(place.remarks),
    )


def _end_of(content: bytes) -> tuple[int, int]:
    """Length of the header, and of the empty line after it; a detached header may end without one."""
    found = re.search(rb"\r?\n(\r?\n)", content[: 2**20])
    return (found.start(1), len(found[1])) if found else (len(content), 0)


def _fields(path: Path, text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if not line.strip() or line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        key = name.strip().lower()
        if not colon or key not in _READ | _IGNORED:
            raise _bad(path, f"header line {shown(line)[:60]!r}", "fields of the NRRD format")
        if key in fields:
            raise _bad(path, f"field {key} twice", "each field once")
        fields[key] = value.strip()
    return fields


def _field(path: Path, fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise _bad(path, f"no field {name}", f"an NRRD header with {name}")
    return fields[name]


def _whole(path: Path, fields: dict[str, str], name: str) -> list[int]:
    words = _field(path, fields, name).split()
    if not words or not all(re.fullmatch(r"\d{1,12}", word) for word in words):
        raise _bad(path, f"{name}: {shown(fields[name])[:60]}", "whole numbers")
    return [int(word) for word in words]


@dataclass(slots=True)
class _Place:
    """Which axes are in space, and where."""

    spatial: tuple[int, ...]
    affine: np.ndarray | None = None  # (4, 4) to mm in RAS
    spacing: tuple[float, ...] | None = None  # of a picture
    remarks: list[str] = field(default_factory=list)


def _place(path: Path, fields: dict[str, str], number: int) -> _Place:
    kinds = [word.lower() for word in fields.get("kinds", "").split()]
    if kinds and len(kinds) != number:
        raise _bad(path, f"{len(kinds)} kinds for {number} axes", "one for each axis")
    units = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    if not set(units) <= {"mm", "millimeter", "millimeters", "", "s", "ms"}:
        raise _bad(path, f"units {shown(str(units))}", "mm")
    if "space directions" not in fields:
        return _without_space(path, fields, kinds, number)
    vectors = _vectors(path, fields["space directions"])
    if len(vectors) != number:
        raise _bad(path, f"{len(vectors)} space directions for {number} axes", "one for each axis, or none")
    place = _Place(tuple(axis for axis, vector in enumerate(vectors) if vector is not None))
    columns = [vector for vector in vectors if vector is not None]
    if len(columns) == 2 and all(len(vector) == 2 for vector in columns):
        place.spacing = tuple(float(np.linalg.norm(vector)) for vector in columns)
        return place
    origin = _vectors(path, fields["space origin"]) if "space origin" in fields else [[0.0, 0.0, 0.0]]
    if "space origin" not in fields:
        place.remarks.append("no space origin: taken as 0")
    sizes = {len(vector or ()) for vector in (*columns, *origin)}
    if len(columns) != 3 or len(origin) != 1 or sizes != {3}:
        seen = f"space directions {shown(fields['space directions'])[:90]}"
        raise _bad(path, seen, "three directions and an origin of three numbers in mm")
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    affine[:3, 3] = origin[0]
    place.affine = _signs(path, fields, place.remarks) @ affine
    return place


def _signs(path: Path, fields: dict[str, str], remarks: list[str]) -> np.ndarray:
    space = fields.get("space", "").lower()
    space = _SHORT_SPACES.get(space, space)
    if space in _SPACES:
        return np.diag([*map(float, _SPACES[space]), 1.0])
    if space in ("", "scanner-xyz", "3d-right-handed"):
        remarks.append(f"space {space or 'not named'}: orientation unknown, taken as LPS")
        return np.diag([-1.0, -1.0, 1.0, 1.0])
    raise _bad(path, f"space {shown(space)[:60]}", f"one of {', '.join(_SPACES)}")


def _without_space(path: Path, fields: dict[str, str], kinds: list[str], number: int) -> _Place:
    """Only spacings: the place in the patient is unknown."""
    place = _Place(tuple(axis for axis in range(number) if not kinds or kinds[axis] in _SPATIAL_KINDS))
    if len(place.spatial) not in (2, 3):
        seen = f"{number} axes, {len(place.spatial)} of them in space"
        raise _bad(path, seen, "two or three axes in space, named by `kinds` or `space directions`")
    steps = (1.0,) * len(place.spatial)
    if "spacings" in fields:
        words = fields["spacings"].split()
        try:
            steps = tuple(float(words[axis]) for axis in place.spatial)
        except (IndexError, ValueError):
            raise _bad(path, f"spacings {shown(fields['spacings'])[:60]}", "a number for each axis") from None
    if len(steps) == 2:
        place.spacing = steps if "spacings" in fields else None
        return place
    if "spacings" not in fields:
        place.remarks.append("no voxel spacing: taken as 1 mm")
    place.remarks.append("no space directions: orientation unknown, taken as LPS with the origin at 0")
    place.affine = np.diag([-steps[0], -steps[1], steps[2], 1.0])
    return place


def _vectors(path: Path, text: str) -> list[list[float] | None]:
    found: list[list[float] | None] = []
    for word in re.findall(r"none|\([^()]*\)|[^\s()]+", text):
        if word.lower() == "none":
            found.append(None)
            continue
        try:
            found.append([float(each) for each in word.strip("()").split(",")])
        except ValueError:
            raise _bad(path, f"vector {shown(word)[:60]}", "numbers in brackets") from None
    return found


def _colour(fields: dict[str, str], number: int) -> str:
    kinds = [word.lower() for word in fields.get("kinds", "").split()]
    return next((kind for kind in kinds[:number] if "color" in kind), "")


def _bad(path: Path, seen: str, accepted: str) -> DataError:
    return DataError(shown(path), seen, accepted, AGAIN)
