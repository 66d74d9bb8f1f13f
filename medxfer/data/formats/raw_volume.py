"""Voxels behind a text header (NRRD, MetaImage): plain or deflated, in the same file or in one beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..image import Image, refuse_size, shown
from ..policy import ALL, ReadPolicy
from .content import load_bytes
from .volumes import chosen_volume, finished, packed_bytes, plain_bytes, refuse_bomb, refuse_large

_CHANNELS = 4  # so many components of a voxel are channels; more are volumes of which one is chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class RawVolume:
    """What a header says of the voxels, checked."""

    shape: tuple[int, ...]  # of all axes, fastest first
    dtype: np.dtype
    spatial: tuple[int, ...]  # which of the axes are in space: three, or two of a picture
    affine: np.ndarray | None = None  # (4, 4), indices of the spatial axes to mm in RAS; None: a picture
    spacing: tuple[float, ...] | None = None  # of a picture, in axis order
    packed: bool  # as a gzip or zlib stream
    start: int  # where the voxels begin in their file; -1: its end is theirs
    data_file: str | None  # None: behind the header
    colour: str = ""  # kind of the component axis where it is a colour
    remarks: tuple[str, ...] = ()


def decoded(path: Path, content: bytes, header: RawVolume, *, policy: ReadPolicy, reader: str) -> Image:
    """The image that a header describes.

    Args:
        path: For messages, and where a data file lies.
        content: The file of the header.
        header: What it says.
        policy: Which of several volumes, what to do with sheared axes.
        reader: Name for `Image.reader`.

    Raises:
        DataError: Truncated, a data file elsewhere, several volumes, too large.
    """
    applied: list[str] = []
    remarks = list(header.remarks)
    refuse_large(path, header.shape)
    voxels = np.frombuffer(_bytes_of(path, content, header, remarks), header.dtype)
    channels = _channels(path, voxels.reshape(header.shape, order="F"), header, policy, applied)
    if header.affine is None:
        columns, rows = channels.shape[1:]
        refuse_size(path, rows, columns, len(channels))
        array = np.ascontiguousarray(channels.transpose(0, 2, 1), dtype=np.float32)
        spacing = None if header.spacing is None else (header.spacing[1], header.spacing[0])
        return Image(
            array=array, spacing=spacing, reader=reader, applied=tuple(applied), warnings=tuple(remarks)
        )
    return finished(
        path, channels, header.affine, policy=policy, reader=reader, applied=applied, remarks=remarks
    )


def _channels(
    path: Path, voxels: np.ndarray, header: RawVolume, policy: ReadPolicy, applied: list[str]
) -> np.ndarray:
    """Component axes first and as one: channels, or the volume that was chosen."""
    others = [axis for axis in range(voxels.ndim) if axis not in header.spatial]
    count = math.prod(voxels.shape[axis] for axis in others)
    voxels = voxels.transpose(*others, *header.spatial).reshape(
        count, *(voxels.shape[i] for i in header.spatial)
    )
    if header.colour and count in (3, 4):
        if count == 4:
            applied.append("alpha dropped")
        return voxels[:3]
    if others == [0] and 1 < count <= _CHANNELS and policy.volume in (None, ALL):
        applied.append(f"{count} components as channels")
        return voxels
    if others and count == 1:
        applied.append("axis of length 1 dropped")
    index = chosen_volume(path, count, policy, applied)
    return voxels[index : index + 1]


def _bytes_of(path: Path, content: bytes, header: RawVolume, remarks: list[str]) -> memoryview:
    if header.data_file is not None:
        path = _beside(path, header.data_file)
        content = load_bytes(path)
    size = math.prod(header.shape) * header.dtype.itemsize
    start = header.start if header.start >= 0 else max(len(content) - size, 0)
    available = max(len(content) - start, 0)
    refuse_bomb(path, header.shape, header.dtype.itemsize, available, packed=header.packed)
    if header.packed:
        data, extra = packed_bytes(path, memoryview(content)[start:], 0, size)
    else:
        data, extra = plain_bytes(path, content, start, size)
    if extra:
        remarks.append(extra)
    return data


def _beside(path: Path, name: str) -> Path:
    """A data file that a header names: in the header's own folder or below it, nowhere else."""
    parts = Path(name).parts
    elsewhere = Path(name).is_absolute() or ".." in parts or "://" in name or "\\" in name or "\0" in name
    if not elsewhere:
        folder = path.parent.resolve()
        try:
            elsewhere = not (folder / name).resolve().is_relative_to(folder)
        except (OSError, RuntimeError):  # a name too long, a loop of links
            elsewhere = True
    if elsewhere:
        todo = "put the data file beside the header, and name it alone"
        raise DataError(
            shown(path), f"data file {shown(name)[:120]!r}", "a file in the header's own folder", todo
        )
    if name.upper().startswith("LIST") or "%" in name:
        todo = "save it with one data file"
        raise DataError(shown(path), f"voxels in several files ({shown(name)[:60]})", "one data file", todo)
    return path.parent / name
