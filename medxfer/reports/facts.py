"""What the files of a run folder say, and the sentences that follow. Report and model card draw from the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data.listing.patients import ALONE
from ..evaluation.figures import FigureData
from ..evaluation.scores import BASELINE, MEANINGS, Score, alarms_of
from ..run_folder import FileName, RunFolder

_CAVEATS = {  # by what scores.json holds
    "average_precision": "Predictive values depend on how common the finding is; precision here holds for its share in"
    " these data only.",
    "temperature": "The probabilities were calibrated on the validation cases; on other data check the reliability"
    " curve first.",
    "dice": "Dice falls with the size of a structure: the same error at its border costs a small one more. Compare"
    " sizes before scores.",
    "surface_dice": "Surface Dice and distances hold for masks drawn as these were: another reader's habits at the"
    " border count as errors.",
}


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


def shared_patients(facts: Facts) -> int:
    """Patients that are in more than one split, counted from split.csv."""
    splits: dict[str, set[str]] = {}
    for row in facts.splits:
        splits.setdefault(row["patient"], set()).add(row["split"])
    return sum(len(found) > 1 for found in splits.values())


def shown_names(facts: Facts) -> dict[str, str]:
    """What each case is called where people read of it: a DICOM file's path may hold a name."""
    return {row["case"]: row.get("shown") or row["case"] for row in facts.splits}


def chosen_on_val(facts: Facts) -> str:
    """What was chosen on the validation cases, as the beginning of a sentence: `Epochs, threshold and temperature`."""
    *first, last = ["epochs", *(name for name in ("threshold", "temperature") if facts.scores.get(name))]
    return (f"{', '.join(first)} and {last}" if first else last).capitalize()


def caveats(facts: Facts) -> list[str]:
    """What must be known of these kinds of scores before they are used elsewhere."""
    held = {*facts.scores, *(name for split in scored_splits(facts.scores) for name in facts.scores[split])}
    return [text for name, text in _CAVEATS.items() if name in held]
