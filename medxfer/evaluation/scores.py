"""A score with its interval, what each score means in words, and the alarms that scores raise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NOT_DEFINED = "not defined"
BASELINE = "always the most frequent class"  # the trivial rule of a task that names no other
FEW_PATIENTS = 10  # patients of a class under which an interval is said to rest on few


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A value with its 95 % interval, and what it rests on."""

    value: float  # NaN: not defined on these cases
    low: float
    high: float
    n: int  # images
    patients: int
    note: str = ""  # why it is not defined, or what weakens it

    @property
    def is_defined(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(self.value)

    def text(self, digits: int = 3) -> str:
        """`0.953 (0.931 to 0.972)`, the value alone without an interval, or `not defined`."""
        if not self.is_defined:
            return NOT_DEFINED
        value = f"{self.value:.{digits}f}"
        if math.isnan(self.low) or math.isnan(self.high):
            return value
        return f"{value} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def to_plain(self) -> dict[str, Any]:
        """As written to scores.json; NaN becomes null, since JSON has no NaN."""
        plain: dict[str, Any] = {
            "value": number_or_none(self.value),
            "low": number_or_none(self.low),
            "high": number_or_none(self.high),
            "n": self.n,
            "patients": self.patients,
        }
        return plain | ({"note": self.note} if self.note else {})

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Score:
        """The inverse of `to_plain`; a missing or null number is NaN."""
        return cls(
            value=_number(plain.get("value")),
            low=_number(plain.get("low")),
            high=_number(plain.get("high")),
            n=int(plain.get("n") or 0),
            patients=int(plain.get("patients") or 0),
            note=str(plain.get("note") or ""),
        )


def as_score(value: Score | Mapping[str, Any]) -> Score:
    """A score from either of its two forms."""
    return value if isinstance(value, Score) else Score.from_plain(value)


def number_or_none(value: float) -> float | None:
    """A number that JSON can hold."""
    return float(value) if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a reader needs to know of a score."""

    title: str
    words: str
    higher_is_better: bool = True
    digits: int = 3  # after the point
    is_short: bool = True  # belongs into short tables, on a terminal

    @property
    def in_sentence(self) -> str:
        """The title for the middle of a sentence; AUROC, F1 and Dice, a person, stay as they are."""
        is_word = self.title[1:2].islower() and not self.title.startswith("Dice")
        return self.title[:1].lower() + self.title[1:] if is_word else self.title


MEANINGS: Mapping[str, Meaning] = {
    "auroc": Meaning(
        title="AUROC",
        words="chance that a case with the finding gets a higher probability than one without; guessing: 0.5",
    ),
    "average_precision": Meaning(
        title="Average precision",
        words="share of true findings among the cases called, over all thresholds; guessing: their share",
    ),
    "accuracy": Meaning(title="Accuracy", words="share of cases called rightly", is_short=False),
    "balanced_accuracy": Meaning(
        title="Balanced accuracy",
        words="share called rightly, each class counted alike; guessing between two: 0.5",
    ),
    "f1": Meaning(
        title="F1", words="balance of sensitivity and of the share of calls that are right", is_short=False
    ),
    "sensitivity": Meaning(title="Sensitivity", words="share of the cases with the finding that are called"),
    "specificity": Meaning(
        title="Specificity", words="share of the cases without the finding that are not called"
    ),
    "brier": Meaning(
        title="Brier score",
        words="mean squared error of the probabilities; 0 is perfect",
        higher_is_better=False,
    ),
    "ece": Meaning(
        title="Calibration error",
        words="mean distance between stated probability and observed frequency (10 bins); 0 is perfect",
        higher_is_better=False,
    ),
    "dice": Meaning(
        title="Dice",
        words="overlap of predicted and true mask, mean over the classes; 1 is perfect",
    ),
    "iou": Meaning(
        title="IoU",
        words="intersection over union of predicted and true mask; 1 is perfect",
        is_short=False,
    ),
    "surface_dice": Meaning(
        title="Surface Dice",
        words="share of both surfaces that lie within the stated tolerance of each other; 1 is perfect",
    ),
    "hd95_mm": Meaning(
        title="HD95, mm",
        words="95 % of each border lie nearer to the other (mm); the image's diagonal where one mask is empty",
        higher_is_better=False,
        digits=2,
    ),
    "hd95_voxels": Meaning(
        title="HD95, voxels",
        words="95 % of each border lie nearer to the other (voxels); the image's diagonal where one mask is empty",
        higher_is_better=False,
        digits=2,
    ),
    "hd95_pixels": Meaning(
        title="HD95, pixels",
        words="95 % of each border lie nearer to the other (pixels); the image's diagonal where one mask is empty",
        higher_is_better=False,
        digits=2,
    ),
    "volume_error_ml": Meaning(
        title="Volume error, ml",
        words="how far predicted and true volume are apart, on average; 0 is perfect",
        higher_is_better=False,
        digits=2,
    ),
    "area_error_cm2": Meaning(
        title="Area error, cm2",
        words="how far predicted and true area are apart, on average; 0 is perfect",
        higher_is_better=False,
        digits=2,
    ),
    "volume_error_voxels": Meaning(
        title="Volume error, voxels",
        words="how far predicted and true volume are apart, on average; 0 is perfect",
        higher_is_better=False,
        digits=1,
    ),
    "area_error_pixels": Meaning(
        title="Area error, pixels",
        words="how far predicted and true area are apart, on average; 0 is perfect",
        higher_is_better=False,
        digits=1,
    ),
    "lesion_f1": Meaning(
        title="Lesion F1",
        words="balance of the two below, lesion by lesion; mean over the cases with lesions, true or called",
    ),
    "lesion_precision": Meaning(
        title="Lesion precision",
        words="share of the called lesions that are true",
        is_short=False,
    ),
    "lesion_recall": Meaning(
        title="Lesion recall",
        words="share of the true lesions that are found",
        is_short=False,
    ),
}


def meaning_of(name: str) -> Meaning:
    """Title and words of a score; an unknown one is titled by its key."""
    return MEANINGS.get(name) or Meaning(title=name.replace("_", " ").capitalize(), words="")


def short_names(names: Iterable[str]) -> list[str]:
    """Of the names of scores those for a short table, in the usual order; all where none is known."""
    given = list(names)
    return [name for name, one in MEANINGS.items() if one.is_short and name in given] or given


def alarms_of(scores: Mapping[str, Any]) -> list[str]:
    """Sentences that belong into the first lines of a report.

    Args:
        scores: As in scores.json: `test`, `val` and `baseline` hold scores by name (`Score`s or plain),
            `key_metric` names the one that chose the network, `baseline_rule` says what the baseline does.

    Returns:
        The gravest first; empty when nothing is wrong.
    """
    key = str(scores.get("key_metric", "auroc"))
    test, val = _of(scores, "test", key), _of(scores, "val", key)
    alarms = list(_against_baseline(scores, key))
    if test and not test.is_defined:
        alarms.append(f"Test {meaning_of(key).in_sentence} is {NOT_DEFINED}: {test.note or 'too few cases'}.")
    if test and val and min(test.patients, val.patients) >= FEW_PATIENTS and _are_apart(val, test):
        alarms.append(
            f"The test data differ from the training data: {meaning_of(key).in_sentence} is {val.text()} on"
            f" val and {test.text()} on test, and the two 95 % intervals do not overlap."
            " Expect the test figure, or less, on data from elsewhere."
        )
    if test and test.is_defined and test.note:
        alarms.append(f"The test scores rest on little: {test.note}.")
    return alarms


def _of(scores: Mapping[str, Any], split: str, name: str) -> Score | None:
    value = (scores.get(split) or {}).get(name)
    return None if value is None else as_score(value)


def _against_baseline(scores: Mapping[str, Any], key: str) -> Iterable[str]:
    """Compare with the trivial rule what no threshold changes (key metric) and what a threshold decides."""
    baseline, rule = scores.get("baseline") or {}, scores.get("baseline_rule") or BASELINE
    # not plain accuracy: on unbalanced classes a useful threshold may well cost accuracy
    for name in dict.fromkeys((key, "balanced_accuracy")):
        test, trivial = _of(scores, "test", name), _of(baseline, "test", name)
        if not (test and trivial and test.is_defined and trivial.is_defined):
            continue
        figures = f"test {meaning_of(name).in_sentence} is {test.text()}, the baseline's {trivial.value:.3f}"
        sign = 1.0 if meaning_of(name).higher_is_better else -1.0
        bound = test.low if sign > 0 else test.high
        if sign * (test.value - trivial.value) <= 0:
            yield f"The model does not beat the trivial baseline ({rule}): {figures}."
        elif math.isnan(bound) or sign * (bound - trivial.value) <= 0:
            yield (
                f"The model is not shown to beat the trivial baseline ({rule}): {figures}, which the 95 % interval"
                " does not exclude."
            )


def _are_apart(first: Score, second: Score) -> bool:
    """Whether two intervals do not overlap; NaN compares false, so an undefined one raises no alarm."""
    return first.low > second.high or second.low > first.high
