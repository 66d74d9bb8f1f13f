"""Pictures in plain MONAI: DICOM of one image, PNG, JPEG, BMP and TIFF."""

from __future__ import annotations

from typing import Any

from ..bundle.schema import DataSpec
from ..data.formats.kinds import DICOM_SUFFIXES, PICTURE_SUFFIXES
from .reading_part import DATA, IS_DICOM, IS_SHOWN, LOAD, ReadingPart, joined, padding, several_files

LIMITS = (
    "DICOM is read by ITK: MONOCHROME1 is inverted, rescale slope and intercept are applied, padding is set to "
    "the lowest value, window centre and width are ignored. Two things differ from medxfer: a modality LUT, "
    "which ITK ignores, and palette colour.",
    "Pictures are read by Pillow: the EXIF orientation is applied, alpha is dropped and not blended, colour of "
    "16 bits is read as 8.",
    "Spacing is used only where the steps resample to one (`Resample` in `configs/train.yaml`); of X-ray images that "
    "state only the spacing at the detector it is that one.",
    "One image a file: a file with several frames stops the run.",
    "Pictures kept as NRRD, MHA or NIfTI are not read.",
)


def pictures(data: DataSpec) -> ReadingPart:
    """One picture a file."""
    part = ReadingPart(
        config={**_config(), **padding()},
        stored=("@read", "@pad", "@arrange"),
        transforms=(),
        imports=("PIL.ImageOps as ImageOps",),
        extras=("itk", "pillow"),
        packages=("itk", "pillow"),
        batch=8,
        files="DICOM file (with or without suffix) and every PNG, JPEG, BMP and TIFF file",
        row="a line an image with its path below DIR",
        written="png",
        endings=(*PICTURE_SUFFIXES, *DICOM_SUFFIXES),
        limits=LIMITS,
    )
    return joined(part, several_files(data))


def _config() -> dict[str, Any]:
    files = (
        "$sorted(filter(lambda path, is_shown=@is_shown, is_dicom=@is_dicom, suffixes=tuple(@picture_suffixes): "
        "is_shown(path) and (path.suffix.lower() in suffixes or is_dicom(path)), "
        "pathlib.Path(@dataset_dir).rglob('*')))"
    )
    # Pillow has turned TIFF itself; palettes become colours; alpha is dropped
    upright = (
        "$lambda picture, modes=@modes: (lambda turned: turned.convert(modes.get(turned.mode, turned.mode)))"
        "(picture if picture.format == 'TIFF' else ImageOps.exif_transpose(picture))"
    )
    # LoadImage goes on to other readers in silence when the one it was given fails, and those do not invert
    # MONOCHROME1. Given at call time, the reader is the only one.
    read = (
        "$lambda path, load=@load, dicom=@dicom_reader, picture=@picture_reader, "
        "suffixes=tuple(@picture_suffixes): "
        "load(path, reader=picture if path.lower().endswith(suffixes) else dicom)"
    )
    # mm of rows and columns: PixelSpacing, else that at the detector, else pixels
    spacing = (
        "$lambda x: next(([float(part) for part in x.meta[name].split(chr(92))] "
        "for name in ('0028|0030', '0018|1164', '0018|2010') if str(x.meta.get(name, '')).strip()), [1.0, 1.0])"
    )
    # columns, rows[, 1][, channels] -> channels, rows, columns; several frames do not fit and stop here
    arrange = (
        "$lambda x, spacing=@spacing: monai.data.MetaTensor(x.as_tensor().reshape(x.shape[0], x.shape[1], "
        "1 if x.ndim == len(x.meta['spatial_shape']) else x.shape[-1]).permute(2, 1, 0).contiguous(), "
        "affine=torch.diag(torch.tensor([*spacing(x), 1.0, 1.0], dtype=torch.float64)))"
    )
    return {
        "picture_suffixes": sorted(PICTURE_SUFFIXES),
        "dicom_suffixes": sorted(DICOM_SUFFIXES),
        "is_dicom": IS_DICOM,
        "is_shown": IS_SHOWN,
        "files": files,
        "data": DATA,
        # ITK inverts MONOCHROME1 and applies slope and intercept; MONAI's pydicom reader does not invert
        "dicom_reader": {"_target_": "ITKReader"},
        # ITK decodes colour JPEG otherwise than Pillow, reads grey PNG with alpha as zeros and ignores EXIF
        "modes": {
            "1": "L",
            "LA": "L",
            "P": "RGB",
            "PA": "RGB",
            "RGBA": "RGB",
            "RGBX": "RGB",
            "CMYK": "RGB",
            "YCbCr": "RGB",
        },
        "picture_reader": {"_target_": "PILReader", "converter": upright},
        "load": LOAD,
        "read": {"_target_": "Lambdad", "keys": "image", "func": read},
        "spacing": spacing,
        "arrange": {"_target_": "Lambdad", "keys": "image", "func": arrange},
    }
