"""One way to read images in MONAI: its configuration, what it needs, and what its guide says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..bundle.schema import DataSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPart:
    """From files below a folder to what steps work on.

    Attributes:
        config: Entries of `inference.yaml`; among them `files`, a sorted list of paths, and `data`, an item for each
            with `image` (path) and `file` (its name in the answer).
        stored: From such an item to `image` as MetaTensor (C, *spatial) with its affine, as the file stores it; three
            axes and mm in RAS for volumes, rows and columns and mm down and right for pictures.
        transforms: From there to what steps ask for.
        limits: Where it differs from medxfer: sentences for the guide.
        imports: Python modules that the texts name, beside os, pathlib, sys, monai, numpy and torch.
        extras: Of the package monai.
        packages: Beside those of every bundle.
        batch: Items that the network gets at once.
        files: What is read, in words.
        row: What a line of the answer is for, in words.
        written: Kind of file for a mask on the grid of what is read, a key of `answering_masks.WRITINGS`; None: what is
            read are parts of files.
        endings: Of names of files.
    """

    config: Mapping[str, Any]
    stored: tuple[str, ...] = ()
    transforms: tuple[str, ...]
    limits: tuple[str, ...]
    imports: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    batch: int = 1
    files: str = ""
    row: str = ""
    written: Literal["nifti", "png"] | None = None
    endings: tuple[str, ...] = ()


def padding() -> dict[str, Any]:
    """Voxels outside a DICOM image get its lowest real value, which ITK leaves to others."""
    # a stored value, gone the way on which ITK took the pixels: inversion of MONOCHROME1, slope, intercept
    real = (
        "$lambda x, value, number=@number: "
        "((-1 if number(x, '0028|0103', 0) else 2 ** number(x, '0028|0101', 0) - 1) - value "
        "if x.meta.get('0028|0004', '').strip() == 'MONOCHROME1' else value) "
        "* number(x, '0028|1053', 1) + number(x, '0028|1052', 0)"
    )
    # PixelPaddingValue to PixelPaddingRangeLimit
    limits = (
        "$lambda x, real=@real, number=@number: sorted((real(x, number(x, '0028|0120', 0)), "
        "real(x, number(x, '0028|0121', x.meta['0028|0120']))))"
    )
    outside = (
        "$lambda x, limits=@limits: (lambda low, high: (x >= low - 1e-3) & (x <= high + 1e-3))(*limits(x))"
    )
    filled = "$lambda x, mask: torch.where(mask, x[~mask].min(), x) if mask.any() and not mask.all() else x"
    pad = "$lambda x, filled=@filled, outside=@outside: filled(x, outside(x)) if '0028|0120' in x.meta else x"
    return {
        "number": "$lambda x, name, default: float(x.meta.get(name, default))",
        "real": real,
        "limits": limits,
        "outside": outside,
        "filled": filled,
        "pad": {"_target_": "Lambdad", "keys": "image", "func": pad},
    }


def several_files(data: DataSpec) -> ReadingPart | None:
    """Cases whose files are channels: their place in a bundle that takes one file a case.

    One file of them would else be repeated as all channels.
    """
    count = len(data.images or ())
    if count < 2:
        return None
    names = ", ".join(data.images or ())
    text = (
        f"{count} files of a case are channels of this network ({names}): give one file with {count} channels"
    )
    gate = f"$lambda x: x if x.shape[0] >= {count} else sys.exit({text!r})"
    return ReadingPart(
        config={"complete": {"_target_": "Lambdad", "keys": "image", "func": gate}},
        transforms=("@complete",),
        limits=(
            f"{text[0].upper()}{text[1:]} (of NIfTI files {count} volumes). Others stop the run. `medxfer predict "
            "THIS_FOLDER --data TABLE.csv` joins the files that each row names in these columns.",
        ),
    )


def joined(part: ReadingPart, other: ReadingPart | None) -> ReadingPart:
    """A part with what another adds to its configuration, transforms and limits."""
    if other is None:
        return part
    return dataclasses.replace(
        part,
        config={**part.config, **other.config},
        transforms=(*part.transforms, *other.transforms),
        limits=(*part.limits, *other.limits),
    )


# ITK finds DICOM by content; so do these texts, for names without an ending or with the end of a UID.
IS_DICOM = (
    "$lambda path, suffixes=tuple(@dicom_suffixes): path.suffix.lower() in suffixes "
    "or ((not path.suffix or path.suffix[1:].isdigit()) and path.name.upper() != 'DICOMDIR' "
    "and numpy.fromfile(path, 'uint8', 132)[128:].tobytes() == b'DICM')"
)
# Hidden files are the shadows that other systems leave.
IS_SHOWN = (
    "$lambda path, root=@dataset_dir: path.is_file() and not any("
    "part.startswith(('.', '__MACOSX')) for part in path.relative_to(root).parts)"
)
DATA = (
    "$list(map(lambda path, root=@dataset_dir: {'image': str(path), "
    "'file': path.relative_to(root).as_posix()}, @files))"
)
LOAD = {"_target_": "LoadImage", "image_only": True, "dtype": "$numpy.float32"}
