"""Planes of volumes as pictures, and pictures as planes again: one orientation for slices and thin patches."""

from __future__ import annotations

from torch import Tensor


def as_picture(plane: Tensor) -> Tensor:
    """(..., first, second) of RAS axes to (..., rows, columns), a view of a copy.

    The second axis runs down, the first from right to left: rows from superior (or anterior, in axial planes) down,
    columns from the patient's right to left, as radiologists see them; in sagittal planes from anterior to posterior.
    """
    return plane.flip(-2, -1).transpose(-2, -1)


def picture_of(volume: Tensor, thin: int) -> Tensor:
    """A volume one voxel thick to a picture.

    Args:
        volume: (..., X, Y, Z).
        thin: The axis with one voxel, 0 to 2.

    Returns:
        (..., rows, columns).
    """
    return as_picture(volume.squeeze(thin - 3))


def volume_of(picture: Tensor, thin: int) -> Tensor:
    """What `picture_of` was given."""
    return picture.transpose(-2, -1).flip(-2, -1).unsqueeze(thin - 3)
