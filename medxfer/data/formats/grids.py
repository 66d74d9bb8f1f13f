"""The grid on which a file itself stores its voxels: where predictions go back to."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import DataError
from ..image import Image, shown
from ..policy import STRICT, ReadPolicy
from ..readers import read_image
from .content import ACCEPTED, AGAIN, load_bytes
from .dicom_header import Header
from .geometry import lps_to_ras
from .kinds import kind_of

if TYPE_CHECKING:  # pydicom is imported only where there is DICOM
    from ..series import Series

_START = 2**20  # bytes in which a text header ends


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceGrid:
    """Shape and place of the voxels as a file stores them, before any turn of a reader.

    Attributes:
        path: The file, or the folder of a series.
        kind: What it is.
        shape: X, Y, Z as stored; of a DICOM series columns, rows, slices by position; of a picture rows, columns.
        affine: (4, 4), these indices to mm in RAS; of a picture (3, 3), to mm (pixels where the spacing is unknown)
            down and right.
        origins: (slices, 3), mm in RAS of the first voxel of each slice where the reader evened out their steps.
        header: Of a NIfTI file, as nibabel holds it.
        images: Of DICOM: a header for each slice, in the grid's order.
    """

    path: Path
    kind: Literal["NIfTI", "DICOM", "NRRD", "MetaImage", "picture"]
    shape: tuple[int, ...]
    affine: np.ndarray
    origins: np.ndarray | None = None
    header: Any = field(default=None, repr=False)
    images: tuple[Header, ...] = field(default=(), repr=False)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Mm along each axis; None of a picture whose spacing is unknown."""
        if len(self.shape) == 2 and np.array_equal(self.affine, np.eye(3)):
            return None
        return tuple(np.linalg.norm(self.affine[:-1, :-1], axis=0).tolist())

    @property
    def voxel(self) -> float:
        """Size of a voxel in mm3, the mean where steps are uneven; of a picture mm2, 1 where its spacing is unknown."""
        return abs(float(np.linalg.det(self.affine[:-1, :-1])))


def source_grid(path: Path, *, policy: ReadPolicy = STRICT) -> SourceGrid:
    """The grid of a file or series, from headers; pictures are read whole.

    Args:
        path: As `read_image` takes it.
        policy: As it was read with: which series of a folder, what was done to uneven slices.

    Raises:
        DataError: As `read_image`, as far as headers tell.
    """
    path = Path(path)
    if path.is_dir():
        from ..series import choose_series, find_series, stack_of_series

        return _of_dicom(path, stack_of_series(choose_series(find_series(path), policy), policy), policy)
    if path.name.lower().endswith((".img", ".img.gz")):
        return _of_nifti(path)
    with_start = _start_of(path)
    kind = kind_of(with_start)
    if kind == "NIfTI":
        return _of_nifti(path)
    if kind == "DICOM":
        from .dicom_frames import stack_of_file

        return _of_dicom(path, stack_of_file(path, load_bytes(path), policy=policy), policy)
    if kind == "NRRD":
        from .nrrd import nrrd_header

        header = nrrd_header(path, with_start)
    elif kind == "MetaImage":
        from .metaimage import metaimage_header

        header = metaimage_header(path, with_start)
    else:
        return _of_picture(path, read_image(path, policy=policy))
    if header.affine is None:
        return _of_picture(path, read_image(path, policy=policy))
    shape = tuple(header.shape[axis] for axis in header.spatial)
    return SourceGrid(
        path=path,
        kind="NRRD" if kind == "NRRD" else "MetaImage",
        shape=shape,
        affine=np.asarray(header.affine, dtype=np.float64),
    )


def grid_of_series(series: Series, policy: ReadPolicy = STRICT) -> SourceGrid:
    """The grid of one of several series of a folder, by its headers.

    Raises:
        DataError: As `read_series`.
    """
    from ..series import stack_of_series

    return _of_dicom(series.files[0].parent, stack_of_series(series, policy), policy)


def _start_of(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise DataError(shown(path), "a pipe, socket or device", "a file", "name an image file")
        with path.open("rb") as file:
            return file.read(_START)
    except OSError as error:
        seen = f"cannot be read: {error.strerror or error}"
        raise DataError(shown(path), seen, ACCEPTED, AGAIN) from None


def _of_nifti(path: Path) -> SourceGrid:
    from .nifti import nifti_grid

    shape, affine, header = nifti_grid(path)
    return SourceGrid(path=path, kind="NIfTI", shape=shape, affine=affine, header=header)


def _of_picture(path: Path, image: Image) -> SourceGrid:
    spacing = image.spacing or (1.0, 1.0)
    return SourceGrid(
        path=path, kind="picture", shape=image.array.shape[1:], affine=np.diag([*map(float, spacing), 1.0])
    )


def _of_dicom(path: Path, found: Any, policy: ReadPolicy) -> SourceGrid:
    """Of slices in order, or of the header of a single picture."""
    images = (found,) if isinstance(found, Header) else found.images
    first = images[0]
    if len(images) == 1:
        picture = _of_picture(path, read_image(path, policy=policy))
        return SourceGrid(
            path=path, kind="DICOM", shape=picture.shape, affine=picture.affine, images=tuple(images)
        )
    origins = None
    if found.is_uneven:
        places = np.array([image.position for image in images], dtype=np.float64)
        origins = places @ lps_to_ras(np.eye(4))[:3, :3].T
    return SourceGrid(
        path=path,
        kind="DICOM",
        shape=(first.columns, first.rows, len(images)),
        affine=np.asarray(found.affine, dtype=np.float64),
        origins=origins,
        images=tuple(images),
    )
