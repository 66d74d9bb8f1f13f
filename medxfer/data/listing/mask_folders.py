"""Folders of images beside folders of masks: where they are, and which split their names stand for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import DataError
from ..case import SplitName, split_word
from ..image import shown

_ROLES: dict[str, Literal["images", "masks"]] = {
    **dict.fromkeys(("image", "img", "scan", "picture", "photo", "volume", "input"), "images"),
    **dict.fromkeys(
        ("mask", "label", "annotation", "segmentation", "seg", "gt", "groundtruth", "ground_truth"), "masks"
    ),
}
_TAILS: dict[str, SplitName] = {"tr": "train", "ts": "test", "va": "val", "val": "val"}  # nnU-Net's imagesTr
_NAME = re.compile(
    rf"(?:(?P<before>[a-z]+)[_ -])?(?P<word>{'|'.join(_ROLES)})s?"
    rf"(?:(?P<tail>{'|'.join(_TAILS)})|[_ -](?P<after>[a-z]+))?",
    re.IGNORECASE,
)
ACCEPTED = "a folder of images beside one of masks, such as images/ and masks/ or imagesTr/ and labelsTr/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder of images and the folder of their masks."""

    images: Path
    masks: Path
    split: SplitName | None = None  # what their names, or a folder above, say


def places_in(root: Path, files: Sequence[Path], *, is_asked: bool) -> list[Place]:
    """Every pair of an images' and a masks' folder that lie side by side, sorted by path.

    Args:
        root: The data folder.
        files: Image files below it: a folder of text files is no folder of masks.
        is_asked: Whether the bundle says that there are such folders. Else they must lie in the data folder or in
            folders of splits (or hold all that there is), so that they cannot be parts of class folders.

    Raises:
        DataError: Several folders of one kind side by side; none though they are asked for.
    """
    places = _pairs(root, files)
    if is_asked and not places:
        todo = (
            "put the masks into a folder beside the images, each with its image's name, or name the files in a table "
            "with the columns image and mask"
        )
        raise DataError(shown(root), "no folder of images beside a folder of masks", ACCEPTED, todo)
    return places if is_asked or _is_certain(root, files, places) else []


def _pairs(root: Path, files: Sequence[Path]) -> list[Place]:
    """Every pair at any depth; nothing is looked for inside of one."""
    folders = {parent for file in {one.parent for one in files} for parent in (file, *file.parents)}
    inside = sorted(folder for folder in folders if folder == root or root in folder.parents)
    children: dict[Path, list[Path]] = defaultdict(list)
    for folder in inside:
        if folder != root:
            children[folder.parent].append(folder)
    places: list[Place] = []
    for folder in inside:
        if not any(place.images in (folder, *folder.parents) for place in places):
            places += _side_by_side(root, folder, children[folder])
    return places


def _is_certain(root: Path, files: Sequence[Path], places: Sequence[Place]) -> bool:
    """Whether folders above the pairs are no classes."""
    homes = {place.images.parent for place in places}
    if all(all(map(split_word, home.relative_to(root).parts)) for home in homes):
        return True
    home = next(iter(homes))
    return len(homes) == 1 and all(home in file.parents for file in files)


def _side_by_side(root: Path, home: Path, children: Sequence[Path]) -> Iterator[Place]:
    """Pairs among the folders of one folder: one for each split that their names tell."""
    by_split: dict[SplitName | None, dict[str, list[Path]]] = defaultdict(lambda: {"images": [], "masks": []})
    for child in children:
        kind = _kind_of(child.name)
        if kind is not None:
            by_split[kind[1]][kind[0]].append(child)
    above = next((split for part in home.relative_to(root).parts if (split := split_word(part))), None)
    for split, found in by_split.items():
        if not (found["images"] and found["masks"]):
            continue
        for role, folders in found.items():
            if len(folders) > 1:
                names = ", ".join(shown(folder.name) for folder in folders)
                todo = "move the others away, or name the files in a table with the columns image and mask"
                raise DataError(shown(home), f"several folders of {role}: {names}", "one", todo)
        yield Place(images=found["images"][0], masks=found["masks"][0], split=split or above)


def _kind_of(name: str) -> tuple[str, SplitName | None] | None:
    """What a folder's name says: images or masks, and of which split; None where it says something else."""
    match = _NAME.fullmatch(name.strip())
    if match is None:
        return None
    word = match["before"] or match["after"]
    split = _TAILS[match["tail"].lower()] if match["tail"] else split_word(word) if word else None
    if word and split is None:
        return None
    return _ROLES[match["word"].lower()], split


def without_masks(root: Path, files: Sequence[Path], notes: list[str]) -> list[Path]:
    """Image files but for masks that lie beside them in class folders: they would be taken for images of the class."""
    folders = {place.masks for place in _pairs(root, files)}
    kept = [file for file in files if not folders.intersection(file.parents)]
    if len(kept) < len(files):
        notes.append(
            f"{len(files) - len(kept)} masks beside the images were left aside: data.layout mask_folders reads them"
        )
    return kept
