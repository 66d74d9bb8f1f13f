"""Pixels of checked slices to one float32 volume in the closest RAS axes, each byte of a file read once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..image import Image, heard, refuse_size, shown
from .broken import refuse_broken, remarks_by_file
from .content import load_bytes
from .dicom import PADDED, Frame, decode_frames, parse_dicom, read_dicom, rescale_text
from .dicom_header import Header, bytes_after
from .geometry import axis_codes, picture_affine, spacing_of, to_closest_ras, unsheared
from .series_gate import Stack
from .series_volumes import name_of
from .stored_pixels import load_stored, raw_frame

_EXACT = 2**23  # whole numbers below it, and their sums with such an intercept, are exact in float32
_LARGEST = 3e38  # of float32
_GAP = 32  # numbers between the lines of a tile: lines a power of two apart would share places in the processor's cache
_AGAIN = "copy or export the files again"


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """A parser given hostile bytes may raise anything; the file is at fault, not the program.

    Raises:
        DataError: Whatever was raised inside, with the path.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        seen = "not enough memory to decode it"
        raise DataError(shown(path), seen, "less", "free some memory, or make it smaller") from None
    except Exception as error:
        seen = f"damaged DICOM: {type(error).__name__}: {shown(' '.join(str(error).split()))[:160]}"
        raise DataError(shown(path), seen, "whole DICOM files", _AGAIN) from error


def read_stack(stack: Stack, content: bytes | None = None) -> Image:
    """Read the pixels of checked slices.

    Args:
        stack: Slices in order.
        content: The file, where all slices are frames of one that is already read.

    Returns:
        A volume (C, X, Y, Z); a single slice is a picture (C, rows, columns).

    Raises:
        DataError: Too large, truncated, changed meanwhile, or pixels that cannot be decoded.
    """
    first = stack.images[0]
    if len(stack.images) == 1:
        return _picture(stack, content)
    refuse_size(first.path, first.rows, first.columns, first.samples, frames=len(stack.images))
    applied = list(stack.applied)
    warnings = list(stack.warnings)
    kinds = {image.stored for image in stack.images}
    if len(kinds) == 1 and first.stored is not None:
        volume = _copied(stack, first.stored, content, applied, warnings)
    else:
        volume = _decoded(stack, content, applied, warnings)
    codes = axis_codes(stack.affine)
    shape = (1, first.columns, first.rows, len(stack.images))
    affine = to_closest_ras(np.broadcast_to(np.float32(0), shape), stack.affine)[1]
    if codes != "RAS":
        applied.append(f"{codes} turned to RAS")
    if stack.is_uneven:
        volume, affine = _even(volume, affine, stack)
        applied.append("slices put on an even grid (linear)")
    if stack.is_sheared:
        volume, affine = unsheared(volume, affine)
        applied.append("tilt undone (linear)")
    return Image(
        array=volume,
        spacing=spacing_of(affine),
        affine=affine,
        reader="pydicom",
        applied=tuple(applied),
        warnings=tuple(warnings),
    )


def _picture(stack: Stack, content: bytes | None) -> Image:
    """One slice is no volume: (C, rows, columns) as displayed."""
    only = stack.images[0]
    image = read_dicom(
        only.path, content or load_bytes(only.path), frame=only.frame if only.frames > 1 else None
    )
    return dataclasses.replace(
        image,
        affine=picture_affine(only.position, only.orientation, image.spacing),
        applied=(*stack.applied, *image.applied),
        warnings=(*stack.warnings, *image.warnings),
    )


