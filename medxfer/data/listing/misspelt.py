"""Classes that are probably a slip of the keyboard: one or two images, one letter from a frequent class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..case import Case
from ..image import shown
from .tables import Table

RARE = 2  # images
OFTEN = 5  # times as many images has the class that was meant
_LEAST = 3  # letters of the longer name: of shorter ones one letter is too much


def misspelt(cases: Sequence[Case], table: Table | None) -> list[str]:
    """A sentence for each class that may be another one misspelt, with its places.

    Args:
        cases: With their classes; findings and masks are left alone.
        table: The label table, if there is one: its lines are named.
    """
    counts = Counter(case.label for case in cases if isinstance(case.label, str))
    found = []
    for name, count in sorted(counts.items()):
        near = meant(name, counts)
        if near is None:
            continue
        places = ", ".join(_place(case, table) for case in cases if case.label == name)
        images = "1 image" if count == 1 else f"{count} images"
        found.append(
            f"class `{shown(name)}` ({images}: {places}) is one letter from `{shown(near)}` ({counts[near]} images): "
            "misspelt? correct it, or leave it out"
        )
    return found


def meant(name: str, counts: Mapping[str, int]) -> str | None:
    """The frequent class one letter from a rare one; digits are no letters: T1 and T2 are two classes."""
    if counts.get(name, 0) > RARE:
        return None
    near = [
        other
        for other, count in counts.items()
        if count >= OFTEN * max(1, counts.get(name, 0))
        and _one_letter_apart(name.casefold(), other.casefold())
    ]
    return max(near, key=lambda other: (counts[other], other), default=None)


def _one_letter_apart(one: str, two: str) -> bool:
    """One letter put in, left out, changed, or swapped with the next."""
    short, long = sorted((one, two), key=len)
    if one == two or len(long) < _LEAST or len(long) - len(short) > 1:
        return False
    begin = next(
        (place for place, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short)
    )
    rest_short, rest_long = short[begin:], long[begin:]
    if len(short) < len(long):
        return rest_long[1:] == rest_short and not rest_long[0].isdigit()
    if rest_long[1:] == rest_short[1:]:
        return not (rest_long[0].isdigit() or rest_short[0].isdigit())
    swapped = rest_short[1::-1] + rest_short[2:]
    return swapped == rest_long and not any(letter.isdigit() for letter in rest_long[:2])


def _place(case: Case, table: Table | None) -> str:
    if table is None:
        return case.id
    row = next((number for number, row in enumerate(table.rows) if row is case.extra), None)
    return case.id if row is None else f"{shown(table.path.name)}, {table.unit} {table.lines[row]}"
