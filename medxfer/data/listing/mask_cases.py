"""Cases of images and masks in folders side by side, matched by name."""

from __future__ import annotations

import dataclasses
import filecmp
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..case import Case, SplitName, split_word
from ..formats.kinds import DICOM_SUFFIXES, OTHER_SUFFIXES, PICTURE_SUFFIXES, VOLUME_SUFFIXES, image_suffix
from ..image import shown
from ..policy import ReadPolicy
from .mask_folders import ACCEPTED, Place
from .series_cases import may_hold_series, units_of

_SHOWN = 5  # files named in a refusal
_CHANNEL = re.compile(r"(.+)_(\d{4})")  # of nnU-Net: case_0000, case_0001
_MASK_WORDS = (
    r"masks?|seg|segs|segmentations?|labels?|labelmap|annotations?|gt|ground_?truth|roi|lesion|manual"
)
_IMAGE_WORDS = r"images?|img|scan|volume|vol"
_SUFFIXES = PICTURE_SUFFIXES | DICOM_SUFFIXES | VOLUME_SUFFIXES | OTHER_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Cases with their masks, and what fits nothing.

    Attributes:
        cases: Without patients; the label is the mask, or None.
        orphans: Masks without an image.
    """

    cases: list[Case]
    orphans: tuple[Path, ...]


def match_masks(
    data: DataSpec, root: Path, files: Sequence[Path], places: Sequence[Place], notes: list[str]
) -> Matched:
    """Find the mask of every image.

    An image's mask has its name but for the ending, in the same subfolder; or that name with a word such as `_mask`
    or `_seg` at its end or `mask_` before it, the image's own `image_` or `volume-` left out; or it lies alone in a
    subfolder of that name. Images `case_0000`, `case_0001` of one mask `case` (nnU-Net) are channels of one case.

    Args:
        data: Rules that choose a DICOM series.
        root: The data folder.
        files: Image files below it.
        places: From `places_in`.
        notes: Sentences are added here.

    Raises:
        DataError: Two images or masks for one case, or channels that are not the same in all cases.
    """
    cases: list[Case] = []
    orphans: list[Path] = []
    taken = 0
    for place in places:
        images = [file for file in files if place.images in file.parents]
        masks = _Masks(place, [file for file in files if place.masks in file.parents])
        taken += len(images) + len(masks.files)
        found = _grouped(place, _units(data, root, place, images, masks, notes), masks)
        cases += [_case(root, place, group) for group in found]
        used = {group.mask for group in found}
        orphans += [mask for mask in masks.files if mask not in used]
    if not cases:
        raise DataError(shown(root), "folders without images", ACCEPTED, "fill the folders")
    _require_same_channels(root, cases)
    if {case.split for case in cases} == {
        "train"
    }:  # a training folder alone is no split: it is what there is
        cases = [dataclasses.replace(case, split=None) for case in cases]
    if taken < len(files):
        folders = ", ".join(sorted({shown(place.images.relative_to(root)) for place in places}))
        notes.append(f"{len(files) - taken} image files outside of {folders} and their masks were left aside")
    return Matched(cases=sorted(cases, key=lambda case: case.id), orphans=tuple(orphans))


def require_masks(
    data: DataSpec, root: Path, cases: list[Case], orphans: Sequence[Path], notes: list[str]
) -> list[Case]:
    """Refuse images without mask and masks without image; with `on_bad_image: skip` they are left out, which is said.

    Raises:
        DataError: So; the first five are named.
    """
    bare = [case.id for case in cases if case.label is None]
    lost = [shown(mask.relative_to(root).as_posix()) for mask in orphans]
    told = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for names, what in (
            (bare, "image without a mask" if len(bare) == 1 else "images without a mask"),
            (lost, "mask without an image" if len(lost) == 1 else "masks without an image"),
        )
        if names
    ]
    if not told:
        return cases
    if data.on_bad_image == "skip" and len(bare) < len(cases):
        notes += [f"{text}; left out" for text in told]
        return [case for case in cases if case.label is not None]
    accepted = "a mask for each image, of the same name but for the ending"
    todo = "correct the names, list images in data.exclude, or set data.on_bad_image: skip"
    raise DataError(shown(root), "; ".join(told), accepted, todo)


def refuse_images_as_masks(cases: Sequence[Case]) -> None:
    """Refuse masks that are an image: the same file, or a copy of the case's own image.

    Raises:
        DataError: So; the first five are named.
    """
    images = {path for case in cases for path in case.images}
    wrong = [
        case
        for case in cases
        if isinstance(case.label, Path)
        and (case.label in images or any(_is_same(case.label, path) for path in case.images))
    ]
    if wrong:
        names = ", ".join(f"{shown(case.label.name)} of {case.id}" for case in wrong[:_SHOWN])  # type: ignore[union-attr]
        masks = "1 mask is" if len(wrong) == 1 else f"{len(wrong)} masks are"
        seen = f"{masks} the image itself: {names}"
        raise DataError(
            shown(wrong[0].images[0]), seen, "a mask of its own for each image", "put the right masks there"
        )


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or (
            one.is_file()
            and one.stat().st_size == other.stat().st_size
            and filecmp.cmp(one, other, shallow=False)
        )
    except OSError:
        return False  # the reader says what is wrong with the file


class _Masks:
    """Masks of a folder by what their names may mean, the surest first: whole name, name without words, subfolder."""

    def __init__(self, place: Place, files: Sequence[Path]) -> None:
        self.place, self.files = place, files
        self._by_key: list[dict[str, list[Path]]] = [defaultdict(list), defaultdict(list), defaultdict(list)]
        count: dict[Path, int] = defaultdict(int)
        for file in files:
            count[file.parent] += 1
        for file in files:
            for keys, key in zip(
                self._by_key, _keys(place.masks, file, _MASK_WORDS, count[file.parent] == 1), strict=True
            ):
                if key:
                    keys[key].append(file)

    def of(self, image: Path, *, is_alone: bool) -> tuple[Path | None, int | None]:
        """The mask of an image, and which channel the image is: None where it is the only one.

        Raises:
            DataError: Several masks fit.
        """
        whole, bare, folder = _keys(self.place.images, image, _IMAGE_WORDS, is_alone)
        channel = _CHANNEL.fullmatch(whole)
        stripped = channel[1] if channel else ""
        for key in (whole, bare, folder, stripped):
            for masks in self._by_key[:2] if key == stripped else self._by_key:
                found = masks.get(key, []) if key else []
                if len(found) > 1:
                    names = ", ".join(shown(mask.name) for mask in found[:_SHOWN])
                    todo = "join them to one, or name one in a table with the columns image and mask"
                    raise DataError(
                        shown(image), f"{len(found)} masks fit: {names}", "one mask an image", todo
                    )
                if found:
                    return found[0], int(channel[2]) if channel and key == stripped else None
        return None, None


def _keys(folder: Path, file: Path, words: str, is_alone: bool) -> tuple[str, str, str]:
    """Name below a folder without ending, the same without words, and the subfolder where the file is alone in it."""
    below = file.relative_to(folder)
    above, stem = below.parent.as_posix(), name_without_ending(file)
    bare = re.sub(rf"^(?:{words})[ _.-]+(?=.)|(?<=.)[ _.-]+(?:{words})$", "", stem, flags=re.IGNORECASE)
    names = [name if above == "." else f"{above}/{name}" for name in (stem, bare)]
    return names[0], names[1], above if is_alone and above != "." else ""


def name_without_ending(file: Path) -> str:
    """A file's name without the ending of an image, `.nii.gz` as a whole; numbers of a UID are no ending."""
    suffix = image_suffix(file)
    return (
        file.name[: -len(suffix)] if suffix in _SUFFIXES and file.name.lower().endswith(suffix) else file.name
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Images of one case in the order of their channels."""

    images: list[Path]
    channels: list[int | None] = field(default_factory=list)
    mask: Path | None = None


def _grouped(place: Place, units: Sequence[Path], masks: _Masks) -> list[_Group]:
    """Images of one mask together, channels in order; an image without mask by itself."""
    count: dict[Path, int] = defaultdict(int)
    for unit in units:
        count[unit.parent] += 1
    groups: list[_Group] = []
    of_mask: dict[Path, _Group] = {}
    for unit in units:
        mask, channel = masks.of(unit, is_alone=count[unit.parent] == 1)
        if mask is None:
            groups.append(_Group(images=[unit]))
            continue
        group = of_mask.setdefault(mask, _Group(images=[], channels=[], mask=mask))
        if group.images and (channel is None or channel in group.channels or None in group.channels):
            seen = f"the images {shown(group.images[0].name)} and {shown(unit.name)} have the mask {shown(mask.name)}"
            raise DataError(shown(place.images), seen, "one image a mask", "rename or remove one of them")
        group.images.append(unit)
        group.channels.append(channel)
    for mask, group in of_mask.items():
        if group.channels != [None] and group.channels != list(range(len(group.channels))):
            numbers = ", ".join(map(str, group.channels))
            seen = f"the images of {shown(mask.name)} have the channels {numbers}"
            raise DataError(shown(place.images), seen, "0000, 0001, ... without a gap", "add what is missing")
        groups.append(group)
    return groups


def _units(
    data: DataSpec, root: Path, place: Place, images: Sequence[Path], masks: _Masks, notes: list[str]
) -> list[Path]:
    """Files, or folders of a DICOM series; single slices where these have masks of their own."""
    if not may_hold_series(images):
        return list(images)
    units: list[Path] = []
    for unit in units_of(root, images, ReadPolicy(series=dict(data.series)), notes):
        inside = [file for file in images if unit.path in file.parents]
        has_mask = unit.path != place.images and masks.of(unit.path, is_alone=True)[0] is not None
        units += inside if inside and not has_mask else [unit.path]
    return units


def _case(root: Path, place: Place, group: _Group) -> Case:
    first = group.images[0]
    within = first.relative_to(place.images).parts[:-1]
    split: SplitName | None = place.split or next(
        (found for part in within if (found := split_word(part))), None
    )
    return Case(
        id=shown(first.relative_to(root).as_posix()),
        images=tuple(group.images),
        patient="",
        label=group.mask,
        split=split,
    )


def _require_same_channels(root: Path, cases: Sequence[Case]) -> None:
    counts: Mapping[int, Case] = {
        len(case.images): case for case in reversed(cases) if case.label is not None
    }
    if len(counts) > 1:
        seen = ", ".join(f"{count} in {case.id}" for count, case in sorted(counts.items()))
        raise DataError(
            shown(root),
            f"channels differ: {seen}",
            "as many images of each case",
            "add the missing files, or remove the case",
        )
