"""What is wrong or suspicious in a data set, as values: level, where, problem, what to do. Nothing is printed here."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...errors import DataError
from ..case import Case
from ..image import Refused
from .looks import Look
from .polarity import look_inverted
from .suspects import WORDS

Level = Literal["refused", "suspect", "note"]
LEVELS: tuple[Level, ...] = ("refused", "suspect", "note")
_FEW = 0.01  # share of pictures up to which an inverted one is an exception
_SCALES = 20.0  # times that one image's values may exceed another's before it is said
_TELLS = 0.75  # AUROC from which on a figure beside the picture tells the class
_ENOUGH = 10  # cases of each class for that
_SPEAKING = re.compile(r"name|birth|address|phone|e-?mail|ssn|insurance", re.IGNORECASE)
_FILE_NAMES = re.compile(r"file|image|class|label|finding|case|column|original", re.IGNORECASE)
_RADIOGRAPHS = ("", "CR", "DX", "DR", "RG", "RF", "OT")
_SLICED = ("CT", "MR", "PT", "NM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is said of a data set.

    Attributes:
        level: `refused` where a run would not begin, `suspect` for what should be looked at, `note`.
        where: The cases, file or key it is about.
        problem: What was seen, with the figure.
        todo: What to do.
        cases: Ids of the cases.
        is_seen: Whether a look at the images tells; they go on the contact sheet.
    """

    level: Level
    where: str
    problem: str
    todo: str
    cases: tuple[str, ...] = ()
    is_seen: bool = False


def of_error(error: DataError) -> Finding:
    """A refusal as a finding."""
    accepted = f"; accepted: {error.accepted}" if error.accepted else ""
    return Finding(level="refused", where=error.where, problem=error.seen + accepted, todo=error.todo)


def of_refused(refused: Sequence[Refused], count: int, *, skipped: bool) -> Iterator[Finding]:
    """Cases that cannot be read."""
    if refused:
        all_gone = len(refused) == count
        todo = "see the table of bad files; data.on_bad_image: skip leaves them out"
        yield Finding(
            level="suspect" if skipped and not all_gone else "refused",
            where=some_of(len(refused), count),
            problem="cannot be used" + ("; the run leaves them out" if skipped and not all_gone else ""),
            todo=todo,
            cases=tuple(one.case for one in refused),
        )


def of_looks(looks: Sequence[Look]) -> list[Finding]:
    """Everything that the images themselves and their headers say."""
    found: list[Finding] = []
    for check in (_pictures, _polarity, _mixtures, _scales, _slices, _remarks, _privacy, _shortcuts):
        found += check(looks)
    return found


def of_labels(cases: Sequence[Case], read_label: Callable[[Case], object]) -> Iterator[Finding]:
    """Labels that the task of a bundle does not know; each once, with its cases."""
    faults: dict[str, tuple[DataError, list[str]]] = {}
    for case in cases:
        try:
            read_label(case)
        except DataError as error:
            faults.setdefault(error.seen, (error, []))[1].append(case.id)
    for fault, ids in faults.values():
        where = some_of(len(ids), len(cases))
        problem = f"have a label that the task does not know: {fault.seen}; accepted: {fault.accepted}"
        yield Finding(level="refused", where=where, problem=problem, todo=fault.todo, cases=tuple(ids))


def of_columns(name: str, columns: Sequence[str]) -> Iterator[Finding]:
    """Columns of a label table that say who a patient is."""
    telling = [one for one in columns if _SPEAKING.search(one) and not _FILE_NAMES.search(one)]
    if telling:
        yield Finding(
            level="suspect",
            where=name,
            problem=f"columns that may name people: {', '.join(telling)}",
            todo="remove them; medxfer needs none of them",
        )


def _pictures(looks: Sequence[Look]) -> Iterator[Finding]:
    for word, (problem, todo) in WORDS.items():
        yield from about(looks, lambda look, word=word: word in look.suspicions, problem, todo, is_seen=True)  # type: ignore[misc]


def about(
    looks: Sequence[Look],
    is_so: Callable[[Look], bool],
    problem: str,
    todo: str,
    level: Level = "suspect",
    *,
    is_seen: bool = False,
) -> Iterator[Finding]:
    """One finding on all the cases of which something is so; none where it is so of no case."""
    ids = tuple(look.case.id for look in looks if is_so(look))
    if ids:
        where = some_of(len(ids), len(looks))
        yield Finding(level=level, where=where, problem=problem, todo=todo, cases=ids, is_seen=is_seen)


def some_of(some: int, count: int) -> str:
    """How many cases, in words."""
    return f"{some} of {count} cases"


def _polarity(looks: Sequence[Look]) -> Iterator[Finding]:
    """Inverted chest X-rays; of other pictures nothing is known, so the sentence says for which it holds."""
    pictures = [
        look
        for look in looks
        if len(look.shape) == 2
        and not look.is_colour
        and look.tags.modality in _RADIOGRAPHS
        and "levels" not in look.suspicions
    ]
    if not pictures:
        return
    grey = torch.from_numpy(np.stack([look.thumb for look in pictures])).float() / 255
    inverted = {
        look.case.id for look, is_so in zip(pictures, look_inverted(grey).tolist(), strict=True) if is_so
    }
    yield from about(
        pictures,
        lambda look: look.case.id in inverted,
        "look inverted (white background, spine darker than the lungs)",
        "if these are chest X-rays, invert them; in DICOM PhotometricInterpretation should say MONOCHROME1",
        "suspect" if len(inverted) > max(1, _FEW * len(pictures)) else "note",
        is_seen=True,
    )


