"""Figures as inline SVG: one drawing function a kind, readable on white, on black and on paper."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..evaluation.figures import FigureData

# Mid-tones with a contrast above 3 to white and to near-black, told apart by colour-blind readers as well
# (Okabe and Ito 2008, the yellow left out, darkened where white asks for it).
COLOURS = ("#2f7fc1", "#cf6a1b", "#1f9a78", "#b565a0", "#8a8a2a", "#7a7f87")
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's colour
    "svg.hashsalt": "medxfer",  # the same data give the same file
    "text.parse_math": False,  # a class may be called `a$b`
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
# What matplotlib would write about itself and its time: neither needed nor repeatable.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

Data = Mapping[str, Any]


def draw(figure: FigureData, name: str) -> str:
    """A figure as an `<svg>` element for an HTML page.

    Args:
        figure: What to draw; lists may hold None where a number is not defined.
        name: Prefix of every id inside, unique in the page.

    Returns:
        SVG with a transparent background whose text has the page's colour; empty for an unknown kind.
    """
    drawn = DRAWINGS.get(figure.kind)
    if drawn is None:
        return ""
    size, paint = drawn
    with mpl.rc_context(_STYLE):
        canvas = Figure(figsize=size(figure.data), layout="constrained")
        FigureCanvasSVG(canvas)
        paint(canvas.add_subplot(), figure.data)
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata=_NO_METADATA)
    return _inline(out.getvalue(), name, figure.title)


def _inline(svg: str, name: str, title: str) -> str:
    """Make a stand-alone SVG file part of a page: no prolog, own ids, the page's colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r' id="', f' id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace(_INK, "currentColor")
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def _lines(axes: Axes, data: Data) -> None:
    """Curves with bands, points and vertical marks."""
    for number, one in enumerate(data["series"]):
        colour = COLOURS[number % len(COLOURS)]
        few = len(one["x"]) < 30
        axes.plot(
            _numbers(one["x"]),
            _numbers(one["y"]),
            color=colour,
            label=str(one["name"]),
            marker="o" if few and data.get("dots", False) else None,
            markersize=3.5,
        )
        if one.get("grid"):
            axes.fill_between(
                _numbers(one["grid"]),
                _numbers(one["low"]),
                _numbers(one["high"]),
                color=colour,
                alpha=0.2,
                lw=0,
            )
    reference = data.get("reference")
    if reference:
        axes.plot(
            reference["x"], reference["y"], color=_INK, lw=0.8, ls=(0, (4, 4)), label=str(reference["name"])
        )
    for point in data.get("points", ()):
        axes.plot([point["x"]], [point["y"]], "o", color=_INK, ms=6, label=str(point["name"]))
    if data.get("marks"):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.14 * (high - low))  # room for the words above the curves
    _marks(axes, data.get("marks", ()))
    if data.get("whole"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(str(data.get("x", "")))
    axes.set_ylabel(str(data.get("y", "")))
    if data["series"]:
        axes.legend(loc="best")


def _unit_square(axes: Axes, data: Data) -> None:
    """Curves over shares."""
    _lines(axes, data)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")


def _marks(axes: Axes, marks: Sequence[Data]) -> None:
    """Vertical lines with a word at their upper end."""
    for mark in marks:
        axes.axvline(float(mark["x"]), color=_INK, lw=0.8, ls=(0, (2, 3)))
        axes.annotate(
            str(mark["name"]),
            (float(mark["x"]), 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )


def _confusion(axes: Axes, data: Data) -> None:
    """Counts with the percentage of their row; the fuller, the darker."""
    classes, matrix = [str(name) for name in data["classes"]], data["matrix"]
    for row, counts in enumerate(matrix):
        total = sum(counts)
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            colour = COLOURS[0] if row == column else COLOURS[1]
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.06 + 0.5 * share, lw=0))
            place = (column + 0.5, row + 0.5)
            axes.text(*place, str(count), ha="center", va="bottom", fontsize=13)
            axes.text(*place, f"{share:.0%}" if total else "-", ha="center", va="top", fontsize=9)
    middles = [number + 0.5 for number in range(len(classes))]
    axes.set(
        xlim=(0, len(classes)), ylim=(len(classes), 0), xlabel="Called", ylabel="True class", aspect="equal"
    )
    axes.set_xticks(middles, [_short(name) for name in classes])
    axes.set_yticks(middles, [_short(name) for name in classes], rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _reliability(axes: Axes, data: Data) -> None:
    """Observed over stated frequency with the number of cases at each dot."""
    stated, observed = _numbers(data["predicted"]), _numbers(data["observed"])
    low, high = _numbers(data["low"]), _numbers(data["high"])
    axes.plot([0, 1], [0, 1], color=_INK, lw=0.8, ls=(0, (4, 4)), label="perfect")
    below = [
        0.0 if math.isnan(end) else max(0.0, value - end) for value, end in zip(observed, low, strict=True)
    ]
    above = [
        0.0 if math.isnan(end) else max(0.0, end - value) for value, end in zip(observed, high, strict=True)
    ]
    axes.errorbar(
        stated,
        observed,
        yerr=[below, above],
        color=COLOURS[0],
        fmt="o",
        ms=6,
        elinewidth=1.2,
        label="observed",
    )
    for x, y, count in zip(stated, observed, data["counts"], strict=True):
        near_edge = x > 0.9  # the frame would cut it
        axes.annotate(
            str(count),
            (x, y),
            xytext=(-6 if near_edge else 6, 3),
            textcoords="offset points",
            ha="right" if near_edge else "left",
            fontsize=8,
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.04), aspect="equal")
    axes.set_xlabel(str(data.get("x", "")))
    axes.set_ylabel(str(data.get("y", "")))
    axes.legend(loc="best")


