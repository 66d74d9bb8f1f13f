"""One self-contained HTML file, drawn from nothing but the files of a run folder."""

from __future__ import annotations

import base64
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
from . import facts as said
from .facts import Facts
from .figures import DRAWINGS, draw

_TEMPLATES = Path(__file__).parent / "templates"
_TILES = ("sensitivity", "specificity", "ece")  # shown large under the headline, where a task has them
_REFUSED = ("case", "where", "seen", "accepted")
_GROUPS = {"best": "Most certain and right", "worst": "Furthest from the truth"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure ready for the page: drawn, or a table."""

    title: str
    svg: Markup
    caption: str
    table: said.Table | None = None


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
        "run_rows": said.run_rows(facts),
        "phases": said.phase_table(facts),
        "counts": said.count_table(facts),
        "scores": said.score_table(facts),
        "shared": said.shared_patients(facts),
        "notes": facts.data.get("notes") or [],
        "score_notes": _notes(facts),
        "curves": _drawings(said.history_figures(facts.history, facts.key_metric), "curve"),
        "figures": _drawings(facts.figures, "figure"),
        "undrawn": sorted({one.kind for one in facts.figures} - {*DRAWINGS, "table"}),
        "groups": _groups(facts) if pictures else [],
        "pictures": pictures,
        "receipt_rows": _receipt_rows(facts.receipt),
        "tensors": [{"shape": [], "state": "", "how": "", **one} for one in facts.receipt.get("tensors", [])],
        "chosen": [
            (name.replace("_", " "), str(one.get("value")), str(one.get("why", "")))
            for name, one in (facts.run.get("chosen") or {}).items()
        ],
        "refused": [{name: one.get(name, "") for name in _REFUSED} for one in facts.run.get("refused") or []],
        "environment": _environment(facts.run),
    }


def _tile(split: str, name: str, score: Score | None) -> Tile | None:
    if score is None:
        return None
    value, _, rest = score.text().partition(" (")
    interval = rest.removesuffix(")")
    if not score.is_defined:
        value, interval = score.text(), score.note
    meaning = meaning_of(name)
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


def _drawings(figures: Sequence[FigureData], name: str) -> list[Drawing]:
    drawings = []
    for number, figure in enumerate(figures, 1):
        if figure.kind == "table":
            drawings.append(_as_table(figure))
            continue
        svg = draw(figure, f"{name}{number}")
        if svg:
            # matplotlib escapes the text inside; all else in it is ours
            drawings.append(Drawing(title=figure.title, svg=Markup(svg), caption=figure.caption))
    return drawings


def _as_table(figure: FigureData) -> Drawing:
    rows = tuple(tuple(str(cell) for cell in row) for row in figure.data["rows"])
    columns = tuple(str(name) for name in figure.data["columns"])
    empty = (("none", *[""] * (len(columns) - 1)),)
    table = said.Table(head=columns, rows=rows or empty)
    return Drawing(title=figure.title, svg=Markup(), caption=figure.caption, table=table)


def _groups(facts: Facts) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cases with their pictures inside the page."""
    groups = []
    for name, cases in facts.cases.items():
        shown = [
            {
                **case,
                "picture": _embedded(facts.root, case.get("picture")),
                "cam": _embedded(facts.root, case.get("cam")),
            }
            | {"is_right": case.get("label") == case.get("predicted")}
            for case in cases
        ]
        if shown:
            groups.append((_GROUPS.get(name, name), shown))
    return groups


def _embedded(root: Path, name: str | None) -> str | None:
    """A PNG of the run folder as a data address; None when there is none."""
    if not name:
        return None
    path = (root / name).resolve()
    # cases.json may come with a run folder from elsewhere: nothing outside its pictures is put into the page
    if not path.is_relative_to((root / "pictures").resolve()) or path.suffix != ".png" or not path.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


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
    }
    return said.flat_rows({name: value for name, value in parts.items() if value is not None})
