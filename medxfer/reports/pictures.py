"""Pictures of the best and worst cases, with the evidence laid over them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from ..files import write_atomic
from ..run_folder import RunFolder
from ..tasks.base import Highlight

SIDE = 256  # pixels: what is smaller is enlarged, so that a browser does not smear it
_STRONGEST = 0.55  # opacity of the overlay where the evidence is strongest

Pixels = NDArray[np.floating]


def save_pictures(
    folder: RunFolder,
    items: Sequence[tuple[str, Highlight]],
    images: Pixels,
    cams: Sequence[Any],
) -> None:
    """Write pictures/*.png and cases.json.

    Files are named by rank, not by case: a case id may hold a folder or a patient's number.

    Args:
        folder: The run.
        items: Case id, and what was said of it.
        images: (N, C, H, W), in [0, 1], in the order of `items`; three channels are colours, of any other
            number the first is shown.
        cams: Per item the evidence for `predicted` as an array or tensor (H, W) in [0, 1]; None: a blank map.
    """
    shown: dict[str, list[dict[str, Any]]] = {"best": [], "worst": []}
    for (case, highlight), image, cam in zip(items, images, cams, strict=True):
        rank = len(shown[highlight.group]) + 1
        name = f"pictures/{highlight.group}-{rank}"
        picture = _as_colours(np.asarray(image, dtype=np.float64))
        _write(folder, f"{name}.png", picture)
        if cam is not None:
            _write(folder, f"{name}-cam.png", _overlaid(picture, np.asarray(cam, dtype=np.float64)))
        shown[highlight.group].append(
            {
                "case": case,
                "label": highlight.label,
                "predicted": highlight.predicted,
                "probability": round(float(highlight.probability), 6),
                "picture": f"{name}.png",
                "cam": None if cam is None else f"{name}-cam.png",
            }
        )
    folder.write("cases.json", shown)


def _as_colours(image: Pixels) -> Pixels:
    """(C, H, W) to (H, W, 3)."""
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.clip(np.moveaxis(channels, 0, -1), 0.0, 1.0)


def _overlaid(picture: Pixels, cam: Pixels) -> Pixels:
    """Evidence in colour over the grey picture; where there is none, the picture shows unchanged."""
    evidence = np.clip(cam, 0.0, 1.0)
    colours = colormaps["inferno"](0.25 + 0.65 * evidence)[..., :3]  # neither its black nor its white
    opacity = (_STRONGEST * np.sqrt(evidence))[..., None]
    return np.asarray(picture * (1 - opacity) + colours * opacity)


def _write(folder: RunFolder, name: str, picture: Pixels) -> None:
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    factor = -(-SIDE // max(image.size))  # rounded up
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    write_atomic(folder.root / name, out.getvalue())
