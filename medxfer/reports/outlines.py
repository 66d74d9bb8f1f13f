"""Lines about regions, thin and crisp, to be seen on dark and on bright images and by colour-blind readers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

# Blue and orange differ for every kind of colour vision; the classes are shades of both.
SHADES = {
    "true": ("#3fa0ff", "#a5dcff", "#2268d8", "#45d6dc"),
    "predicted": ("#ff8c1a", "#ffd84d", "#e0440e", "#ffb8a0"),
}
# A thin line inside a wide one: both show where prediction and truth agree.
WIDTHS = {"true": 4.6, "predicted": 2.2}
_HALO = 0.8  # pixels of black on each side of a line, against bright ground
_HALO_OPACITY = 0.6
_FINER = 3  # lines are drawn on so many times the pixels, then averaged


def colour_of(kind: str, number: int) -> str:
    """Colour of a class by its number, as `#rrggbb`."""
    shades = SHADES[kind]
    return shades[number % len(shades)]


class LineDrawing:
    """A picture that lines are laid over; true ones first, whatever the order they come in.

    Args:
        picture: (H, W, 3), enlarged already.
    """

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        self._picture = picture
        self._lines: list[tuple[str, str, list[NDArray[np.float64]]]] = []

    def add(self, mask: NDArray[np.bool_], kind: str, colour: str) -> None:
        """Note the border of a region.

        Args:
            mask: (rows, columns) of the picture before it was enlarged.
            kind: `true` or `predicted`.
            colour: As `#rrggbb`.
        """
        if mask.any():
            height, width = self._picture.shape[:2]
            scale = np.array([height / mask.shape[0], width / mask.shape[1]])
            self._lines.append((kind, colour, [_FINER * scale * (one + 0.5) for one in borders_of(mask)]))

    def finished(self) -> NDArray[np.uint8]:
        """The picture with all lines, (H, W, 3)."""
        mixed = self._picture.astype(np.float64)
        for kind, _, paths in self._lines:  # before any line: no halo may cover another line
            mixed *= 1 - _HALO_OPACITY * self._covered(paths, WIDTHS[kind] + 2 * _HALO)
        for kind, colour, paths in sorted(self._lines, key=lambda line: -WIDTHS[line[0]]):
            cover = self._covered(paths, WIDTHS[kind])
            mixed = mixed * (1 - cover) + np.array(ImageColor.getrgb(colour)) * cover
        return np.clip(mixed.round(), 0, 255).astype(np.uint8)

    def _covered(self, paths: list[NDArray[np.float64]], width: float) -> NDArray[np.float64]:
        """Share of each pixel that lines cover, (H, W, 1)."""
        height, columns = self._picture.shape[:2]
        finer = Image.new("L", (columns * _FINER, height * _FINER))
        draw = ImageDraw.Draw(finer)
        for path in paths:
            points = [(float(x), float(y)) for y, x in path]
            draw.line(points, fill=255, width=round(width * _FINER), joint="curve")
        return np.asarray(finer.reduce(_FINER), dtype=np.float64)[..., None] / 255


def borders_of(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed paths (points, 2) of row and column between the pixels inside and outside of a region.

    Pixel centres are whole numbers; regions at the edge of the picture are closed along it.
    """
    from skimage.measure import find_contours

    paths = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    return [path - 1.0 for path in paths]
