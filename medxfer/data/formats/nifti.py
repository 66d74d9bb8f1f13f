"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz, .hdr/.img): the header through nibabel, checked before voxels are touched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ...errors import DataError
from ..image import Image, heard, shown
from ..policy import ALL, ReadPolicy
from .content import load_bytes
from .geometry import as_text, largest_distance, spacing_of
from .kinds import NIFTI_HEADER_BYTES, unpacked_start
from .volumes import AGAIN, chosen_volume, finished, refuse_bomb, refuse_large, voxel_bytes

_COLOURS = {128: 3, 2304: 4}  # RGB24, RGBA32
_UNREAD = {
    0: "unknown",
    1: "1 bit",
    32: "complex64",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
}
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown, metre, millimetre, micrometre
_START = 4096  # bytes that hold the header, packed or not
_LARGEST_OFFSET = 64 * 2**20  # header extensions end before
_CLOSE = 0.1  # mm between the corners of two affines that mean the same

Header = nibabel.Nifti1Header  # NIfTI-2 is a subclass in nibabel


def read_nifti(path: Path, content: bytes, *, policy: ReadPolicy) -> Image:
    """Decode a NIfTI file.

    Args:
        path: For messages; the other half of a .hdr/.img pair is found by it.
        content: The file, plain or gzip; of a pair either half.
        policy: Which volume of several, what to do with sheared axes.

    Returns:
        (C, X, Y, Z) in the closest RAS axes. The affine is the sform where its code is set, else the qform.

    Raises:
        DataError: Truncated, damaged, several volumes, complex numbers, or no place in space.
    """
    with heard():
        header, pair = _header(path, content)
        if pair:
            content = _voxel_file(path)
        return _volume(path, header, content, policy)


def nifti_grid(path: Path) -> tuple[tuple[int, int, int], np.ndarray, Header]:
    """Where the voxels of a file lie, from its header alone.

    Returns:
        X, Y, Z as stored; (4, 4), indices of these to mm in RAS; the header as it is.

    Raises:
        DataError: As `read_nifti`.
    """
    path = header_half(path)
    with heard(), path.open("rb") as file:
        header, _ = _header(path, file.read(_START))
        shape, _ = _shape(path, header, [])
        return shape, _affine(path, header, shape, [], []), header


def _header(path: Path, content: bytes) -> tuple[Header, bool]:
    """The header, and whether the voxels are in a file of their own."""
    packed = content.startswith(b"\x1f\x8b")
    start = unpacked_start(content) if packed else content[:NIFTI_HEADER_BYTES]
    two = start[4:8] in (b"n+2\x00", b"ni2\x00")
    size = 540 if two else 348
    if len(start) < size:
        raise DataError(
            shown(path), f"truncated: {len(start)} of {size} bytes of header", "a whole file", AGAIN
        )
    pair = start[5:6] == b"i" if two else start[345:346] == b"i"
    kind: Any = nibabel.Nifti2Header if two else nibabel.Nifti1Header
    header: Header = kind(start[:size], check=False)
    found = int(header["sizeof_hdr"])
    if found != size:
        raise DataError(shown(path), f"sizeof_hdr {found}", f"{size}", AGAIN)
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in _UNREAD:
        todo = (
            "save magnitude or the part that is meant" if "complex" in _UNREAD[code] else "save it as float32"
        )
        raise DataError(shown(path), f"{_UNREAD[code]} voxels", "whole numbers, floats, RGB", todo)
    try:
        dtype = header.get_data_dtype()
    except (KeyError, nibabel.spatialimages.HeaderDataError) as error:
        raise DataError(shown(path), f"datatype {code}", "a datatype of NIfTI", AGAIN) from error
    if dtype.itemsize * 8 != bits:
        raise DataError(shown(path), f"bitpix {bits} with datatype {code}", f"{dtype.itemsize * 8}", AGAIN)
    return header, pair


def header_half(path: Path) -> Path:
    """The .hdr of a pair when its .img is given, else the path itself."""
    return (_partner(path) or path) if _is_img(path) else path


def _is_img(path: Path) -> bool:
    return path.name.lower().endswith((".img", ".img.gz"))


