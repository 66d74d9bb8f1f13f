"""Folds and findings: every patient tested once, val inside each fold, each finding in proportion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medxfer.bundle.schema import SplitSpec
from medxfer.data.case import Case
from medxfer.data.leaks import Duplicates
from medxfer.data.splits import Splits, folds_of, split_by_patient
from medxfer.errors import DataError

from .test_splits import NONE, cohort, names_of

FINDINGS = {"common": 0.4, "rare": 0.1, "scarce": 0.04}


def folds(cases: list[Case], count: int, *, duplicates: Duplicates = NONE, seed: int = 0) -> list[Splits]:
    spec = SplitSpec(folds=count)
    return folds_of(cases, duplicates, spec, seed=seed, accept_leak=None, label_of=lambda one: str(one.label))


def with_findings(patients: int, seed: int = 0) -> list[Case]:
    random = np.random.default_rng(seed)
    cases = []
    for patient in range(patients):
        for one in range(int(random.integers(1, 4))):
            label = {name: bool(random.uniform() < share) for name, share in FINDINGS.items()}
            name = f"{patient:03}-{one}.png"
            cases.append(Case(id=name, images=(Path(name),), patient=f"p{patient}", label=label))
    return cases


def split(cases: list[Case], **options: object) -> Splits:
    return split_by_patient(
        cases, NONE, SplitSpec(**options), seed=0, accept_leak=None,  # type: ignore[arg-type]
        label_of=lambda one: "some" if any(one.label.values()) else "none",  # type: ignore[union-attr]
    )  # fmt: skip


@settings(max_examples=30)
@given(patients=some.integers(40, 90), count=some.integers(2, 6), seed=some.integers(0, 999))
def test_every_case_is_tested_once_and_no_patient_is_on_two_sides(
    patients: int, count: int, seed: int
) -> None:
    cases = cohort(patients, seed, 0.4)

    made = folds(cases, count, seed=seed)

    assert sorted(row for one in made for row in one["test"]) == list(range(len(cases)))
    for one in made:
        sides = [{cases[row].patient for row in one[name]} for name in ("train", "val", "test")]
        assert all(sides)
        assert len(set().union(*sides)) == sum(map(len, sides))
        sick = np.mean([cases[row].label == "sick" for row in one["test"]])
        assert abs(sick - np.mean([case.label == "sick" for case in cases])) < 0.15


def test_val_is_another_in_each_fold_and_one_fold_is_that_of_all() -> None:
    cases = cohort(80, share=0.4)

    made = folds(cases, 4)
    alone = split_by_patient(
        cases, NONE, SplitSpec(folds=4, fold=2), seed=0, accept_leak=None, label_of=lambda one: str(one.label)
    )

    vals = [frozenset(one["val"]) for one in made]
    assert len(set(vals)) == 4
    assert max(len(a & b) for a in vals for b in vals if a != b) < 0.7 * min(map(len, vals))
    assert names_of(alone) == names_of(made[2])
    assert "fold 2 (of 0 to 3) is test" in alone.notes


def test_a_given_test_is_kept_and_folds_are_val() -> None:
    cases = [
        dataclasses.replace(one, split="test" if int(one.patient[1:]) < 20 else "train") for one in cohort(80)
    ]

    made = folds(cases, 3)

    wanted = [row for row, one in enumerate(cases) if one.split == "test"]
    assert all(list(one["test"]) == wanted for one in made)
    assert sorted(row for one in made for row in one["val"]) == [
        r for r in range(len(cases)) if r not in set(wanted)
    ]


def test_more_folds_than_patients_of_a_class_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        folds(cohort(30, share=0.1, seed=3), 10)

    assert "patients for 10 folds" in caught.value.seen
    assert "data.split.folds" in caught.value.todo


def test_each_finding_keeps_its_share() -> None:
    cases = with_findings(300)

    made = split(cases)

    for finding in FINDINGS:
        whole = np.mean([case.label[finding] for case in cases])  # type: ignore[index,call-overload]
        for name in ("train", "val", "test"):
            own = np.mean([cases[row].label[finding] for row in made[name]])  # type: ignore[index,call-overload]
            assert abs(own - whole) < 0.03, (finding, name)
    assert abs(len(made["test"]) / len(cases) - 0.2) < 0.02
    assert abs(len(made["val"]) / len(cases) - 0.8 * 0.15) < 0.02


def test_findings_are_split_alike_whatever_the_order_of_files() -> None:
    cases = with_findings(60)
    shuffled = [cases[row] for row in np.random.default_rng(1).permutation(len(cases))]

    assert names_of(split(cases)) == names_of(split(shuffled))


def test_a_finding_that_a_part_lacks_is_said_and_not_refused() -> None:
    cases = [
        dataclasses.replace(one, label={**one.label, "once": row == 5})  # type: ignore[dict-item]
        for row, one in enumerate(with_findings(60))
    ]

    made = split(cases)

    assert sum("no case of once" in note for note in made.notes) == 2
