"""Masks and probabilities as files on the input's own grid: NIfTI, PNG, and through `dicom_seg` DICOM SEG.

Nothing of the patient is copied but what a DICOM SEG needs to be filed beside its series: the free text of a NIfTI
header (`descrip`, `aux_file`, `db_name`, extensions) is left empty.
"""

from __future__ import annotations

import colorsys
import gzip
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import nibabel
import numpy as np

from ..errors import ConfigError
from ..files import write_atomic
from .formats.grids import SourceGrid
from .regrid import planes_on_grid

__all__ = [
    "PROBABILITIES",
    "palette",
    "volume_row",
    "write_mask",
    "write_nifti",
    "write_picture",
    "write_probabilities",
]

FORMATS = ("auto", "nifti", "seg", "png")
PROBABILITIES = {2: ".tif", 3: ".nii.gz"}  # ending of a file of them, by the grid's dimensions
_LARGEST = 32767  # voxels along an axis of NIfTI-1
_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_ZEROS = ("scl_inter", "cal_max", "cal_min", "intent_code", "intent_p1", "intent_p2", "intent_p3", "extents")


def write_mask(
    mask: np.ndarray,
    grid: SourceGrid,
    folder: Path,
    name: str,
    *,
    classes: Sequence[str],
    output: Literal["auto", "nifti", "seg", "png"] = "auto",
    model: str = "medxfer",
) -> tuple[Path, ...]:
    """Write a mask in the way its input asks for: NIfTI for volumes, DICOM SEG for DICOM, PNG for pictures.

    Args:
        mask: Of `grid.shape`, class numbers (0 background); of overlapping classes (K, *grid.shape) bool.
        grid: Of the input.
        folder: Where it goes.
        name: Of the file, without its ending.
        classes: Foreground names.
        output: Another way than the input's: `nifti` and `png` do for DICOM as well.
        model: What a DICOM SEG names as its maker.

    Returns:
        The files; overlapping classes of a picture are a PNG each.

    Raises:
        ConfigError: An output that does not fit the input.
        DataError: As `dicom_seg.write_seg`.
    """
    flat = len(grid.shape) == 2
    fitting = {"png"} if flat else {"nifti"}
    if grid.kind == "DICOM":
        fitting.add("seg")
    chosen = ("seg" if grid.kind == "DICOM" else "png" if flat else "nifti") if output == "auto" else output
    if chosen not in fitting:
        what = f"{grid.kind} {'picture' if flat else 'volume'}" if grid.kind != "picture" else "picture"
        accepted = ", ".join(sorted(fitting))
        raise ConfigError("output", f"{chosen} for a {what}", accepted, f"choose {accepted} or auto")
    if chosen == "seg":
        from .formats.dicom_seg import write_seg

        return (write_seg(mask, grid, folder / f"{name}.dcm", classes=classes, model=model),)
    if chosen == "nifti":
        return (write_nifti(mask, grid, folder / f"{name}.nii.gz"),)
    if mask.ndim == 3:
        endings = [re.sub(r"[^\w-]+", "_", one) for one in classes]
        return tuple(
            write_picture(one, folder / f"{name}_{ending}.png")
            for one, ending in zip(mask, endings, strict=True)
        )
    return (write_picture(mask, folder / f"{name}.png"),)


def write_nifti(mask: np.ndarray, grid: SourceGrid, path: Path) -> Path:
    """Write class numbers as uint8 NIfTI.

    Of a NIfTI input it has the shape, the affine with its codes, the units, and the version of the header; of another
    input the affine stands in sform and qform with code 1 (scanner).

    Args:
        mask: `grid.shape`, 0 to 255; or a stack (K, *grid.shape), which becomes K volumes, one a class.
        grid: Of a volume.
        path: `.nii.gz`, or `.nii` for a file that is not packed.

    Raises:
        ValueError: Another shape.
    """
    _require_shape(mask, grid)
    stack = mask if mask.ndim == 4 else mask[None]
    header = _header(grid, np.uint8, len(stack))

    def slices() -> Iterable[np.ndarray]:
        for volume in stack:
            for number in range(volume.shape[2]):
                yield volume[..., number].astype(np.uint8, copy=False)

    return write_atomic(path, _writing(header, slices, packed=path.name.endswith(".gz")))


def write_probabilities(probabilities: np.ndarray, affine: np.ndarray, grid: SourceGrid, path: Path) -> Path:
    """Write probabilities as float32 on the input's grid, linear in between: a volume a class, or a page a class.

    Args:
        probabilities: (K, X, Y, Z) or (K, rows, columns) on the network's grid; 0 outside of it.
        affine: `Placed.affine` of these.
        grid: Of the input.
        path: `.nii.gz` or `.nii` for a volume, `.tif` for a picture.
    """
    if len(grid.shape) == 2:
        return _write_pages(next(planes_on_grid(probabilities, affine, grid)), path)
    header = _header(grid, np.float32, len(probabilities))

    def slices() -> Iterable[np.ndarray]:
        for one in probabilities:
            for plane in planes_on_grid(one[None], affine, grid):
                yield plane[0].astype(header.get_data_dtype(), copy=False)

    return write_atomic(path, _writing(header, slices, packed=path.name.endswith(".gz")))