def workers() -> int:
    """Threads that reading uses."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _copied(
    stack: Stack, kind: np.dtype[Any], content: bytes | None, applied: list[str], warnings: list[str]
) -> np.ndarray:
    """Slices whose stored values lie in the files as they are."""
    first = stack.images[0]
    stored = np.empty((len(stack.images), first.rows, first.columns), kind)
    extras: dict[str, str] = {}
    faults: dict[int, DataError] = {}

    def load(index: int) -> tuple[int, int, float | None]:
        image, into = stack.images[index], stored[index]
        if content is not None:
            into[...] = raw_frame(image, content)
        else:
            try:
                if extra := load_stored(image, into):
                    extras[name_of(image)] = extra
            except DataError as error:
                faults[index] = error
                return 0, 0, None
        low, high = _unused_bits_cleared(into, image.bits)
        return low, high, _lowest_beside_padding(image, into, low, high)

    with ThreadPoolExecutor(workers()) as pool:
        found = list(pool.map(load, range(len(stack.images))))
        refuse_broken(
            first.path.parent, [(stack.images[index].path, faults[index]) for index in sorted(faults)]
        )
        warnings += remarks_by_file(extras)
        slopes = np.array([image.slope for image in stack.images])
        intercepts = np.array([image.intercept for image in stack.images])
        fill = _fill_of(stack.images, found)
        if fill is not None:
            applied.append(PADDED)
        largest = max(max(abs(low), abs(high)) for low, high, _ in found)
        _refuse_overflow(stack, float(largest))
        is_plain = bool((slopes == 1).all() and (intercepts == np.rint(intercepts)).all())
        is_exact = is_plain and largest < _EXACT and float(np.abs(intercepts).max()) < _EXACT
        if len({*slopes}) > 1 or len({*intercepts}) > 1:
            applied.append("rescale by each slice's own slope and intercept")
        elif slopes[0] != 1 or intercepts[0] != 0:
            applied.append(rescale_text(float(slopes[0]), float(intercepts[0])))
        return _turned(stack, stored, slopes, intercepts, fill, pool, is_exact=is_exact)[None]


def _refuse_overflow(stack: Stack, largest: float) -> None:
    """Slopes and intercepts that lead beyond float32."""
    for image in stack.images:
        if abs(image.slope) * largest + abs(image.intercept) > _LARGEST:
            seen = f"RescaleSlope {image.slope:g}, RescaleIntercept {image.intercept:g}"
            raise DataError(shown(image.path), seen, "values below 3e38", "export the series again")


def _unused_bits_cleared(stored: np.ndarray, bits: int) -> tuple[int, int]:
    """Clear what lies above the stored bits, in place; the least and the largest value."""
    low, high = int(stored.min()), int(stored.max())
    spare = stored.dtype.itemsize * 8 - bits
    signed = stored.dtype.kind == "i"
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if spare and (low < least or high > most):
        np.left_shift(stored, spare, out=stored)
        np.right_shift(stored, spare, out=stored)
        low, high = int(stored.min()), int(stored.max())
    return low, high


def _lowest(image: Header, low: float, high: float) -> float:
    return min(low * image.slope, high * image.slope) + image.intercept


def _lowest_beside_padding(image: Header, stored: np.ndarray, low: int, high: int) -> float | None:
    """The lowest real value outside of the padding; infinite where all is padding, None where there is none."""
    if image.padding is None or image.padding[1] < low or image.padding[0] > high:
        return None
    inside = (stored < image.padding[0]) | (stored > image.padding[1])
    if inside.all():
        return None
    rest = stored[inside]
    return _lowest(image, int(rest.min()), int(rest.max())) if rest.size else float("inf")


def _fill_of(images: Sequence[Header], found: Sequence[tuple[int, int, float | None]]) -> float | None:
    """The lowest real value, where any slice has padding."""
    if all(lowest is None for *_, lowest in found):
        return None
    each = zip(images, found, strict=True)
    lowest = min(_lowest(image, low, high) if real is None else real for image, (low, high, real) in each)
    return lowest if np.isfinite(lowest) else None


def _turned(
    stack: Stack,
    stored: np.ndarray,
    slopes: np.ndarray,
    intercepts: np.ndarray,
    fill: float | None,
    pool: ThreadPoolExecutor,
    *,
    is_exact: bool,
) -> np.ndarray:
    """Stored (slice, row, column) to real values (X, Y, Z), contiguous.

    Plane by plane, small enough for the processor's cache: whole numbers are turned first, since they are half as
    large, then rescaled straight to their place.
    """
    source = _in_ras(stored, stack.affine)
    out: np.ndarray = np.empty(source.shape, np.float32)
    slices, columns = _axis_of(stack.affine, 2), _axis_of(stack.affine, 0)
    along = (
        slices if columns == 2 else 1 - columns
    )  # neither the last axis nor, where it can be, that of the columns
    other = 1 - along
    tables = [slopes, intercepts, *_padding_of(stack.images)]
    sign = 1 if axis_codes(stack.affine)[2] in "RAS" else -1
    shape = [-1 if axis == slices else 1 for axis in range(3)]
    shaped = [table[::sign].reshape(shape) for table in tables]

    def convert(indices: range) -> None:
        loose = np.empty((out.shape[2], out.shape[other] + _GAP), stored.dtype)[:, : out.shape[other]]
        tile = np.empty((out.shape[other], out.shape[2]), stored.dtype)
        for index in indices:
            loose[...] = _plane(source, along, index).T
            tile[...] = loose.T
            target = _plane(out, along, index)
            slope, intercept, first, last = (_plane(table, along, index) for table in shaped)
            if is_exact:
                np.add(tile, intercept.astype(np.float32), out=target, dtype=np.float32, casting="unsafe")
            else:
                target[...] = tile.astype(np.float64) * slope + intercept
            if fill is not None:
                target[(tile >= first) & (tile <= last)] = fill

    size = out.shape[along]
    step = max(1, size // (4 * workers()))
    list(pool.map(convert, [range(start, min(start + step, size)) for start in range(0, size, step)]))
    return out


def _plane(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    index = min(index, array.shape[axis] - 1)  # one number for all planes
    return array[index] if axis == 0 else array[:, index]


def _padding_of(images: Sequence[Header]) -> list[np.ndarray]:
    """First and last padding value of each slice; an empty range where it has none."""
    pairs = np.array([image.padding or (1, 0) for image in images], dtype=np.float64)
    return [pairs[:, 0], pairs[:, 1]]


def _in_ras(native: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A view of (slice, row, column) as (X, Y, Z)."""
    turned: np.ndarray = to_closest_ras(native.transpose(2, 1, 0)[None], affine)[0][0]
    return turned


