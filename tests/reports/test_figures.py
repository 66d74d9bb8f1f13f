from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest

from medxfer.evaluation.figures import FigureData
from medxfer.reports.figures import COLOURS, DRAWINGS, draw

EXAMPLES = {
    "lines": {"x": "Epoch", "y": "Loss", "series": [{"name": "train", "x": [1, 2], "y": [0.5, None]}]},
    "roc": {
        "series": [{"name": "a", "x": [0, 1], "y": [0, 1], "grid": [0, 1], "low": [0, 1], "high": [0, 1]}]
    },
    "pr": {"series": [], "points": [{"name": "here", "x": 0.5, "y": 0.5}]},
    "confusion": {"classes": ["a", "b"], "matrix": [[3, 1], [0, 0]]},
    "reliability": {"predicted": [0.1], "observed": [0.0], "low": [None], "high": [None], "counts": [1]},
    "histogram": {
        "edges": [0, 0.5, 1],
        "series": [{"name": "a", "counts": [1, 2]}],
        "marks": [{"x": 0.5, "name": "t"}],
    },
    "boxes": {"y": "Dice", "groups": [{"name": "a", "values": [0.5, 0.9]}, {"name": "b", "values": [0.1]}]},
    "agreement": {
        "x": "mean",
        "y": "difference",
        "means": [1, 2],
        "differences": [0.5, None],
        "bias": 0.5,
        "low": None,
        "high": 1.0,
    },
}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("kind", DRAWINGS)
def test_every_kind_is_drawn_as_sound_svg(kind: str) -> None:
    svg = draw(FigureData(kind=kind, title='A "title" & <more>', data=EXAMPLES[kind]), "f")

    tree = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert tree.attrib["aria-label"] == 'A "title" & <more>'
    assert "currentColor" in svg
    assert "http" not in svg


def test_an_unknown_kind_draws_nothing() -> None:
    assert draw(FigureData(kind="hologram", title="", data={}), "f") == ""


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(mpl.rcParams)

    draw(FigureData(kind="confusion", title="", data=EXAMPLES["confusion"]), "f")

    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_lines_can_be_seen_on_light_and_dark_paper(colour: str, paper: str) -> None:
    light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)

    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 2.1, 1.4.11


def test_every_case_is_a_dot_beside_its_box() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]

    many, one = (
        draw(
            FigureData(
                kind="boxes", title="", data={"share": True, "groups": [{"name": "a", "values": some}]}
            ),
            "f",
        )
        for some in (values, values[:1])
    )

    assert many.count("<use") - one.count("<use") == len(values) - 1
