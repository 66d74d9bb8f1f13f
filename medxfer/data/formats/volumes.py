"""What every volume file goes through once its header is understood: bytes, geometry policy, RAS, float32."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..image import Image, limit, shown
from ..policy import ALL, ReadPolicy
from .geometry import (
    SHEAR_TOLERANCE,
    as_text,
    axis_codes,
    refuse_impossible,
    shear_of,
    spacing_of,
    to_closest_ras,
    unsheared,
)

AGAIN = "export the image again, or list it in data.exclude"
_BEST_RATIO = 1100  # deflate packs at most 1032 bytes into one
_BLOCK, _PIECE = 2**18, 2**22  # bytes given to and taken from the decompressor at once
_LOOKED_AFTER = 2**20  # bytes unpacked behind the voxels to reach the checksum
_EXACT = 2**24  # whole numbers that float32 holds


def refuse_bomb(path: Path, shape: Sequence[int], itemsize: int, available: int, *, packed: bool) -> None:
    """Compare what a header promises with what the file can hold, before anything is allocated.

    Args:
        path: For messages.
        shape: Of all voxels that the file holds, components included.
        itemsize: Bytes of one number.
        available: Bytes of the file (packed), or of its voxels.
        packed: Whether those are compressed.

    Raises:
        DataError: More voxels than the file can hold.
    """
    needed = math.prod(shape) * itemsize
    if needed > available * (_BEST_RATIO if packed else 1):
        size = " x ".join(map(str, shape))
        seen = f"truncated: {available} of {needed} bytes of voxels ({size})"
        if packed:
            seen = f"{size} voxels, {needed} bytes, in a compressed file of {available} bytes"
        raise DataError(shown(path), seen, "all voxels that the header announces", AGAIN)


def refuse_large(path: Path, shape: Sequence[int]) -> None:
    """Refuse what would not fit as float32.

    Raises:
        DataError: Above MEDXFER_MAX_DECODED_BYTES.
    """
    decoded = math.prod(shape) * 4
    if decoded > limit("DECODED_BYTES"):
        seen = f"{' x '.join(map(str, shape))} voxels, {decoded / 2**30:.1f} GiB decoded"
        accepted = f"at most {limit('DECODED_BYTES') / 2**30:.1f} GiB decoded"
        raise DataError(
            shown(path), seen, accepted, "raise MEDXFER_MAX_DECODED_BYTES if the file is to be trusted"
        )


def voxel_bytes(path: Path, content: bytes, start: int, size: int) -> tuple[memoryview, str]:
    """The bytes of the voxels, unpacked up to their end and not further.

    Args:
        path: For messages.
        content: The file, plain or gzip.
        start: Where the voxels begin in the unpacked file.
        size: How many bytes they take.

    Returns:
        The bytes, and a remark on what follows them; empty when nothing does.

    Raises:
        DataError: Truncated, or the gzip file is damaged.
    """
    if not content.startswith(b"\x1f\x8b"):
        return plain_bytes(path, content, start, size)
    return packed_bytes(path, memoryview(content), start, size)


def plain_bytes(path: Path, content: bytes, start: int, size: int) -> tuple[memoryview, str]:
    """As `voxel_bytes`, of a file that is not compressed."""
    found = len(content) - start
    if found < size:
        raise DataError(
            shown(path), f"truncated: {max(found, 0)} of {size} bytes of voxels", "all voxels", AGAIN
        )
    remark = f"{found - size} bytes after the voxels left aside" if found > size else ""
    return memoryview(content)[start : start + size], remark


def packed_bytes(path: Path, packed: memoryview, start: int, size: int) -> tuple[memoryview, str]:
    """As `voxel_bytes`, of a gzip or zlib stream; its checksum is checked when its end is near."""
    voxels = bytearray(size)
    place = -start  # of the next unpacked byte among the voxels
    try:
        for piece in _unpacked(packed):
            if place + len(piece) > 0 and place < size:
                first = max(-place, 0)
                part = piece[first : size - place]
                voxels[place + first : place + first + len(part)] = part
            place += len(piece)
            if place > size + _LOOKED_AFTER:
                break
    except (EOFError, zlib.error) as error:
        seen = (
            f"truncated or damaged after {max(place, 0)} of {size} bytes of compressed voxels: {_line(error)}"
        )
        raise DataError(shown(path), seen, "a whole file", "copy the file again") from error
    if place < size:
        raise DataError(
            shown(path), f"truncated: {max(place, 0)} of {size} bytes of voxels", "all voxels", AGAIN
        )
    more = "over " if place > size + _LOOKED_AFTER else ""
    return memoryview(
        voxels
    ), f"{more}{place - size} bytes after the voxels left aside" if place > size else ""


def _unpacked(packed: memoryview) -> Iterator[bytes]:
    """Pieces of bounded size; gzip members that follow each other are one stream, as in the gzip program.

    Raises:
        EOFError: The stream has no end.
        zlib.error: It is damaged, or its checksum is wrong.
    """
    stream = zlib.decompressobj(wbits=47)  # gzip or zlib, told by its header
    for place in range(0, len(packed), _BLOCK):
        block: bytes | memoryview = packed[place : place + _BLOCK]
        while block:
            if stream.eof:
                if bytes(block[:1]) != b"\x1f":  # padding
                    return
                stream = zlib.decompressobj(wbits=47)
            yield stream.decompress(block, _PIECE)
            block = stream.unconsumed_tail or stream.unused_data
    while not stream.eof:
        piece = stream.decompress(b"", _PIECE)
        if not piece:
            raise EOFError("the compressed stream has no end")
        yield piece


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split())[:120])


def chosen_volume(path: Path, count: int, policy: ReadPolicy, applied: list[str]) -> int:
    """Which of several volumes in one file is read.

    Raises:
        DataError: Several and none chosen, or no such volume.
    """
    wanted = policy.volume
    if wanted == ALL:
        if count == 1:
            return 0
        seen = f"{count} volumes (4D), all asked for as channels"
        raise DataError(shown(path), seen, "a NIfTI file", "save it as NIfTI, or choose one: data.volume: 0")
    if wanted is not None and not 0 <= int(wanted) < count:
        seen = f"volume {wanted} asked for, {count} in the file"
        raise DataError(shown(path), seen, f"0 to {count - 1}", "correct data.volume")
    if count == 1:
        return 0
    if wanted is None:
        todo = f"choose one: data.volume: 0 (up to {count - 1}), or all as channels: data.volume: {ALL}"
        raise DataError(shown(path), f"{count} volumes (4D)", "one volume", todo)
    applied.append(f"volume {wanted} of {count} (from 0)")
    return int(wanted)


def finished(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    policy: ReadPolicy,
    reader: str,
    applied: Sequence[str],
    remarks: Sequence[str],
    scale: tuple[float, float] | None = None,
) -> Image:
    """The volume in the closest RAS axes as float32.

    Args:
        path: For messages.
        voxels: (C, X, Y, Z) as stored, any number type.
        affine: (4, 4), voxel indices to mm in RAS.
        policy: What to do with sheared axes.
        reader: Name of the library.
        applied: What was done so far.
        remarks: Warnings so far.
        scale: Slope and intercept that make stored numbers real ones.

    Raises:
        DataError: An affine that places nothing, or sheared axes under `on_geometry: stop`.
    """
    done, said = list(applied), list(remarks)
    refuse_impossible(path, affine, AGAIN)
    shear = shear_of(affine)
    sheared = shear > SHEAR_TOLERANCE
    if sheared and policy.on_geometry == "stop":
        seen = f"sheared axes, {shear:.2f} degrees off a right angle, affine {as_text(affine)}"
        todo = "set data.on_geometry: resample (onto right angles) or warn (kept as it is)"
        raise DataError(shown(path), seen, f"right angles within {SHEAR_TOLERANCE} degrees", todo)
    codes = axis_codes(affine)
    turned, affine = to_closest_ras(voxels, affine)
    array = _as_float32(turned, scale, said)
    if codes != "RAS":
        done.append(f"axes {codes} turned to RAS")
    if sheared and policy.on_geometry == "resample":
        array, affine = unsheared(array, affine)
        done.append(f"shear of {shear:.2f} degrees undone by resampling")
    if sheared:
        said.append(f"sheared axes, {shear:.2f} degrees off a right angle")
    return Image(
        array=array,
        spacing=spacing_of(affine),
        affine=affine,
        reader=reader,
        applied=tuple(done),
        warnings=tuple(said),
    )


def _as_float32(voxels: np.ndarray, scale: tuple[float, float] | None, remarks: list[str]) -> np.ndarray:
    """Real values in C order; scaled in float64, a slab at a time."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: found as infinite afterwards
        if scale is None:
            if voxels.dtype.kind in "iu" and voxels.dtype.itemsize > 2 and _rounded(voxels):
                remarks.append(f"whole numbers above {_EXACT:,} are rounded to float32")
            return np.ascontiguousarray(voxels, dtype=np.float32)
        array = np.empty(voxels.shape, dtype=np.float32)
        slope, intercept = scale
        for index in range(voxels.shape[1]):
            array[:, index] = voxels[:, index].astype(np.float64) * slope + intercept
    return array


def _rounded(voxels: np.ndarray) -> bool:
    return int(voxels.max()) > _EXACT or int(voxels.min()) < -_EXACT