def _histogram(axes: Axes, data: Data) -> None:
    """Outlined bars over common edges, so that classes stay visible behind each other."""
    edges = _numbers(data["edges"])
    for number, one in enumerate(data["series"]):
        colour = COLOURS[number % len(COLOURS)]
        axes.stairs(_numbers(one["counts"]), edges, fill=True, facecolor=colour, alpha=0.3, lw=0)
        axes.stairs(_numbers(one["counts"]), edges, color=colour, lw=1.4, label=str(one["name"]))
    _marks(axes, data.get("marks", ()))
    axes.set(xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(str(data.get("x", "")))
    axes.set_ylabel(str(data.get("y", "")))
    # above the frame: bars may stand anywhere inside
    fits = sum(len(str(one["name"])) + 8 for one in data["series"]) < 50  # characters in one line
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4 if fits else 1, borderaxespad=0.0)


def _boxes(axes: Axes, data: Data) -> None:
    """A box over each group, its cases as dots beside each other."""
    groups = data["groups"]
    for place, group in enumerate(groups):
        colour, values = COLOURS[place % len(COLOURS)], _numbers(group["values"])
        axes.boxplot(
            [values],
            positions=[place],
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": (colour, 0.2), "edgecolor": colour},
            medianprops={"color": _INK, "lw": 1.4},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        # spread evenly, in the order of the cases: the same data give the same picture
        aside = [place + 0.3 * ((7 * number) % 11 / 10 - 0.5) for number in range(len(values))]
        axes.plot(aside, values, "o", color=colour, ms=3, alpha=0.7, mew=0)
    names = [_short(str(group["name"])) for group in groups]
    turned = max(map(len, names)) * len(names) > 40
    axes.set_xticks(
        range(len(groups)), names, rotation=30 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlim(-0.6, len(groups) - 0.4)
    if data.get("share"):
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(str(data.get("y", "")))


def _agreement(axes: Axes, data: Data) -> None:
    """Differences over means, with their mean and limits."""
    axes.plot(_numbers(data["means"]), _numbers(data["differences"]), "o", color=COLOURS[0], ms=4, alpha=0.8)
    axes.axhline(0.0, color=_INK, lw=0.5, alpha=0.5)
    for name, style in (("bias", "-"), ("low", (0, (4, 4))), ("high", (0, (4, 4)))):
        value = data.get(name)
        if value is None:
            continue
        axes.axhline(float(value), color=COLOURS[1], lw=1.2, ls=style)
        axes.annotate(
            f"{float(value):+,.0f}" if abs(float(value)) >= 1000 else f"{float(value):+.3g}",
            (1.0, float(value)),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    axes.set_xlabel(str(data.get("x", "")))
    axes.set_ylabel(str(data.get("y", "")))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _square(_: Data) -> tuple[float, float]:
    return (4.4, 4.4)


def _wide(_: Data) -> tuple[float, float]:
    return (4.8, 3.3)


def _by_classes(data: Data) -> tuple[float, float]:
    side = max(3.6, 1.3 * len(data["classes"]) + 0.6)
    return (side, side)


def _by_groups(data: Data) -> tuple[float, float]:
    return (min(12.0, max(3.6, 0.8 * len(data["groups"]) + 1.6)), 3.6)


# Kind of figure: its size in inches and what paints it. A new kind is a row here; a `table` is the page's own.
DRAWINGS: Mapping[str, tuple[Callable[[Data], tuple[float, float]], Callable[[Axes, Data], None]]] = {
    "lines": (_wide, _lines),
    "roc": (_square, _unit_square),
    "pr": (_square, _unit_square),
    "confusion": (_by_classes, _confusion),
    "reliability": (_square, _reliability),
    "histogram": (_wide, _histogram),
    "boxes": (_by_groups, _boxes),
    "agreement": (_wide, _agreement),
}
