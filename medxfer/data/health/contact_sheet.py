"""A contact sheet: some images of each class and of each suspicion, as small pictures on one page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ..doctor import Health
from .looks import PREVIEW, Look

TILE = PREVIEW  # pixels a side
ROW = 10  # tiles
_CLASSES, _SUSPICIONS = 8, 10  # rows of each kind
_MARGIN, _TITLE = 8, 22
_PAGE, _INK, _MARK = (250, 250, 250), (30, 30, 30), (200, 60, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the sheet."""

    title: str
    looks: tuple[Look, ...]
    is_suspect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A PNG, and which case each number on it is."""

    png: bytes
    cases: dict[int, str]


def rows_of(health: Health) -> list[Row]:
    """What goes on the sheet: images spread over each class, then what is suspicious, duplicates side by side."""
    by_class: dict[str, list[Look]] = {}
    for look in health.looks:
        by_class.setdefault(_class_of(look), []).append(look)
    largest = sorted(by_class.items(), key=lambda pair: -len(pair[1]))[:_CLASSES]
    rows = [Row(title=f"{name}: {len(looks)}", looks=_spread(looks)) for name, looks in largest]
    by_id = {look.case.id: look for look in health.looks}
    suspicions = [
        Row(
            title=f"{finding.where} {finding.problem}",
            looks=tuple(by_id[name] for name in finding.cases[:ROW] if name in by_id),
            is_suspect=True,
        )
        for finding in health.findings
        if finding.is_seen and finding.level != "note"
    ]
    for title, groups in (("equal", health.duplicates.exact), ("nearly equal", health.duplicates.near)):
        members = [health.looks[row] for group in groups for row in group][:ROW]
        title = f"{title} images, group after group: {len(groups)} groups"
        suspicions.append(Row(title=title, looks=tuple(members), is_suspect=True))
    return rows + [row for row in suspicions if row.looks][:_SUSPICIONS]


def _class_of(look: Look) -> str:
    label = look.case.label
    if isinstance(label, str):
        return label
    if isinstance(label, Mapping):
        return next((name for name, value in label.items() if value), "no finding")
    return look.tags.modality or "images"


def _spread(looks: Sequence[Look]) -> tuple[Look, ...]:
    return tuple(looks[:: -(-len(looks) // ROW)][:ROW])


def draw(rows: Sequence[Row]) -> Sheet:
    """Draw the sheet. Pictures are numbered: names may tell who a patient is, and so may what is burned in.

    Args:
        rows: From `rows_of`.
    """
    shown = list({id(look): look for row in rows for look in row.looks}.values())
    numbers = {id(look): number for number, look in enumerate(shown, 1)}
    width = 2 * _MARGIN + ROW * (TILE + 4)
    page = Image.new("RGB", (width, _MARGIN + len(rows) * (_TITLE + TILE + _MARGIN) or TILE), _PAGE)
    pen = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    top = _MARGIN
    for row in rows:
        pen.text(
            (_MARGIN, top), _fitting(row.title, width), fill=_MARK if row.is_suspect else _INK, font=font
        )
        top += _TITLE
        for place, look in enumerate(row.looks):
            left = _MARGIN + place * (TILE + 4)
            tile = Image.open(io.BytesIO(look.preview))
            page.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
            number = str(numbers[id(look)])
            pen.rectangle((left, top, left + 4 + 7 * len(number), top + 13), fill=_PAGE)
            pen.text((left + 2, top), number, fill=_INK, font=small)
        top += TILE + _MARGIN
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return Sheet(png=buffer.getvalue(), cases={numbers[id(look)]: look.case.id for look in shown})


def _fitting(text: str, width: int) -> str:
    most = width // 7
    plain = text.encode("ascii", "replace").decode()
    return plain if len(plain) <= most else plain[: most - 3] + "..."
