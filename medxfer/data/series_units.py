"""Which files of a tree are one volume: a series spread over folders is one, its copies are each one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .image import shown

if TYPE_CHECKING:  # pydicom is imported only where there is DICOM
    from .formats.dicom_header import Header
    from .series import Series

# A series of these is several pictures, not a volume.
_PICTURE_MODALITIES = frozenset(
    {"CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "US", "XC", "GM", "SM", "ES", "OP"}
)
_VOLUME_MODALITIES = frozenset(
    {"CT", "MR", "PT", "NM"}
)  # refused, not read as pictures, where positions are missing
_Group = list["Header"]


def may_be_volume(series: Series) -> bool:
    """Several files with a slice each; files with many frames, and pictures without position, are read one by one."""
    if not 1 < len(series.files) == series.slices or series.modality in _PICTURE_MODALITIES:
        return False
    placed = not series.headers or any(header.position is not None for header in series.headers)
    return placed or series.modality in _VOLUME_MODALITIES


def home_of(series: Series) -> Path:
    """The folder that holds all files of a series."""
    return _common([file.parent for file in series.files])


def copies_apart(series: Series, notes: list[str] | None = None) -> list[Series]:
    """A series that lies in several folders, as one where their positions complete each other, else as copies.

    Folders whose positions are disjoint are put together, those next to each other first. Where a folder holds all
    positions, others are put together when they make up the same; what holds only some of them warns of it.

    Args:
        series: As `find_series` groups it, by SeriesInstanceUID.
        notes: A sentence on copies is added here.

    Returns:
        Parts with their own files; localizers are noted only where they lie.
    """
    from .formats.series_volumes import orientation_of

    if len({file.parent for file in series.files}) == 1:
        return [_with_own_overviews(series)]
    headers = _headers_of(series)
    if headers is None:
        return [series]
    folders: dict[Path, _Group] = {}
    for header in headers:
        folders.setdefault(header.path.parent, []).append(header)
    groups = _put_together(list(folders.values()), _common(list(folders)))
    if len(groups) == 1:
        return [_with_own_overviews(series)]
    parts = [
        dataclasses.replace(
            series,
            files=tuple(header.path for header in group),
            headers=tuple(group) if series.headers else (),
            slices=sum(header.frames for header in group),
            orientation=next(iter(found))
            if len(found := {orientation_of(header) for header in group}) == 1
            else "",
            patient=group[0].patient,
            study=group[0].study,
        )
        for group in groups
    ]
    if may_be_volume(series) and notes is not None:
        where = shown(home_of(series))
        notes.append(
            f"{where}: one series lies in {len(parts)} places with positions in common: each is a case of its own"
        )
    return [
        _remarked(part, group, groups)
        for part, group in zip(map(_with_own_overviews, parts), groups, strict=True)
    ]


def _headers_of(series: Series) -> Sequence[Header] | None:
    from .formats.dicom_header import read_header

    if series.headers:
        return series.headers
    try:
        found = [read_header(file) for file in series.files]
    except DataError:
        return None
    headers = [header for header in found if not isinstance(header, str)]
    return headers if len(headers) == len(found) else None


def _places(group: _Group) -> frozenset[tuple[float, ...] | None]:
    return frozenset(header.position for header in group)


def _put_together(groups: list[_Group], home: Path) -> list[_Group]:
    """Groups of one folder each, joined where their positions complete each other, from the deepest folder up."""
    below: dict[Path, list[_Group]] = {}
    for group in groups:
        own = _common([header.path.parent for header in group])
        name = own if own == home else home / own.relative_to(home).parts[0]
        below.setdefault(name, []).append(group)
    joined: list[_Group] = []
    for place, members in below.items():
        joined += members if len(members) == 1 or place == home else _put_together(members, place)
    places = [_places(group) for group in joined]
    if sum(map(len, places)) == len(frozenset().union(*places)):
        return [_sorted([header for group in joined for header in group])]
    return _covering(joined)


def _covering(groups: list[_Group]) -> list[_Group]:
    """Groups that together hold exactly the positions of a whole one are joined."""
    rest = list(groups)
    done: list[_Group] = []
    placed = [_places(group) for group in groups if None not in _places(group)]
    for whole in sorted(set(placed), key=lambda each: -len(each)):
        while True:
            pile: list[_Group] = []
            held: frozenset[tuple[float, ...] | None] = frozenset()
            for group in rest:
                own = _places(group)
                if own < whole and not own & held:
                    pile, held = [*pile, group], held | own
            if held != whole:
                break
            rest = [group for group in rest if not any(group is one for one in pile)]
            done.append(_sorted([header for group in pile for header in group]))
    return sorted([*rest, *done], key=lambda group: group[0].path.as_posix())


def _sorted(group: _Group) -> _Group:
    return sorted(group, key=lambda header: header.path)


def _remarked(part: Series, group: _Group, groups: Sequence[_Group]) -> Series:
    """A part that holds only some of the positions which another holds says so: it may be half a volume."""
    own = _places(group)
    fuller = [len(_places(other)) for other in groups if own < _places(other)]
    if not fuller:
        return part
    text = f"{len(own)} of {max(fuller)} positions of this series, which lies whole elsewhere in the tree"
    return dataclasses.replace(part, notes=(*part.notes, text))


def _with_own_overviews(series: Series) -> Series:
    """Notes on localizers that lie with the slices; those of other folders are none of its business."""
    from .series import overview_notes

    home, folders = home_of(series), {file.parent for file in series.files}
    own = tuple(
        path
        for path in series.overviews
        if path.parent in folders or (len(folders) > 1 and home in path.parents)
    )
    return dataclasses.replace(series, overviews=own, notes=overview_notes(own))


def _common(folders: Sequence[Path]) -> Path:
    first = min(folders)
    for other in folders:
        while first not in (other, *other.parents):
            first = first.parent
    return first
