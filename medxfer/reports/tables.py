"""What the files of a run folder say, as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.scores import meaning_of
from .facts import Facts, scored_splits, scores_in

_SPLITS = ("train", "val", "test")
_PLANES = ("sagittal", "coronal", "axial")  # by the axis across them
_PHASE_DEFAULTS = {
    "k": 1,
    "layer_decay": 1.0,
    "views": 1,
    "patience": 0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def score_table(facts: Facts) -> Table | None:
    """Scores of every split with intervals, the trivial baseline beside them."""
    splits = scored_splits(facts.scores)
    if not splits:
        return None
    by_split = {split: scores_in(facts.scores, split) for split in splits}
    baseline = scores_in(facts.scores.get("baseline") or {}, splits[0])
    names = list(dict.fromkeys(name for scores in by_split.values() for name in scores))
    rows = []
    for name in names:
        meaning = meaning_of(name)
        cells = [scores[name].text(meaning.digits) if name in scores else "-" for scores in by_split.values()]
        trivial = baseline.get(name)
        known = f"{trivial.value:.{meaning.digits}f}" if trivial and trivial.is_defined else "-"
        rows.append((meaning.title, *cells, known, meaning.words))
    return Table(head=("", *splits, f"baseline, {splits[0]}", "what it says"), rows=tuple(rows))


def class_table(facts: Facts) -> Table | None:
    """Scores of each class in the first scored split; None where there is one class only."""
    by_split = facts.scores.get("by_class") or {}
    split = next((name for name in scored_splits(facts.scores) if by_split.get(name)), None)
    if split is None or len(by_split[split]) < 2:
        return None
    by_class = {name: scores_in(by_split[split], name) for name in by_split[split]}
    names = list(dict.fromkeys(name for scores in by_class.values() for name in scores))
    rows = []
    for one, scores in by_class.items():
        cells = [scores[name].text(meaning_of(name).digits) if name in scores else "-" for name in names]
        counted = scores.get(facts.key_metric)
        rows.append((one, f"{counted.n:,}" if counted else "-", *cells))
    titles = [meaning_of(name).title for name in names]
    return Table(head=(f"class, {split}", "cases", *titles), rows=tuple(rows))


def count_table(facts: Facts) -> Table | None:
    """Images and patients of each class in each split."""
    if not facts.splits:
        return None
    # Of several findings, each image counts for all that it has.
    there = {name for row in facts.splits for name in row["class"].split("; ") if name}
    known = [str(name) for name in facts.scores.get("classes", [])]
    classes = [name for name in dict.fromkeys([*known, *sorted(there)]) if name in there]
    if len(classes) < 2:  # the same numbers twice
        classes = []
    found = {row["split"] for row in facts.splits}
    names = [*(name for name in _SPLITS if name in found), *sorted(found - set(_SPLITS))]
    rows = []
    for split in (*names, "all"):
        own = [row for row in facts.splits if split in (row["split"], "all")]
        cells = [
            _images_and_patients([row for row in own if name in row["class"].split("; ")]) for name in classes
        ]
        rows.append((split, *cells, _images_and_patients(own)))
    return Table(head=("", *classes, "all"), rows=tuple(rows))


def _images_and_patients(rows: Sequence[Mapping[str, str]]) -> str:
    patients = len({row["patient"] for row in rows})
    return f"{_counted(len(rows), 'image')}, {_counted(patients, 'patient')}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def phase_table(facts: Facts) -> Table | None:
    """The training recipe: a row a phase, the columns that any phase sets to something else than nothing."""
    phases = facts.config.get("phases") or []
    if not phases:
        return None
    names = [
        name for name in dict.fromkeys(key for phase in phases for key in phase) if _is_set(phases, name)
    ]
    rows = tuple(tuple(_cell(phase.get(name)) for name in names) for phase in phases)
    return Table(head=tuple(name.replace("_", " ") for name in names), rows=rows)


def _is_set(phases: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(phase.get(name) not in (None, _PHASE_DEFAULTS.get(name)) for phase in phases)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_rows(facts: Facts) -> tuple[tuple[str, str], ...]:
    """What was run on what, as name and value."""
    encoder, images = facts.config.get("encoder") or {}, facts.config.get("images") or {}
    weights = facts.receipt.get("weights") or encoder.get("weights")
    trained_on = facts.receipt.get("trained_on")
    rows = {
        "command": " ".join(str(part) for part in facts.run.get("command", [])),
        "status": facts.run.get("status"),
        "started": facts.run.get("started"),
        "task": facts.scores.get("task"),
        "data": _source(facts),
        "patients told apart by": facts.data.get("patient_key"),
        "encoder": encoder.get("id") or facts.receipt.get("encoder"),
        "pretrained weights": f"{weights}, trained on {trained_on}" if trained_on else weights,
        "images": _images(images),
        "threshold": _threshold(facts),
        "temperature": f"{facts.scores['temperature']:.3g}, fitted on val"
        if _has(facts, "temperature")
        else None,
        **(facts.scores.get("stated") or {}),
        "seed": facts.run.get("seed"),
    }
    return tuple((name, str(value)) for name, value in rows.items() if value not in (None, ""))


def _source(facts: Facts) -> str | None:
    source = facts.data.get("source")
    return f"{source} (synthetic: made by a formula)" if source and facts.is_synthetic else source


def _threshold(facts: Facts) -> str | None:
    found = facts.scores.get("threshold")
    if not isinstance(found, Mapping) or found.get("value") is None:
        return None
    return f"{float(found['value']):.3f}, from {found.get('from', 'the bundle')}"


def _has(facts: Facts, name: str) -> bool:
    return facts.scores.get(name) is not None


def flat_rows(value: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested mapping as names and values."""
    rows: list[tuple[str, str]] = []
    for name, part in value.items():
        if isinstance(part, Mapping):
            rows += flat_rows(part, f"{prefix}{name} ")
        else:
            text = ", ".join(str(one) for one in part) if isinstance(part, list) else _cell(part)
            rows.append((f"{prefix}{name}".replace("_", " "), text))
    return tuple(rows)


def _images(images: Mapping[str, Any]) -> str | None:
    if "preset" not in images:
        return None
    size = images.get("size")
    if isinstance(size, list | tuple) and 1 in size:
        plane = _PLANES[list(size).index(1)]
        seen = f"planes of {' x '.join(str(side) for side in size if side != 1)} voxels"
        return f"preset {images['preset']}, {plane} {seen}, one at a time by a 2D network"
    parts = "patches of " if images.get("patches") else ""
    return f"preset {images['preset']}, {parts}{_size(size)}"


def _size(size: object) -> str:
    """`128 pixels a side`, or `64 x 64 x 32 voxels`."""
    if isinstance(size, list | tuple):
        return " x ".join(map(str, size)) + (" voxels" if len(size) == 3 else " pixels")
    return f"{size or '?'} a side"
