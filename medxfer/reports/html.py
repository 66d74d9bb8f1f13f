"""One self-contained HTML file, drawn from nothing but the files of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..evaluation.figures import FigureData
from ..evaluation.scores import Score, meaning_of
from ..files import write_atomic
from ..run_folder import RunFolder
from ..surroundings import settings_for_again
from . import cases, tables
from . import facts as said
from .curves import history_figures
from .facts import Facts
from .figures import DRAWINGS, draw

_TEMPLATES = Path(__file__).parent / "templates"
_TILES = (  # shown large beside the headline, where a run has them
    "sensitivity", "specificity", "ece", "surface_dice", "hd95_mm", "hd95_voxels", "hd95_pixels", "volume_error_ml",
    "area_error_cm2",
)  # fmt: skip
_REFUSED = ("case", "where", "seen", "accepted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure ready for the page: drawn, or a table."""

    title: str
    svg: Markup
    caption: str
    table: tables.Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A score large."""

    title: str
    value: str
    interval: str
    words: str


def write_report(folder: RunFolder, *, pictures: bool = True) -> Path:
    """Draw report.html again from the run folder's files.

    Args:
        folder: The run; whatever it lacks is said in the report.
        pictures: False leaves the images of cases out, for a report that leaves the hospital.

    Returns:
        The path of report.html.

    Raises:
        DataError: A file of the run is damaged.
    """
    facts = said.read_facts(folder)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(_content(facts, pictures=pictures))
    return write_atomic(folder.path("report.html"), page)


def _content(facts: Facts, *, pictures: bool) -> dict[str, Any]:
    """Everything that the template shows; it decides nothing but order and looks."""
    test = said.scores_in(facts.scores, "test")
    return {
        "facts": facts,
        "title": facts.name,
        "day": str(facts.run.get("started", ""))[:10],
        "headline": _tile("test", facts.key_metric, test.get(facts.key_metric)),
        "tiles": [tile for name in _TILES if (tile := _tile("test", name, test.get(name)))],
        "tested": next(iter(test.values()), None),
        "alarms": said.alarms(facts),
        "run_rows": tables.run_rows(facts),
        "phases": tables.phase_table(facts),
        "counts": tables.count_table(facts),
        "scores": tables.score_table(facts),
        "by_class": tables.class_table(facts),
        "chosen_on_val": said.chosen_on_val(facts),
        "shared": said.shared_patients(facts),
        "notes": facts.data.get("notes") or [],
        "score_notes": _notes(facts),
        "curves": _drawings(history_figures(facts.history, facts.key_metric), "curve"),
        "figures": _drawings(facts.figures, "figure", said.shown_names(facts)),
        "undrawn": sorted({one.kind for one in facts.figures} - {*DRAWINGS, "table"}),
        "groups": cases.shown_groups(facts) if pictures else [],
        "words_on_cases": cases.words_on_cases(facts),
        "legend": cases.legend_of(facts),
        "pictures": pictures,
        "receipt_rows": _receipt_rows(facts.receipt),
        "tensors": [{"shape": [], "state": "", "how": "", **one} for one in facts.receipt.get("tensors", [])],
        "chosen": [
            (name.replace("_", " "), str(one.get("value")), str(one.get("why", "")))
            for name, one in (facts.run.get("chosen") or {}).items()
        ],
        "again": settings_for_again(facts.run),
        "refused": [{name: one.get(name, "") for name in _REFUSED} for one in facts.run.get("refused") or []],
        "environment": _environment(facts.run),
    }


def _tile(split: str, name: str, score: Score | None) -> Tile | None:
    if score is None:
        return None
    meaning = meaning_of(name)
    value, _, rest = score.text(meaning.digits).partition(" (")
    interval = rest.removesuffix(")")
    if not score.is_defined:
        interval = score.note
    title = f"{split.capitalize()} {meaning.in_sentence}"
    return Tile(title=title, value=value, interval=interval, words=meaning.words)


def _notes(facts: Facts) -> list[str]:
    """What weakens the scores of a split, each once."""
    notes = [
        f"{split}: {score.note}."
        for split in said.scored_splits(facts.scores)
        for score in said.scores_in(facts.scores, split).values()
        if score.note
    ]
    return list(dict.fromkeys(notes))


def _drawings(
    figures: Sequence[FigureData], name: str, shown_as: Mapping[str, str] | None = None
) -> list[Drawing]:
    """Figures for the page; `shown_as` is what each case is called there."""
    drawings = []
    for number, figure in enumerate(figures, 1):
        if figure.kind == "table":
            drawings.append(_as_table(figure, shown_as or {}))
            continue
        svg = draw(figure, f"{name}{number}")
        if svg:
            # matplotlib escapes the text inside; all else in it is ours
            drawings.append(Drawing(title=figure.title, svg=Markup(svg), caption=figure.caption))
    return drawings


def _as_table(figure: FigureData, shown_as: Mapping[str, str]) -> Drawing:
    rows = tuple(tuple(shown_as.get(str(cell), str(cell)) for cell in row) for row in figure.data["rows"])
    columns = tuple(str(name) for name in figure.data["columns"])
    empty = (("none", *[""] * (len(columns) - 1)),)
    table = tables.Table(head=columns, rows=rows or empty)
    return Drawing(title=figure.title, svg=Markup(), caption=figure.caption, table=table)


def _receipt_rows(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = dict(receipt)
    rows.pop("tensors", None)
    counts, notes = rows.pop("counts", {}), rows.pop("notes", [])
    coverage = rows.pop("coverage", None)
    shown = [(name.replace("_", " "), str(value)) for name, value in rows.items() if value is not None]
    if coverage is not None:
        shown.append(("coverage", f"{float(coverage):.1%} of the encoder's parameters came from the file"))
    if counts:
        shown.append(("tensors", ", ".join(f"{count} {state}" for state, count in counts.items())))
    return [*shown, *(("note", str(note)) for note in notes)]


def _environment(run: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    seconds = {f"seconds, {name}": value for name, value in (run.get("seconds") or {}).items()}
    parts = {
        "device": run.get("device"),
        **(run.get("hardware") or {}),
        **(run.get("versions") or {}),
        **seconds,
        "resumed, times": run.get("resumed"),
    }
    return tables.flat_rows({name: value for name, value in parts.items() if value is not None})
