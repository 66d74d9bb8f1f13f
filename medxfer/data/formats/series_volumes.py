"""Which images of a series belong to one volume: chosen by tags, one at each position, copies dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import DataError
from ..image import shown
from ..policy import VOLUME_TAGS, ReadPolicy
from .dicom_header import Header

_SAME_PLACE = 0.01  # mm


def name_of(image: Header) -> str:
    """The file, or the frame of it."""
    return shown(image.path.name) if image.frames == 1 else f"frame {image.frame + 1}"


def place_of(images: Sequence[Header]) -> str:
    """The folder of a series, or the one file."""
    first = images[0].path
    return shown(first if all(image.path == first for image in images) else first.parent)


def normal_of(image: Header) -> np.ndarray:
    """The direction along which slices follow each other, in LPS."""
    assert image.orientation is not None
    normal = np.cross(image.orientation[:3], image.orientation[3:])
    unit: np.ndarray = normal / np.linalg.norm(normal)
    return unit


def orientation_of(image: Header) -> str:
    """axial, coronal or sagittal: the plane nearest to the image; empty where it says nothing of its place."""
    if image.orientation is None or not any(image.orientation):
        return ""
    normal = np.cross(image.orientation[:3], image.orientation[3:])
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]


def selected(
    images: Sequence[Header], policy: ReadPolicy, applied: list[str], remarks: list[str]
) -> Sequence[Header]:
    """The images whose tags hold the values that the policy selects.

    Raises:
        DataError: The tag is there, the value is not; the values that are there are named.
    """
    for name, wanted in policy.select.items():
        tag = next((alias for alias in (name, _ALIASES.get(name, name)) if _values(images, alias)), None)
        if tag is None:
            remarks.append(f"select {name}: no image has this tag")
            continue
        kept = [image for image in images if _is_value(image.tags.get(tag), wanted)]
        if not kept:
            seen = f"select {name} {wanted}, but {tag} is {_listed(_values(images, tag))}"
            raise DataError(place_of(images), seen, "a value that is there", f"correct select.{name}")
        if len(kept) < len(images):
            applied.append(f"{tag} {wanted} selected ({len(kept)} of {len(images)} images)")
        images = kept
    return images


_ALIASES = {"EchoTime": "EffectiveEchoTime", "TemporalPositionIdentifier": "TemporalPositionIndex"}


def _is_value(value: str | float | None, wanted: str | float) -> bool:
    if value is None:
        return False
    try:
        return math.isclose(float(value), float(wanted), rel_tol=1e-6, abs_tol=1e-9)
    except ValueError:
        words = [word.strip().upper() for word in str(value).split("\\")]
        return str(wanted).upper() in (*words, "\\".join(words))


def _values(images: Sequence[Header], tag: str) -> list[str | float]:
    return sorted(
        {image.tags[tag] for image in images if tag in image.tags},
        key=lambda value: (str(type(value)), value),
    )


def _listed(values: Sequence[str | float]) -> str:
    texts = [shown(value)[:40] if isinstance(value, str) else f"{value:g}" for value in values[:8]]
    return ", ".join(texts) + (f" and {len(values) - 8} more" if len(values) > 8 else "")


def numbers_as_text(values: Sequence[float] | None) -> str:
    """Numbers as DICOM writes them."""
    return "\\".join(f"{value:.6g}" for value in values or ())


def by_position(images: Sequence[Header]) -> list[list[Header]]:
    """Images in order along the normal; those at one place together, in the order of their names."""
    places = np.array([image.position for image in images]) @ normal_of(images[0])
    order = sorted(range(len(images)), key=lambda k: (places[k], images[k].path.as_posix(), images[k].frame))
    extent = float(places.max() - places.min())
    same = min(_SAME_PLACE, 0.1 * extent / max(len(images) - 1, 1)) if extent > 1e-4 else _SAME_PLACE
    groups: list[list[Header]] = []
    last = -math.inf
    for k in order:
        if places[k] - last <= same:
            groups[-1].append(images[k])
        else:
            groups.append([images[k]])
            last = places[k]
    return groups


def one_a_position(
    groups: list[list[Header]], same_pixels: Callable[[Header, Header], bool], remarks: list[str]
) -> list[Header]:
    """Drop copies; refuse several volumes and images that contradict each other."""
    if all(len(group) == 1 for group in groups):
        return [group[0] for group in groups]
    dropped: list[Header] = []
    for group in groups:
        kept: list[Header] = []
        for image in group:
            is_copy = any(_are_alike(image, one) and same_pixels(image, one) for one in kept)
            (dropped if is_copy else kept).append(image)
        group[:] = kept
    if dropped:
        remarks.append(f"{len(dropped)} copies of other images dropped ({name_of(dropped[0])})")
    doubled = [group for group in groups if len(group) > 1]
    if doubled:
        raise _several(groups, doubled)
    return [group[0] for group in groups]


def _are_alike(one: Header, other: Header) -> bool:
    keys = ("position", "slope", "intercept", "stored", "bits", "rows", "columns", "tags")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _several(groups: list[list[Header]], doubled: list[list[Header]]) -> DataError:
    """Why positions hold more than one image."""
    images = [image for group in groups for image in group]
    pair = f"{name_of(doubled[0][0])} and {name_of(doubled[0][1])}"
    differing = [tag for tag in VOLUME_TAGS if any(len({i.tags.get(tag) for i in g}) > 1 for g in doubled)]
    if differing:
        seen = (
            f"several volumes: {len(doubled)} of {len(groups)} positions hold more than one image ({pair}); "
        )
        seen += "; ".join(f"{tag} {_listed(_values(images, tag))}" for tag in differing[:3])
        value = _listed(_values(images, differing[0])[:1])
        return DataError(
            place_of(images), seen, "one volume", f"choose one, as select: {{{differing[0]}: {value}}}"
        )
    if len(groups) == 1:
        seen = f"all {len(images)} positions are equal (ImagePositionPatient {numbers_as_text(images[0].position)})"
        return DataError(
            place_of(images), seen, "a position of its own for each slice", "export the series again"
        )
    seen = (
        f"{len(doubled)} of {len(groups)} positions hold other pixels ({pair}), and no tag tells them apart"
    )
    return DataError(
        place_of(images), seen, "one image at a position", "remove the files of the volume not wanted"
    )
