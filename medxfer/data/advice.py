"""What a person should know of the grids of images with masks before a network is trained on them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle.schema import ImagesSpec
from .cache import Arrays
from .masks import IGNORED
from .patches import counts_of
from .ragged import Rows

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
    # planes have no neighbours
    found = [_unequal(arrays) if images.thin is None else "", _small(arrays, images)]
    if has_dicom and importlib.util.find_spec("highdicom") is None:
        found.append(
            "the package highdicom is not installed: masks of DICOM images will be NIfTI or PNG files; for DICOM SEG: "
            "pip install 'medxfer[seg]'"
        )
    return [one for one in found if one]


def advice_on_parts(arrays: Arrays, parts: Mapping[str, Sequence[int]]) -> list[str]:
    """Classes that training masks have and those of another part lack.

    Args:
        arrays: With maps, else nothing is said.
        parts: Rows of `train`, `val` and `test`.
    """
    if arrays.maps is None:
        return []
    there = {name: _classes_in(arrays.maps, rows) for name, rows in parts.items()}
    meaning = {
        "val": "the best epoch is chosen without a look at it",
        "test": "nothing is measured of it",
    }
    said = []
    for name, what in meaning.items():
        absent = sorted(there["train"] - there.get(name, set()))
        if absent:
            numbers = (
                "no class" if not there.get(name) else f"no voxel of class {', '.join(map(str, absent))}"
            )
            said.append(f"the masks of {name} hold {numbers}: {what}; give this part more cases")
    return said


def _classes_in(maps: Rows, rows: Sequence[int]) -> set[int]:
    counts = sum((counts_of(maps[row]) for row in rows), np.zeros(IGNORED + 1, np.int64))
    return set((np.flatnonzero(counts[1:IGNORED]) + 1).tolist())


def _unequal(arrays: Arrays) -> str:
    """Volumes whose voxels are so long along one axis that neighbours there have little in common."""
    if arrays.affines.shape[1] != 4:
        return ""
    return "; ".join(unequal_steps(np.linalg.norm(arrays.affines[:, :3, :3], axis=1)))


def unequal_steps(spacings: np.ndarray) -> tuple[()] | tuple[str, str]:
    """What is wrong with voxels that are much longer than wide, and what to do; nothing where they are not.

    Args:
        spacings: (cases, 3), mm along each axis of what the network sees.
    """
    spacing = np.median(spacings, axis=0)
    if spacing.max() <= _UNEQUAL * spacing.min():
        return ()
    named = " x ".join(f"{one:.3g}" for one in spacing)
    wanted = ", ".join(f"{max(one, spacing.max() / _UNEQUAL):.3g}" for one in spacing)
    return (
        f"the voxels that the network sees are {spacing.max() / spacing.min():.1f} times as long as wide ({named} mm, "
        f"median): neighbours along that axis have little in common",
        f"set images.spacing to less unequal steps, such as [{wanted}]",
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