def _partner(path: Path) -> Path | None:
    """The other half of a pair: .hdr for .img and the other way round, packed or not."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem, suffix = name[:-4], name[-4:]
    wanted = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(suffix)
    if wanted is None:
        return None
    for ending in (wanted, f"{wanted}.gz"):
        other = path.with_name(stem + ending)
        if other.is_file():
            return other
    return None


def _voxel_file(path: Path) -> bytes:
    """Content of the .img of a pair."""
    other = _partner(path)
    if other is None:
        raise DataError(
            shown(path),
            "the header of a .hdr/.img pair, without its .img",
            "both files",
            "put the .img beside it",
        )
    return load_bytes(other)


def _volume(path: Path, header: Header, content: bytes, policy: ReadPolicy) -> Image:
    applied: list[str] = []
    remarks: list[str] = []
    shape, count = _shape(path, header, applied)
    code = int(header["datatype"])
    parts = _COLOURS.get(code, 1)
    dtype = np.dtype(np.uint8) if parts > 1 else header.get_data_dtype()
    start = _offset(path, header)
    packed = content.startswith(b"\x1f\x8b")
    available = len(content) if packed else max(len(content) - start, 0)
    refuse_bomb(
        path, (*((parts,) if parts > 1 else ()), *shape, count), dtype.itemsize, available, packed=packed
    )
    joins = policy.volume == ALL and count > 1 and parts == 1
    refuse_large(path, (count if joins else parts, *shape))
    affine = _affine(path, header, shape, applied, remarks)
    scale = None if parts > 1 else _scale(path, header, applied, remarks)
    size = math.prod(shape) * parts * dtype.itemsize
    if joins:  # the volumes follow each other: the last axis in Fortran's order
        data, extra = voxel_bytes(path, content, start, count * size)
        voxels = np.moveaxis(np.frombuffer(data, dtype).reshape((*shape, count), order="F"), -1, 0)
        applied.append(f"{count} volumes as channels")
    else:
        index = chosen_volume(path, count, policy, applied)
        data, extra = voxel_bytes(path, content, start + index * size, size)
        extra = extra if index == count - 1 else ""
        voxels = np.frombuffer(data, dtype).reshape((parts, *shape), order="F")
    if extra:
        remarks.append(extra)
    if parts == 4:
        applied.append("alpha dropped")
        voxels = voxels[:3]
    return finished(
        path, voxels, affine, policy=policy, reader="nibabel", applied=applied, remarks=remarks, scale=scale
    )


def _shape(path: Path, header: Header, applied: list[str]) -> tuple[tuple[int, int, int], int]:
    """X, Y, Z, and how many volumes follow each other."""
    axes = int(header["dim"][0])
    dims = [int(length) for length in header["dim"][1 : axes + 1]] if 1 <= axes <= 7 else []
    if not dims or min(dims) < 1:
        seen = f"dim {[int(length) for length in header['dim']]}"
        raise DataError(shown(path), seen, "1 to 7 axes, each with at least one voxel", AGAIN)
    if axes < 3:
        applied.append(f"{axes} axes read as one slice")
    if axes > 3 and math.prod(dims[3:]) == 1:
        applied.append(
            f"{axes - 3} last axis of length 1 dropped" if axes == 4 else "last axes of length 1 dropped"
        )
    x, y, z = (*dims[:3], 1, 1)[:3]
    return (x, y, z), math.prod(dims[3:])


def _offset(path: Path, header: Header) -> int:
    try:
        start = int(header.get_data_offset())
    except (ValueError, OverflowError):
        start = -1
    if not 0 <= start <= _LARGEST_OFFSET or float(header["vox_offset"]) != float(header["vox_offset"]):
        raise DataError(shown(path), f"vox_offset {header['vox_offset']}", "where the voxels begin", AGAIN)
    return start


def _scale(path: Path, header: Header, applied: list[str], remarks: list[str]) -> tuple[float, float] | None:
    """Slope and intercept; slope 0 means neither (NIfTI-1 standard, field scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return None
    if not math.isfinite(slope):
        if not (math.isnan(slope) and math.isnan(intercept)):  # both NaN: nibabel's own way to say "none"
            remarks.append(f"scl_slope {slope:g}, scl_inter {intercept:g}: not scaled")
        return None
    if not math.isfinite(intercept):
        seen = f"scl_slope {slope:g}, scl_inter {intercept:g}"
        raise DataError(shown(path), seen, "finite numbers", AGAIN)
    if (slope, intercept) == (1.0, 0.0):
        return None
    applied.append(f"rescale {slope:g} * x {'-' if intercept < 0 else '+'} {abs(intercept):g}")
    return slope, intercept


def _affine(
    path: Path, header: Header, shape: tuple[int, int, int], applied: list[str], remarks: list[str]
) -> np.ndarray:
    """The sform where its code says so, else the qform, else nibabel's guess; disagreements are remarked."""
    sform = header.get_sform(coded=True)[0]
    qform, fault = _qform(header)
    if sform is None and qform is None:
        if fault:
            raise DataError(shown(path), f"a qform that is none: {fault}", "a rotation as quaternion", AGAIN)
        remarks.append(
            "no sform and no qform: orientation unknown, taken as LAS with the origin at the centre"
        )
        affine = header.get_base_affine()
    else:
        affine = qform if sform is None else sform
    affine = np.array(affine, dtype=np.float64)
    if sform is not None and qform is not None:
        apart = largest_distance(sform, qform, shape)
        if not apart <= _CLOSE:
            both = f"sform {as_text(sform)}, qform {as_text(qform)}"
            remarks.append(f"sform and qform differ by {apart:.2f} mm at a corner; the sform is used: {both}")
    elif sform is not None:
        _remark_pixdim(header, sform, shape, remarks)
    if fault and sform is not None:
        remarks.append(f"the qform is damaged ({fault}); the sform is used")
    unit = int(header["xyzt_units"]) & 7
    if _MM.get(unit, 1.0) != 1.0:
        applied.append(f"{'metres' if unit == 1 else 'micrometres'} to mm")
        affine[:3] *= _MM[unit]
    return affine


def _qform(header: Header) -> tuple[np.ndarray | None, str]:
    """The qform where its code is set, and what is wrong with it."""
    if int(header["qform_code"]) <= 0:
        return None, ""
    numbers = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
    if not np.isfinite(numbers).all() or not (header["pixdim"][1:4] > 0).all():
        return None, f"quaternion {numbers}, pixdim {[float(each) for each in header['pixdim'][1:4]]}"
    try:
        return np.asarray(header.get_qform(), dtype=np.float64), ""
    except (ValueError, nibabel.spatialimages.HeaderDataError) as error:
        return None, " ".join(str(error).split())[:80]


def _remark_pixdim(
    header: Header, sform: np.ndarray, shape: tuple[int, int, int], remarks: list[str]
) -> None:
    """Say when voxel sizes in pixdim are not those of the sform, which is used."""
    given = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    used = np.asarray(spacing_of(sform))
    if not (np.abs(given - used) <= np.maximum(0.01 * used, _CLOSE / np.asarray(shape))).all():
        sizes = (" x ".join(f"{float(each):.4g}" for each in numbers) for numbers in (given, used))
        remarks.append("pixdim says voxels of {} mm, the sform {}; the sform is used".format(*sizes))
