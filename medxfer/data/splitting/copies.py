"""Augmented copies on disk, told by their names: `aug_17.png`, `x_flipped.png`, `x (1).png`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..case import Case

# Words that say "made from another image"; not `aug_2019`, which is a month.
_MADE = re.compile(
    r"(?:^|[_\-. ])(?:aug(?:mented|mentation)?(?![_\-. ]?(?:19|20)\d\d(?!\d))"
    r"|[hv]?flip(?:ped)?|rot(?:ated?)?(?:90|180|270)|rotated|mirror(?:ed)?)(?=$|[_\-. \d])",
    re.IGNORECASE,
)
# What systems and people append to a second file of a name; evidence only where the first file is there too.
_SECOND = re.compile(r"[_\- ]*(?:\(\d+\)|copy(?:[_\- ]?\d+)?|kopie)$", re.IGNORECASE)
_EDGES = "_-. "

RULE = "the name says an augmented copy (aug_, flipped, rotated, mirrored)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Copies by name, as rows."""

    groups: tuple[tuple[int, ...], ...] = ()  # an original and its copies
    orphans: tuple[int, ...] = ()  # copies whose original the name does not tell


def find_copies(cases: Sequence[Case]) -> Copies:
    """Find copies by the names of files.

    A copy whose name holds the name of another file belongs to it. Where no name does, the copy is an orphan: its
    original may be any file. Where every file's name says so there is nothing to hold apart, and none is reported.
    """
    stems = [PurePosixPath(case.id.partition("#")[0]).name.partition(".")[0] for case in cases]
    made = [row for row, stem in enumerate(stems) if _MADE.search(stem)]
    if len(made) == len(cases):
        made = []
    is_made = set(made)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, stem in enumerate(stems):
        if row not in is_made:
            rows_of[stem.casefold()].append(row)
    groups: dict[int, list[int]] = defaultdict(list)
    orphans = []
    for row in made:
        original = _original(_MADE.sub("_", stems[row]), rows_of)
        if original is None:
            orphans.append(row)
        else:
            groups[original].append(row)
    for row, stem in enumerate(stems):
        shorter = _SECOND.sub("", stem)
        if row not in is_made and shorter and shorter != stem:
            first = rows_of.get(shorter.casefold(), [])
            if len(first) == 1:
                groups[first[0]].append(row)
    return Copies(
        groups=tuple((original, *rows) for original, rows in sorted(groups.items())), orphans=tuple(orphans)
    )


def _original(rest: str, rows_of: dict[str, list[int]]) -> int | None:
    """The one file whose whole name stands in what is left, at its begin or its end; the longest such name."""
    words = re.split(r"(?<=[_\-. ])", rest.casefold().strip(_EDGES))
    for length in range(len(words), 0, -1):
        for part in {"".join(words[:length]).strip(_EDGES), "".join(words[-length:]).strip(_EDGES)}:
            # `1` stands in every name: a bare number proves nothing.
            if len(rows_of.get(part, [])) == 1 and not part.isdigit():
                return rows_of[part][0]
    return None
