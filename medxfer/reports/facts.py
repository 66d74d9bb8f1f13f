"""What the files of a run folder say, as tables and sentences. Report and model card draw from the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data.listing.patients import ALONE
from ..evaluation.figures import FigureData
from ..evaluation.scores import BASELINE, MEANINGS, Score, alarms_of, meaning_of
from ..run_folder import FileName, RunFolder

_SPLITS = ("train", "val", "test")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The plain content of a run folder; a file that is not there is an empty mapping or list."""

    root: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    config_text: str = ""
    splits: Sequence[Mapping[str, str]] = ()
    receipt: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, str]] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[FigureData] = ()
    cases: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return str(self.run.get("bundle") or self.root.name)

    @property
    def data(self) -> Mapping[str, Any]:
        """The data's part of run.json."""
        found: Mapping[str, Any] = self.run.get("data") or {}
        return found

    @property
    def is_synthetic(self) -> bool:
        """Whether the images were made by a formula."""
        return self.data.get("kind") == "synthetic"

    @property
    def baseline_rule(self) -> str:
        """What the trivial baseline does."""
        return str(self.scores.get("baseline_rule") or BASELINE)

    @property
    def are_patients_known(self) -> bool:
        """Whether anything tells which images are of one patient."""
        return self.data.get("patient_key") != ALONE

    @property
    def key_metric(self) -> str:
        """The score that chose the network."""
        return str(self.scores.get("key_metric", "auroc"))


def read_facts(folder: RunFolder) -> Facts:
    """Read whatever is there.

    Raises:
        DataError: A file is damaged.
    """

    def read(name: FileName, otherwise: Any) -> Any:
        return folder.read(name) if folder.has(name) else otherwise

    text = hide_home(read("config.yaml", ""))
    return Facts(
        root=folder.root,
        run=without_home(read("run.json", {})),
        config=yaml.safe_load(text) or {},
        config_text=text,
        splits=read("split.csv", []),
        receipt=without_home(read("receipt.json", {})),
        history=read("history.csv", []),
        scores=read("scores.json", {}),
        figures=[FigureData.from_plain(one) for one in read("figures.json", [])],
        cases=read("cases.json", {}),
    )


def hide_home(text: str) -> str:
    """Paths in a file that is passed on should not name the person who ran it."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def without_home(value: Any) -> Any:
    """`hide_home` for every text in plain data."""
    if isinstance(value, str):
        return hide_home(value)
    if isinstance(value, Mapping):
        return {name: without_home(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_home(part) for part in value]
    return value


def scored_splits(scores: Mapping[str, Any]) -> list[str]:
    """The splits that scores.json holds, test first."""
    names = [name for name, value in scores.items() if _is_scores(value)]
    return sorted(names, key=lambda name: ({"test": 0, "val": 1}.get(name, 2), name))


def scores_in(scores: Mapping[str, Any], split: str) -> dict[str, Score]:
    """The scores of one split; those with a known meaning come first, in the usual order."""
    found = scores.get(split) or {}
    ordered = [
        *(name for name in MEANINGS if name in found),
        *(name for name in found if name not in MEANINGS),
    ]
    return {name: Score.from_plain(found[name]) for name in ordered if isinstance(found[name], Mapping)}


def _is_scores(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(one, Mapping) and "value" in one for one in value.values()
    )


def alarms(facts: Facts) -> list[str]:
    """What a reader must know before anything else."""
    found = [str(one) for one in facts.scores.get("alarms", alarms_of(facts.scores) if facts.scores else [])]
    status = facts.run.get("status", "unknown")
    if status not in ("done", "running"):
        found.insert(0, f"This run did not end as it should: its status is {status}.")
    if not facts.scores:
        found.insert(0, "There are no scores yet: the run is not finished.")
    if facts.data.get("accept_leak"):
        found.append(
            "Patients or images are shared between training and test data, and this was accepted with the"
            f" reason: {facts.data['accept_leak']}. The scores are too good by an unknown amount."
        )
    if facts.run.get("trusted"):
        found.append("The bundle ran with --trust: code that it names was executed.")
    return found


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
        cells = [scores[name].text() if name in scores else "-" for scores in by_split.values()]
        trivial = f"{baseline[name].value:.3f}" if name in baseline and baseline[name].is_defined else "-"
        rows.append((meaning_of(name).title, *cells, trivial, meaning_of(name).words))
    return Table(head=("", *splits, f"baseline, {splits[0]}", "what it says"), rows=tuple(rows))


def count_table(facts: Facts) -> Table | None:
    """Images and patients of each class in each split."""
    if not facts.splits:
        return None
    known = [str(name) for name in facts.scores.get("classes", [])]
    # Of several findings, each image counts for all that it has.
    classes = list(
        dict.fromkeys([*known, *(name for row in facts.splits for name in row["class"].split("; "))])
    )
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


def shared_patients(facts: Facts) -> int:
    """Patients that are in more than one split, counted from split.csv."""
    splits: dict[str, set[str]] = {}
    for row in facts.splits:
        splits.setdefault(row["patient"], set()).add(row["split"])
    return sum(len(found) > 1 for found in splits.values())


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
        "images": f"preset {images['preset']}, {_size(images.get('size'))}" if "preset" in images else None,
        "threshold": _threshold(facts),
        "temperature": f"{facts.scores['temperature']:.3g}, fitted on val"
        if _has(facts, "temperature")
        else None,
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


def history_figures(history: Sequence[Mapping[str, str]], key_metric: str) -> list[FigureData]:
    """Losses and scores over the epochs of all phases, each phase marked."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    losses = [name for name in columns if name.endswith("_loss")]
    scores = [name for name in columns if name.startswith("val_") and name not in losses]
    starts = [
        number
        for number, row in enumerate(history)
        if number == 0 or row["phase"] != history[number - 1]["phase"]
    ]
    marks = [{"x": number + 0.5, "name": history[number]["phase"]} for number in starts]
    best = [number for number, row in enumerate(history) if row.get("best") in ("1", "True")][-1:]
    figures = []
    for title, names in (("Loss", losses), (meaning_of(key_metric).title + " on val", scores)):
        series = [
            {
                "name": name.replace("_loss", "")
                if names is losses
                else meaning_of(name.removeprefix("val_")).title,
                "x": list(range(1, len(history) + 1)),
                "y": [_number(row.get(name)) for row in history],
            }
            for name in names
        ]
        if any(value is not None for one in series for value in one["y"]):
            points = [{"x": n + 1, "y": _number(history[n].get(names[0])), "name": "kept"} for n in best]
            data = {"x": "Epoch", "y": title, "series": series, "marks": marks, "dots": True, "whole": True}
            data |= {"points": points} if names is scores else {}
            figures.append(FigureData(kind="lines", title=f"{title} over epochs", data=data))
    return figures


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _size(size: object) -> str:
    """`128 pixels a side`, or `64 x 64 x 32 voxels`."""
    if isinstance(size, list | tuple):
        return " x ".join(map(str, size)) + (" voxels" if len(size) == 3 else " pixels")
    return f"{size or '?'} a side"