def _write_pages(planes: np.ndarray, path: Path) -> Path:
    """Write (K, rows, columns) float32 as a TIFF file of K pages, packed without loss."""
    from PIL import Image

    out = io.BytesIO()
    first, *others = [Image.fromarray(np.ascontiguousarray(one, dtype=np.float32)) for one in planes]
    first.save(out, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
    return write_atomic(path, out.getvalue())


def write_picture(mask: np.ndarray, path: Path) -> Path:
    """Write class numbers as an 8-bit PNG with a palette: the value of a pixel is its class, and people see colours.

    Args:
        mask: (rows, columns), 0 to 255, as the picture is displayed (its EXIF orientation applied).
        path: `.png`.
    """
    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8))
    picture.putpalette(palette())
    picture.save(out, "PNG")
    return write_atomic(path, out.getvalue())


def palette() -> list[int]:
    """Red, green, blue of the class numbers 0 to 255: black, then colours far from each other, of which none is grey.

    A mask of two greys would be read by its grey levels (`mask_file.read_mask`).
    """
    # steps of the golden ratio around the circle of hues, at three levels in turn
    colours = [colorsys.hsv_to_rgb(one * 0.618034 % 1, 0.8, 1 - 0.25 * (one % 3)) for one in range(255)]
    return [0, 0, 0, *[round(255 * part) for colour in colours for part in colour]]


def volume_row(mask: np.ndarray, grid: SourceGrid, classes: Sequence[str]) -> dict[str, float]:
    """How large each class is.

    Args:
        mask: `grid.shape`, class numbers; or a stack (K, *grid.shape) bool.
        grid: Where it lies.
        classes: Foreground names.

    Returns:
        `ml_CLASS` of a volume, `cm2_CLASS` of a picture, `pixels_CLASS` of one whose spacing is unknown.
    """
    _require_shape(mask, grid)
    if mask.ndim > len(grid.shape):
        counts = [int(np.count_nonzero(one)) for one in mask]
    else:
        counts = [int(np.count_nonzero(mask == number)) for number in range(1, len(classes) + 1)]
    unit, per_unit = ("ml", 1000.0) if len(grid.shape) == 3 else ("cm2", 100.0)
    if len(grid.shape) == 2 and np.array_equal(grid.affine, np.eye(3)):
        unit, per_unit = "pixels", 1.0
    return {
        f"{unit}_{name}": round(count * grid.voxel / per_unit, 4)
        for name, count in zip(classes, counts, strict=True)
    }


def _require_shape(mask: np.ndarray, grid: SourceGrid) -> None:
    if mask.shape[-len(grid.shape) :] != grid.shape or mask.ndim - len(grid.shape) not in (0, 1):
        raise ValueError(f"a mask of shape {mask.shape} for a grid of {grid.shape}")


def _header(grid: SourceGrid, dtype: type[np.generic], count: int) -> Any:
    """The header of the input for other numbers, or a new one."""
    if len(grid.shape) != 3:
        raise ValueError(f"NIfTI for a grid of {grid.shape}")
    if grid.kind == "NIfTI":
        header = _own_header(grid.header, grid.shape, count)
    else:
        kind: Any = nibabel.Nifti1Header if max(*grid.shape, count) <= _LARGEST else nibabel.Nifti2Header
        header = kind()
        header.set_data_shape((*grid.shape, count) if count > 1 else grid.shape)
        header.set_xyzt_units("mm", "unknown")
        header.set_sform(grid.affine, code=1)
        with_right_angles = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
        if np.allclose(with_right_angles.T @ with_right_angles, np.eye(3), atol=1e-4):
            header.set_qform(grid.affine, code=1)
        header["pixdim"][1:4] = np.linalg.norm(grid.affine[:3, :3], axis=0)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(header.endianness))
    return header


def _own_header(source: Any, shape: Sequence[int], count: int) -> Any:
    """A copy of the input's header without texts, scaling and further volumes."""
    header = source.copy()
    axes = int(header["dim"][0])
    own = [int(length) for length in header["dim"][1 : axes + 1]]
    sizes = np.array(header["pixdim"])
    if count > 1:
        header.set_data_shape((*shape, count))
    elif math.prod(own) != math.prod(shape):  # one of several volumes
        header.set_data_shape(shape)
    kept = 1 + min(axes, 3)
    header["pixdim"][:kept] = sizes[:kept]
    for name in _TEXTS:
        if name in header:
            header[name] = b""
    for name in _ZEROS:
        if name in header:
            header[name] = 0
    header["scl_slope"] = 1
    return header


def _writing(
    header: Any, slices: Callable[[], Iterable[np.ndarray]], *, packed: bool
) -> Callable[[Path], None]:
    """A function that writes the file; only one slice is held in memory."""
    is_two = header["sizeof_hdr"] == 540
    header["magic"] = b"n+2\x00\r\n\x1a\n" if is_two else b"n+1"
    header["vox_offset"] = 544 if is_two else 352

    def fill(file: BinaryIO | gzip.GzipFile) -> None:
        file.write(header.binaryblock + bytes(4))  # four bytes: no extensions
        for plane in slices():
            file.write(plane.tobytes(order="F"))

    def write(path: Path) -> None:
        with path.open("wb") as plain:
            if not packed:
                fill(plain)
                return
            with gzip.GzipFile(filename="", mode="wb", fileobj=plain, compresslevel=1, mtime=0) as file:
                fill(file)

    return write
