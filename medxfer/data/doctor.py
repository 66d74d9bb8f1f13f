"""A data set looked at as a whole: what is there, what is suspicious, and whether a run would refuse it."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.schema import DataSpec, PatientSpec
from ..errors import DataError
from ..progress import Progress
from .cache import MOST_CONSTANT, Arrays
from .case import Case
from .cases import Found, existing_folder, find_cases
from .describe import find_inputs
from .health.facts import facts_of
from .health.findings_of_data import LEVELS, Finding, of_columns, of_error, of_labels, of_looks, of_refused
from .health.looks import Item, Look, look_at
from .health.mask_findings import of_masks
from .health.suspects import WORDS
from .image import Refused, shown
from .leaks import Duplicates, find_duplicates
from .listing.patients import with_patients
from .listing.table_faults import faults_of, table_at_fault
from .listing.tables import read_table
from .masks import MaskRule
from .sampling import reading_of
from .splits import NAMES, split_by_patient
from .splitting.gate import leaks_in
from .splitting.grouping import joined_groups
from .steps.base import Step
from .workers import at_work, rows_at_once

_LEAK_TODO = "correct the data, list files in data.exclude, or state a reason: data.accept_leak"
_LOOKED_AT = "looked at by the doctor"
_SUSPECT = (
    "left out",
    "cannot be read",
    "misspelt?",
    "may tell patients apart",
)  # in what finding cases said


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of the run that the data are meant for.

    Attributes:
        data: How the cases are found and read.
        steps: Its preprocessing; duplicates are told after it, as the run does. Empty: by what is read.
        label_of: The class of a case, as its task says; None: the label itself.
        read_label: How its task reads a label; what it refuses is said.
        masks: What values of masks mean to its task.
        has_planes: Whether it takes volumes apart into planes.
        seed: Of the split that would be made.
    """

    data: DataSpec
    steps: tuple[Step, ...] = ()
    label_of: Callable[[Case], str] | None = None
    read_label: Callable[[Case], object] | None = None
    masks: MaskRule | None = None
    has_planes: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the doctor saw.

    Attributes:
        facts: What is there: plain data, no patient among them.
        findings: The worst first.
        bad: Files and table rows that cannot be used, with cause and remedy.
        looks: What is kept of the others.
        duplicates: Groups of rows of `looks`.
    """

    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    bad: tuple[Refused, ...]
    looks: tuple[Look, ...] = field(repr=False)
    duplicates: Duplicates = field(default=Duplicates(), repr=False)

    @property
    def is_refused(self) -> bool:
        """Whether a run would refuse the data."""
        return any(one.level == "refused" for one in self.findings)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": "refused" if self.is_refused else "usable",
            "facts": self.facts,
            "findings": [dataclasses.asdict(one) for one in self.findings],
            "bad_files": [dataclasses.asdict(one) for one in self.bad],
        }


def examine(root: Path, request: Request, say: Progress) -> Health:
    """Look at a data set: every case is read once, as a run would read it.

    Where the cases cannot be told (no labels, a table at fault) every image of the folder is read nevertheless, so
    that bad files are found in the same go.

    Args:
        root: The folder.
        request: How a run would take it.
        say: Where progress goes.

    Raises:
        DataError: No such folder, or no image in it.
    """
    data, reading = request.data, reading_of(request.data)
    findings: list[Finding] = []
    rows: list[Refused] = []
    looks: list[Look] = []
    bad: list[Refused] = []
    found, items = _items(root, data, findings, rows)
    with (
        at_work(
            lambda rows: [look_at(item, reading, request.steps) for (item,) in rows],
            items,
            most=rows_at_once([item.case.images for item in items]),
        ) as seen,
        say.bar("read images", len(items)) as advance,
    ):
        for one in seen:
            advance()
            if isinstance(one, Refused):
                bad.append(one)
            else:
                looks.append(one)
    findings += of_refused(bad, len(items), skipped=data.on_bad_image == "skip")
    findings += [_as_run(one, data, len(looks)) for one in of_looks(looks)]
    findings += of_masks(looks, request.masks, has_planes=request.has_planes)
    if request.read_label is not None:
        findings += of_labels([look.case for look in looks], request.read_label)
    duplicates = _duplicates(looks)
    sides = _split(looks, duplicates, request, findings, is_data_set=found.layout != "auto")
    if found.labels is not None and found.labels.suffix.lower() == ".csv":
        findings += of_columns(shown(found.labels.name), read_table(found.labels).columns)
    findings += [_note(note) for note in found.notes]
    return Health(
        facts=facts_of(root, found, [item.case for item in items], looks, sides),
        findings=tuple(sorted(findings, key=lambda one: LEVELS.index(one.level))),
        bad=(*rows, *bad),
        looks=tuple(looks),
        duplicates=duplicates,
    )


def _items(
    root: Path, data: DataSpec, findings: list[Finding], rows: list[Refused]
) -> tuple[Found, list[Item]]:
    """The cases of a run, or every image of the folder where a run would refuse to look for cases."""
    try:
        found = find_cases(data, root)
        return found, [Item(case=case) for case in found.cases]
    except DataError as error:
        existing_folder(root)
        findings.append(of_error(error))
        table = table_at_fault(data, root, error)
        rows += [_of_table(one) for one in ([] if table is None else faults_of(data, root, table))]
    inputs, aside = find_inputs(root, policy=reading_of(data).policy)
    cases = [_case_of(one.path, root, one.note) for one in inputs]
    notes = list(aside)
    series = [one for one in inputs if one.series is not None]
    if len(series) < len(inputs):
        # The bundle's rule may be what was refused: here only DICOM tells patients apart.
        named, key = with_patients(PatientSpec(), cases, None, notes)
        kept = {case.id: case for case in named}
        cases = [kept.get(case.id, case) for case in cases]
    else:
        key = "DICOM PatientID"
        cases = [
            dataclasses.replace(case, patient=one.series.patient or case.id, study=one.series.study or None)
            for case, one in zip(cases, inputs, strict=True)
            if one.series is not None
        ]
    found = Found(cases=cases, notes=notes, patient_key=key, layout="auto")
    return found, [Item(case=case, series=one.series) for case, one in zip(cases, inputs, strict=True)]


def _of_table(error: DataError) -> Refused:
    """A fault of a label table, for the table of bad files."""
    name = shown(Path(error.where.partition(", line")[0]).name)
    line = error.where.partition(", line")[2]
    case = f"{name}, line{line}" if line else name
    return Refused(case=case, where=error.where, seen=error.seen, accepted=error.accepted, todo=error.todo)


def _case_of(path: Path, root: Path, note: str) -> Case:
    name = path.relative_to(root).as_posix() if root in path.parents else path.name
    ident = shown(name) + (f" ({note})" if note else "")
    return Case(id=ident, images=(path,), patient=ident)


def _note(text: str) -> Finding:
    """What was said when cases were looked for."""
    about_patients = text.startswith("patients cannot be told apart")
    level = "suspect" if about_patients or any(word in text for word in _SUSPECT) else "note"
    return Finding(level=level, where="cases", problem=text, todo="")  # type: ignore[arg-type]


def _as_run(finding: Finding, data: DataSpec, count: int) -> Finding:
    """Many images of one value are refused by a run, so here too."""
    is_constant = finding.problem == WORDS["constant"][0]
    if is_constant and data.on_bad_image == "stop" and len(finding.cases) > MOST_CONSTANT * count:
        return dataclasses.replace(finding, level="refused")
    return finding


def _duplicates(looks: Sequence[Look]) -> Duplicates:
    """Groups of equal and nearly equal images: equal by all their voxels, nearly by their thumbnails."""
    by_content: dict[str, list[int]] = defaultdict(list)
    for row, look in enumerate(looks):
        if look.content:
            by_content[look.content].append(row)
    exact = tuple(tuple(rows) for rows in by_content.values() if len(rows) > 1)
    alike: list[tuple[int, ...]] = []
    for dims in (2, 3):
        rows = [row for row, look in enumerate(looks) if look.thumb.ndim == dims]
        if len(rows) > 1:
            found = find_duplicates(_as_arrays([looks[row] for row in rows]))
            alike += [tuple(rows[one] for one in group) for group in (*found.exact, *found.near)]
    joined = joined_groups(len(looks), [*exact, *alike])
    known = {frozenset(group) for group in exact}
    near = tuple(group for group in joined if len(group) > 1 and frozenset(group) not in known)
    return Duplicates(exact=exact, near=near)


def _as_arrays(looks: Sequence[Look]) -> Arrays:
    """Thumbnails in the form that duplicates are looked for in."""
    thumbs = np.stack([look.thumb for look in looks])[:, None]
    return Arrays(
        images=thumbs,
        cases=tuple(look.case for look in looks),
        sha256=tuple(look.content for look in looks),
        affines=np.broadcast_to(np.eye(thumbs.ndim - 1), (len(looks), thumbs.ndim - 1, thumbs.ndim - 1)),
    )


def _split(
    looks: Sequence[Look],
    duplicates: Duplicates,
    request: Request,
    findings: list[Finding],
    *,
    is_data_set: bool,
) -> dict[str, int]:
    """What the leak gate says, and how many cases a run would train on; findings are added."""
    cases = [look.case for look in looks]
    spec, accepted = request.data.split, request.data.accept_leak
    verdict = leaks_in(cases, duplicates, spec)
    for text in verdict.found:
        if accepted is None:
            findings.append(Finding(level="refused", where="leak", problem=text, todo=_LEAK_TODO))
        else:
            problem = f"{text}; accepted: {accepted}"
            findings.append(Finding(level="suspect", where="leak", problem=problem, todo=""))
    findings += [
        Finding(level="suspect", where="same twice", problem=text, todo="") for text in verdict.notes
    ]
    if not cases or not is_data_set:
        return {}
    label_of = request.label_of or _class_of
    try:
        splits = split_by_patient(
            cases, duplicates, spec, seed=request.seed, accept_leak=accepted or _LOOKED_AT, label_of=label_of
        )
    except DataError as error:
        findings.append(of_error(error))
        return dict(Counter(case.split for case in cases if case.split))
    told = {*verdict.notes, *(f"leak accepted ({accepted or _LOOKED_AT}): {one}" for one in verdict.found)}
    findings += [
        Finding(level="suspect", where="split", problem=note, todo="")
        for note in splits.notes
        if note not in told
    ]
    return {name: len(splits[name]) for name in NAMES}


def _class_of(case: Case) -> str:
    """The label, where there is one; findings are told apart by what is there."""
    if isinstance(case.label, str):
        return case.label
    if isinstance(case.label, Path):
        return "with mask"
    if case.label is None:
        return ""
    return " and ".join(name for name, value in case.label.items() if value) or "none"
