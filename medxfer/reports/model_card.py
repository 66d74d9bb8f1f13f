"""The model card (Mitchell et al. 2019, "Model Cards for Model Reporting"), honest on what is not known."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..files import write_atomic
from ..run_folder import RunFolder
from . import facts as said
from . import tables
from .cases import has_evidence
from .facts import Facts

_TEMPLATES = Path(__file__).parent / "templates"
_MARKS = re.compile(r"([\\`*_\[\]|#])")


def write_model_card(folder: RunFolder) -> Path:
    """Write model_card.md from the run folder's files.

    Returns:
        Its path.

    Raises:
        DataError: A file of the run is damaged.
    """
    facts = said.read_facts(folder)
    environment = Environment(  # Markdown: `finalize` escapes what HTML escaping would not
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=True, finalize=_finalised,
    )  # fmt: skip
    return write_atomic(
        folder.path("model_card.md"), environment.get_template("model_card.md.j2").render(_content(facts))
    )


def as_markdown(value: Any) -> str:
    """Text that Markdown shows as it is: names from data may hold marks, tags and line breaks."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return _MARKS.sub(r"\\\1", text)


def _finalised(value: Any) -> Markup:
    """Escape what comes from data, once; what a macro gave is finished."""
    return value if isinstance(value, Markup) else Markup(as_markdown(value))


def _content(facts: Facts) -> dict[str, Any]:
    scores = tables.score_table(facts)
    return {
        "facts": facts,
        "title": facts.name,
        "classes": ", ".join(str(name) for name in facts.scores.get("classes", [])),
        "alarms": said.alarms(facts),
        "run_rows": tables.run_rows(facts),
        "licence": facts.receipt.get("licence"),
        "trained_on": facts.receipt.get("trained_on"),
        "counts": tables.count_table(facts),
        "shared": said.shared_patients(facts),
        "notes": facts.data.get("notes") or [],
        # the last column explains scores at length: the report has room for it, a card has not
        "scores": scores and tables.Table(head=scores.head[:-1], rows=tuple(row[:-1] for row in scores.rows)),
        "meanings": [(row[0], row[-1]) for row in scores.rows if row[-1]] if scores else [],
        "by_class": tables.class_table(facts),
        "chosen_on_val": said.chosen_on_val(facts),
        "caveats": said.caveats(facts),
        "has_evidence": has_evidence(facts),
        "refused": len(facts.run.get("refused") or []),
        "version": facts.run.get("medxfer", "unknown version"),
        "day": str(facts.run.get("started", ""))[:10],
    }
