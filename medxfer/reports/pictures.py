"""Pictures of single cases: the image, the evidence laid over it, or lines about true and predicted regions."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from ..evaluation.figures import CasePicture
from ..files import write_atomic
from ..run_folder import RunFolder
from .outlines import LineDrawing, colour_of
from .planes import Plane, planes_of

GAP, GAP_GREY = 6, 72  # pixels between the planes of a volume; neither air nor bone
SIDE = 256  # pixels: what is smaller is enlarged, so that a browser does not smear it
OUTLINED_SIDE = 384  # the same where thin lines must stay apart
MOST = 768  # pixels of a plane's longer side: what is larger is reduced
_STRONGEST = 0.55  # opacity of the overlay where the evidence is strongest

Pixels = NDArray[np.floating]


def save_pictures(folder: RunFolder, pictures: Iterable[CasePicture], names: Sequence[str]) -> None:
    """Write pictures/*.png and cases.json.

    Files are named by rank, not by case: a case id may hold a folder or a patient's number. Of a volume the axial,
    coronal and sagittal planes stand side by side, as large as their spacing says.

    Args:
        folder: The run.
        pictures: In the order of the report; each is let go before the next is asked for.
        names: What each row of the Predictions is called for readers.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    legend: dict[tuple[str, str], str] = {}
    for one in pictures:
        cases = groups.setdefault(one.group, [])
        name = f"pictures/{one.group}-{len(cases) + 1}"
        planes = planes_of(one)
        plain = _joined([_enlarged(plane, _as_pixels(plane.cut(one.image)), one) for plane in planes])
        _write(folder, f"{name}.png", plain)
        case: dict[str, Any] = {
            "case": names[one.index],
            "facts": dict(one.facts),
            "wrong": list(one.wrong),
            "picture": f"{name}.png",
            "width": plain.shape[1],
            "height": plain.shape[0],
        }
        if one.heat_of:
            case |= {"heat_of": one.heat_of, "heat": None}
        if one.heat is not None:
            case["heat"] = f"{name}-heat.png"
            _write(folder, case["heat"], _joined([_heated(plane, one) for plane in planes]))
        if one.outlines:
            case["outlined"] = f"{name}-outlined.png"
            _write(folder, case["outlined"], _joined([_outlined(plane, one) for plane in planes]))
        if len(planes) > 1:
            case["planes"] = [plane.name for plane in planes]
            case["part"] = planes[0].is_part_of(one.image.shape[1:])
        numbers = _numbers(one)
        legend |= {(line.kind, line.name): colour_of(line.kind, numbers[line.name]) for line in one.outlines}
        cases.append(case)
    shown = [{"kind": kind, "name": name, "colour": colour} for (kind, name), colour in legend.items()]
    folder.write("cases.json", {"groups": groups, "legend": shown})


def _numbers(one: CasePicture) -> dict[str, int]:
    """Number of each class in the order of the outlines: it has one shade for both kinds."""
    return {name: number for number, name in enumerate(dict.fromkeys(line.name for line in one.outlines))}


def _as_pixels(image: Pixels) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] to (H, W) or, of three channels, (H, W, 3)."""
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    return (np.clip(shown, 0.0, 1.0) * 255).round().astype(np.uint8)


def _enlarged(plane: Plane, pixels: NDArray[np.uint8], one: CasePicture) -> NDArray[np.uint8]:
    rows, columns = plane.shown_as(OUTLINED_SIDE if one.outlines else SIDE, MOST)
    if pixels.shape[:2] == (rows, columns):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC))


def _heated(plane: Plane, one: CasePicture) -> NDArray[np.uint8]:
    """Evidence in colour over the grey picture; where there is none, the picture shows unchanged."""
    assert one.heat is not None
    evidence = np.clip(plane.cut(one.heat[None])[0], 0.0, 1.0).astype(np.float64)
    colours = colormaps["inferno"](0.25 + 0.65 * evidence)[..., :3]  # neither its black nor its white
    opacity = (_STRONGEST * np.sqrt(evidence))[..., None]
    picture = _coloured(_as_pixels(plane.cut(one.image))) / 255
    mixed = picture * (1 - opacity) + colours * opacity
    return _enlarged(plane, (mixed * 255).round().astype(np.uint8), one)


def _outlined(plane: Plane, one: CasePicture) -> NDArray[np.uint8]:
    """Lines drawn on the enlarged picture, so that they are as thin on any image."""
    numbers = _numbers(one)
    drawing = LineDrawing(_coloured(_enlarged(plane, _as_pixels(plane.cut(one.image)), one)))
    for line in one.outlines:
        drawing.add(plane.cut(line.mask[None])[0], line.kind, colour_of(line.kind, numbers[line.name]))
    return drawing.finished()


def _coloured(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _joined(planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Planes side by side, each in the middle of the height."""
    height = max(len(one) for one in planes)
    padded = []
    for one in planes:
        above = (height - len(one)) // 2
        margins = [(above, height - len(one) - above), (0, 0), (0, 0)][: one.ndim]
        beside = [(0, 0), (0, GAP), (0, 0)][: one.ndim]
        padded.append(np.pad(np.pad(one, margins), beside, constant_values=GAP_GREY))
    return np.concatenate(padded, axis=1)[:, :-GAP]


def _write(folder: RunFolder, name: str, pixels: NDArray[np.uint8]) -> None:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")  # a tenth of the time of `optimize`, an eighth larger
    write_atomic(folder.root / name, out.getvalue())
