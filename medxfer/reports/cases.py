"""The cases of cases.json with their pictures inside the page, and the words that explain what is drawn on them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .facts import Facts

_GROUPS = {"best": "Nearest to the truth", "median": "In the middle", "worst": "Furthest from the truth"}
_BROAD = 1.6  # times as wide as high: two such pictures stand under, not beside each other
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_EVIDENCE = (
    "Left: the image as the network saw it. Right: where the evidence for what is named under it lies (Grad-CAM);"
    " brighter is more. A map shows what the network used, not where disease is."
)
_LINES = (
    "Wide lines: the true border. Thin lines: the predicted one. A thin line inside a wide one: both agree. Each class"
    " has its shade, of blue where it is true, of orange where it is predicted."
)
_PARTS = "Where the outlined region is small, the part of the volume about it is shown."
_PLANES = (
    "Planes from left to right: {planes}, {place}, on one scale; the patient's right is on the left, in a sagittal"
    " plane the front."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCase:
    """A case on the page; pictures as data addresses, None where there is none."""

    case: str
    facts: tuple[tuple[str, str, bool], ...]  # name, value, whether it is wrong
    picture: str | None
    heat: str | None
    heat_of: str  # empty: nobody asked for evidence
    outlined: str | None
    is_outlined: bool
    is_broad: bool


def shown_groups(facts: Facts) -> list[tuple[str, list[ShownCase]]]:
    """Title and cases of each group."""
    groups = {name: [_shown(facts.root, case) for case in cases] for name, cases in _raw(facts).items()}
    return [(_GROUPS.get(name, name.capitalize()), cases) for name, cases in groups.items() if cases]


def words_on_cases(facts: Facts) -> list[str]:
    """What a reader must know to read the pictures."""
    cases = list(_all(facts))
    outlined = any(case.get("outlined") for case in cases)
    words = [_EVIDENCE] if has_evidence(facts) else []
    words += [_LINES] if outlined else []
    planes = next((case["planes"] for case in cases if case.get("planes")), None)
    if planes:
        place = (
            "through the largest cross-section of the true mask"
            if outlined
            else "through the strongest evidence"
        )
        words.append(_PLANES.format(planes=", ".join(str(name) for name in planes), place=place))
        words += [_PARTS] if any(case.get("part") for case in cases) else []
    return words


def has_evidence(facts: Facts) -> bool:
    """Whether any case shows what the network used."""
    return any(case.get("heat_of") for case in _all(facts))


def legend_of(facts: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each kind of line the names of the classes with their colours."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for one in facts.cases.get("legend") or []:
        # it stands in a style of the page, and the folder may come from elsewhere
        if _COLOUR.fullmatch(str(one.get("colour"))):
            kinds.setdefault(str(one.get("kind")), []).append((str(one.get("name")), one["colour"]))
    return list(kinds.items())


def _raw(facts: Facts) -> Mapping[str, list[Mapping[str, Any]]]:
    found: Mapping[str, list[Mapping[str, Any]]] = facts.cases.get("groups") or {}
    return found


def _all(facts: Facts) -> Iterable[Mapping[str, Any]]:
    return (case for cases in _raw(facts).values() for case in cases)


def _shown(root: Path, case: Mapping[str, Any]) -> ShownCase:
    wrong = case.get("wrong") or []
    width, height = float(case.get("width") or 1), float(case.get("height") or 1)
    return ShownCase(
        case=str(case.get("case", "")),
        facts=tuple(
            (str(name), str(value), name in wrong) for name, value in (case.get("facts") or {}).items()
        ),
        picture=_embedded(root, case.get("picture")),
        heat=_embedded(root, case.get("heat")),
        heat_of=str(case.get("heat_of") or ""),
        outlined=_embedded(root, case.get("outlined")),
        is_outlined=bool(case.get("outlined")),
        is_broad=width > _BROAD * height,
    )


def _embedded(root: Path, name: str | None) -> str | None:
    """A PNG of the run folder as a data address; None when there is none."""
    if not name:
        return None
    path = (root / name).resolve()
    # cases.json may come with a run folder from elsewhere: nothing outside its pictures is put into the page
    if not path.is_relative_to((root / "pictures").resolve()) or path.suffix != ".png" or not path.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
