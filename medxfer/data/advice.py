"""What a person should know of the grids of images with masks before a network is trained on them."""

from __future__ import annotations

import importlib.util

import numpy as np

from ..bundle.schema import ImagesSpec
from .cache import Arrays

_UNEQUAL = 3.0  # longest side of a voxel / shortest, as in nnU-Net (Isensee et al. 2021)


def advice_on_grids(arrays: Arrays, images: ImagesSpec, *, has_dicom: bool) -> list[str]:
    """Voxels that are much longer than wide, images smaller than a patch, and masks that cannot become DICOM SEG.

    Args:
        arrays: With maps, else nothing is said.
        images: Of the bundle.
        has_dicom: Whether images are DICOM files.
    """
    if arrays.maps is None:
        return []
    found = [_unequal(arrays), _small(arrays, images)]
    if has_dicom and importlib.util.find_spec("highdicom") is None:
        found.append(
            "the package highdicom is not installed: masks of DICOM images will be NIfTI or PNG files; for DICOM SEG: "
            "pip install 'medxfer[seg]'"
        )
    return [one for one in found if one]


def _unequal(arrays: Arrays) -> str:
    """Volumes whose voxels are so long along one axis that neighbours there have little in common."""
    if arrays.affines.shape[1] != 4:
        return ""
    spacing = np.median(np.linalg.norm(arrays.affines[:, :3, :3], axis=1), axis=0)
    if spacing.max() <= _UNEQUAL * spacing.min():
        return ""
    named = " x ".join(f"{one:.3g}" for one in spacing)
    wanted = ", ".join(f"{max(one, spacing.max() / _UNEQUAL):.3g}" for one in spacing)
    return (
        f"the voxels that the network sees are {spacing.max() / spacing.min():.1f} times as long as wide ({named} mm, "
        f"median): neighbours along that axis have little in common; set images.spacing to less unequal steps, such as "
        f"[{wanted}]"
    )


def _small(arrays: Arrays, images: ImagesSpec) -> str:
    """Images that are smaller than a patch along an axis."""
    if images.patches is None:
        return ""
    size = np.array(images.shape)
    sides = np.array([one.shape[1:] for one in arrays.images])
    count = int((sides < size).any(axis=1).sum())
    if not count:
        return ""
    named, least = (" x ".join(map(str, one.tolist())) for one in (size, sides.min(axis=0)))
    return (
        f"{count} of {len(sides)} images are smaller than the patch of {named} (smallest sides {least}): padded with 0 "
        "on both sides; if it is most of them, set images.size smaller"
    )
