"""Figures and pictures of cases as data: tasks fill them, `reports` draws them.

figures.json keeps the figures in between; of the pictures only what was drawn is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureData:
    """What a figure shows, without how it is drawn.

    `data` by kind (lists, arrays, numbers and strings only):

    - `lines`, `roc`, `pr`: `x`, `y` (axis labels), `series`: list of `{name, x, y}` and, if there is a band,
      `{grid, low, high}`; optional `points`: list of `{x, y, name}`, `marks`: list of `{x, name}` (vertical
      lines), `reference`: `{x, y, name}` (a dashed line), `whole` (x counts), `dots` (at few values).
    - `confusion`: `classes`, `matrix` (rows are the truth).
    - `reliability`: `x`, `y`, `predicted`, `observed`, `low`, `high`, `counts`, an entry a bin with cases.
    - `histogram`: `x`, `edges`, `series`: list of `{name, counts}`; optional `marks`.
    - `boxes`: `y`, `groups`: list of `{name, values, ids}`, a box each; `share`: the axis runs from 0 to 1.
    - `agreement`: `x`, `y`, `means`, `differences`, `ids` (an entry a case), `bias`, `low`, `high` (Bland-Altman;
      `low` and `high` None of few cases).
    - `table`: `columns`, `rows` (texts).
    """

    kind: str
    title: str
    data: Mapping[str, Any]
    caption: str = ""

    def to_plain(self) -> dict[str, Any]:
        """As written to figures.json: lists instead of arrays, null instead of NaN."""
        return {"kind": self.kind, "title": self.title, "data": plain(self.data), "caption": self.caption}

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> FigureData:
        """The inverse of `to_plain`; lists stay lists."""
        return cls(
            kind=str(value["kind"]),
            title=str(value.get("title", "")),
            data=dict(value.get("data", {})),
            caption=str(value.get("caption", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is drawn as a line about a region.

    Attributes:
        name: Of the class.
        kind: Whether somebody said so or the network did.
        mask: (*spatial) of the picture it lies on; may be empty.
    """

    name: str
    kind: Literal["true", "predicted"]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePicture:
    """A case worth a picture in the report, and what is drawn over it.

    Attributes:
        group: `best`, `median`, `worst`.
        index: Row of the Predictions.
        image: (C, rows, columns), or (C, X, Y, Z) in RAS; in [0, 1]. Three channels are colours, of any other number
            the first is shown.
        facts: What stands under it, in this order, by name.
        wrong: Names of the facts that are not as they should be.
        heat: (*spatial) in [0, 1], where the evidence for `heat_of` lies; None: nowhere, or nobody asked.
        heat_of: What the evidence is for; empty where nobody asked.
        outlines: Lines over the image, in the order of the classes, the same classes for every case.
        spacing: mm along each axis of the image; None: unknown.
    """

    group: str
    index: int
    image: NDArray[np.floating]
    facts: Mapping[str, str] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    heat: NDArray[np.floating] | None = None
    heat_of: str = ""
    outlines: tuple[Outline, ...] = ()
    spacing: tuple[float, ...] | None = None


def plain(value: Any) -> Any:
    """Turn arrays and NumPy numbers into what JSON holds; floats keep 6 significant digits."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
