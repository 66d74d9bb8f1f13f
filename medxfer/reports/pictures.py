"""Pictures of the best and worst cases, with the evidence laid over them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from ..files import write_atomic
from ..run_folder import RunFolder
from ..tasks.base import Highlight

GAP = 2  # voxels between the planes of a volume
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
        images: (N, C, *spatial), in [0, 1], in the order of `items`; three channels are colours, of any other
            number the first is shown. Of a volume (X, Y, Z in RAS) the planes through the strongest evidence.
        cams: Per item the evidence for `predicted` as an array or tensor (*spatial) in [0, 1]; None: a blank map.
    """
    shown: dict[str, list[dict[str, Any]]] = {"best": [], "worst": []}
    for (case, highlight), image, cam in zip(items, images, cams, strict=True):
        rank = len(shown[highlight.group]) + 1
        name = f"pictures/{highlight.group}-{rank}"
        evidence = None if cam is None else np.asarray(cam, dtype=np.float64)
        planes = planes_of(image.shape[1:], evidence)
        picture = _as_colours(planes(np.asarray(image, dtype=np.float64)))
        _write(folder, f"{name}.png", picture)
        if evidence is not None:
            _write(folder, f"{name}-cam.png", _overlaid(picture, planes(evidence[None])[0]))
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


def planes_of(shape: Sequence[int], evidence: Pixels | None) -> Callable[[Pixels], Pixels]:
    """What makes a picture (C, rows, columns) of an image (C, *shape).

    A picture stays as it is. Of a volume in RAS the axial, coronal and sagittal planes stand side by side, seen as
    radiologists see them (superior or anterior on top, the patient's right on the left), through the strongest
    evidence, or through the centre where there is none.
    """
    if len(shape) == 2:
        return lambda image: image
    middle = tuple(side // 2 for side in shape)
    place = middle if evidence is None else np.unravel_index(int(evidence.argmax()), evidence.shape)

    def side_by_side(image: Pixels) -> Pixels:
        cuts = [np.take(image, place[axis], axis=axis + 1) for axis in (2, 1, 0)]
        shown = [np.flip(cut, (1, 2)).transpose(0, 2, 1) for cut in cuts]
        height = max(one.shape[1] for one in shown)
        padded = [
            np.pad(one, ((0, 0), ((height - one.shape[1]) // 2, -(-(height - one.shape[1]) // 2)), (0, GAP)))
            for one in shown
        ]
        return np.concatenate(padded, axis=2)[:, :, :-GAP]

    return side_by_side


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