def _axis_of(affine: np.ndarray, native: int) -> int:
    """Which of X, Y, Z the columns (0), rows (1) or slices (2) follow."""
    letter = axis_codes(affine)[native]
    return next(axis for axis, names in enumerate(("RL", "AP", "SI")) if letter in names)


def _decoded(stack: Stack, content: bytes | None, applied: list[str], warnings: list[str]) -> np.ndarray:
    """Slices that have to be decoded: compressed, tables, colours, MONOCHROME1, floats."""
    first = stack.images[0]
    by_file = [
        (path, [index for index, _ in group])
        for path, group in groupby(
            sorted(enumerate(stack.images), key=lambda pair: (pair[1].path.as_posix(), pair[1].frame)),
            key=lambda pair: pair[1].path,
        )
    ]

    extras: dict[str, str] = {}
    faults: list[tuple[Path, DataError]] = []

    def decode(job: tuple[Path, list[int]]) -> list[tuple[int, Frame]]:
        path, indices = job
        wanted = [stack.images[index].frame for index in indices]
        try:
            with damage_named(path), heard():
                loaded = content or load_bytes(path)
                frames = decode_frames(path, parse_dicom(path, loaded), wanted if first.frames > 1 else None)
        except DataError as error:
            faults.append((path, error))
            return []
        if content is None and (extra := bytes_after(stack.images[indices[0]], loaded)):
            extras[name_of(stack.images[indices[0]])] = extra
        return list(zip(indices, frames, strict=True))

    native: np.ndarray | None = None
    padding: list[tuple[int, np.ndarray]] = []
    done: dict[str, None] = {}
    said: dict[str, None] = {}
    with ThreadPoolExecutor(workers()) as pool:
        for pairs in pool.map(decode, by_file):
            for index, frame in pairs:
                if native is None:
                    native = np.empty((len(stack.images), *frame.values.shape), np.float32)
                if frame.values.shape != native.shape[1:]:
                    sizes = f"{frame.values.shape}, others to {native.shape[1:]}"
                    seen = f"{name_of(stack.images[index])} decodes to {sizes}"
                    raise DataError(shown(first.path.parent), seen, "slices of one size", _AGAIN)
                native[index] = frame.values
                if frame.padding is not None:
                    padding.append((index, frame.padding))
                done.update(dict.fromkeys(frame.applied))
                said.update(dict.fromkeys(frame.warnings))
    refuse_broken(first.path.parent, sorted(faults, key=lambda fault: fault[0].as_posix()))
    warnings += remarks_by_file(extras)
    assert native is not None
    if padding:
        _fill_padding(native, padding)
        done[PADDED] = None
    rescales = [text for text in done if text.startswith("rescale ")]
    if len(rescales) > 1:
        done = {text: None for text in done if text not in rescales}
        done["rescale by each slice's own slope and intercept"] = None
    applied += done
    warnings += said
    turned = [_in_ras(native[:, channel], stack.affine) for channel in range(native.shape[1])]
    return np.stack(turned)


def _fill_padding(native: np.ndarray, padding: list[tuple[int, np.ndarray]]) -> None:
    """Padding to the lowest real value of the volume, in place."""
    outside = np.zeros((native.shape[0], *native.shape[2:]), dtype=bool)
    for index, mask in padding:
        outside[index] = mask
    real = native[:, 0][~outside]
    if real.size:
        native[:, 0][outside] = real.min()


def _even(volume: np.ndarray, affine: np.ndarray, stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Slices put on an even grid from the first to the last position, by the median step; linear in between."""
    distances = stack.distances
    span = float(distances[-1])
    count = max(2, round(span / float(np.sort(np.diff(distances))[(len(distances) - 2) // 2])) + 1)
    first = stack.images[0]
    refuse_size(first.path, first.rows, first.columns, volume.shape[0], frames=count)
    axis = _axis_of(stack.affine, 2)
    is_turned = axis_codes(stack.affine)[2] not in "RAS"
    places = (span - distances)[::-1] if is_turned else distances
    grid = np.linspace(0, span, count)
    upper = np.clip(np.searchsorted(places, grid, side="right"), 1, len(places) - 1)
    share = (grid - places[upper - 1]) / (places[upper] - places[upper - 1])
    weights = share.astype(np.float32).reshape([-1 if one == axis + 1 else 1 for one in range(4)])
    low, high = (np.take(volume, index, axis=axis + 1) for index in (upper - 1, upper))
    even = affine.copy()
    even[:3, axis] *= (len(distances) - 1) / (count - 1)
    return low + (high - low) * weights, even