def _mixtures(looks: Sequence[Look]) -> Iterator[Finding]:
    """Kinds of images that no network takes together, or that tell the class."""
    dims = Counter(len(look.shape) for look in looks)
    if len(dims) > 1:
        yield Finding(
            level="suspect",
            where=some_of(min(dims.values()), len(looks)),
            problem=f"{dims[2]} pictures and {dims[3]} volumes in one data set",
            todo="separate them, or cut the volumes into slices (data.slices)",
        )
    colour = [look.case.id for look in looks if look.is_colour]
    if colour and len(colour) < len(looks):
        yield Finding(
            level="note",
            where=some_of(len(colour), len(looks)),
            problem="are in colour, the others grey",
            todo="one of both is made of all by encoder.in_channels; see that it does not tell the class",
            cases=tuple(colour),
        )
    modalities = Counter(look.tags.modality for look in looks if look.tags.modality)
    if len(modalities) > 1:
        told = ", ".join(f"{count} {name}" for name, count in modalities.most_common())
        yield Finding(
            level="suspect",
            where=f"{len(modalities)} modalities",
            problem=told,
            todo="separate them, or choose by data.series: {modality: ...}",
        )


def _scales(looks: Sequence[Look]) -> Iterator[Finding]:
    uppers = [look.spread.upper for look in looks if not look.is_colour and look.spread.upper > 0]
    if len(uppers) > 1 and max(uppers) > _SCALES * min(uppers):
        seen = f"the 99th percentile goes from {min(uppers):.4g} to {max(uppers):.4g}"
        yield Finding(
            level="note",
            where="intensities",
            problem=f"{seen}: images are not on one scale",
            todo="scale each image by itself: a step with percentiles or z-score, no fixed window",
        )


def _slices(looks: Sequence[Look]) -> Iterator[Finding]:
    """Single slices of scans as cases."""
    series = Counter(
        look.tags.series
        for look in looks
        if look.kind == "DICOM"
        and len(look.shape) == 2
        and look.tags.modality in _SLICED
        and look.tags.series
    )
    several = {uid for uid, count in series.items() if count > 1}
    yield from about(
        looks,
        lambda look: look.kind == "DICOM" and look.tags.series in several,
        f"are single slices of {len(several)} series",
        "if scans are meant, name the series' folder as one case; patients must be told apart in any case",
    )


def _remarks(looks: Sequence[Look]) -> Iterator[Finding]:
    """What the reader said, each sentence once; numbers aside, since they differ from file to file."""
    ids: dict[str, list[str]] = defaultdict(list)
    first: dict[str, str] = {}
    constant = re.compile(r"every (?:pixel|voxel) has the value")
    for look in looks:
        for remark in look.remarks:
            if constant.match(remark):
                continue  # told with the pictures
            key = re.sub(r"\d+(?:\.\d+)?", "#", remark)
            first.setdefault(key, remark)
            ids[key].append(look.case.id)
    for key, names in sorted(ids.items(), key=lambda pair: -len(pair[1])):
        is_spacing = "spacing" in key
        yield Finding(
            level="note" if is_spacing else "suspect",
            where=some_of(len(names), len(looks)),
            problem=first[key] if len(names) == 1 else f"{first[key]} (the first of them)",
            todo="nothing, if sizes in mm do not matter"
            if is_spacing
            else "look at them: medxfer inspect FILE",
            cases=tuple(names),
        )


def _privacy(looks: Sequence[Look]) -> Iterator[Finding]:
    tags = Counter(name for look in looks for name in sorted(look.tags.telling))
    told = ", ".join(f"{name} in {count}" for name, count in tags.most_common(8))
    yield from about(
        looks,
        lambda look: bool(look.tags.telling),
        f"have tags filled in that may tell who the patient is: {told}",
        "de-identify the files before they leave the place; medxfer uses none of these tags",
    )
    yield from about(
        looks,
        lambda look: look.tags.not_removed,
        "do not say that the patient's identity was removed (PatientIdentityRemoved YES)",
        "treat them like the patient's record",
        "note",
    )
    yield from about(
        looks,
        lambda look: look.tags.burned_in,
        "say, or do not deny, that text is burned in (BurnedInAnnotation)",
        "look at them before images leave the place",
    )


def _shortcuts(looks: Sequence[Look]) -> Iterator[Finding]:
    """Figures beside the picture that tell the class: size, shape, brightness, how much of it is empty."""
    labelled = [look for look in looks if isinstance(look.case.label, str)]
    classes = Counter(str(look.case.label) for look in labelled)
    if len(classes) < 2 or min(classes.values()) < _ENOUGH:
        return
    labels = np.array([str(look.case.label) for look in labelled])
    for name, figures in _figures(labelled).items():
        best = max(
            (max(value, 1 - value), one) for one in classes if (value := auroc(figures, labels == one))
        )
        if best[0] > _TELLS:
            yield Finding(
                level="suspect",
                where=f"class {best[1]}",
                problem=f"{name} alone tells it from the others: AUROC {best[0]:.2f} over all cases",
                todo="a score must be well above that; see that preprocessing takes the difference away",
            )


def _figures(looks: Sequence[Look]) -> Mapping[str, np.ndarray]:
    return {
        "the number of pixels": np.array([float(np.prod(look.shape)) for look in looks]),
        "width / height": np.array([look.shape[1] / look.shape[0] for look in looks]),
        "mean brightness": np.array([look.spread.mean for look in looks]),
        "the share of the lowest value": np.array([look.spread.at_low for look in looks]),
    }


def auroc(figures: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of one figure (N,) for cases (N,) bool, by mean ranks; ties count half."""
    _, inverse, counts = np.unique(figures, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    pairs = int(positive.sum()) * int((~positive).sum())
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)
