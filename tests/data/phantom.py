"""A hand-shaped mask: like no mirror image or turn of itself, so that a wrong axis or side shows."""

from __future__ import annotations

import numpy as np


def hand(shape: tuple[int, int, int] = (14, 11, 9)) -> np.ndarray:
    """Class numbers 0 to 3 (palm, thumb, finger tips), uint8."""
    mask = np.zeros(shape, np.uint8)
    mask[2:9, 2:6, 2:6] = 1  # palm
    mask[9:12, 2:4, 3:7] = 2  # thumb, to one side only
    for finger, length in enumerate((2, 4, 3)):
        mask[2 + 2 * finger, 6 : 6 + length, 3] = 1
        mask[2 + 2 * finger, 5 + length, 3:5] = 3
    mask[2, 2, 6:8] = 1  # a nail
    return mask


def rotation() -> np.ndarray:
    """A proper rotation aslant to all axes by less than a quarter of a turn."""
    x, y, z = np.deg2rad([11.0, -17.0, 23.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    turned: np.ndarray = about_x @ about_y @ about_z
    return turned
