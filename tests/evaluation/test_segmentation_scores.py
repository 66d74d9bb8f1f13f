"""Means over cases with intervals by patient, and the figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medxfer.evaluation.scores import MEANINGS, Score
from medxfer.evaluation.segmentation import (
    Case,
    Measures,
    mean_dice,
    paired_difference,
    scores_by_class,
    scores_of_cases,
)
from medxfer.evaluation.segmentation_figures import figures_of_cases

NAN = math.nan


def one(dice: float, *, size: float = 1.0, true: float = 1.0, hd95: float = 2.0) -> Measures:
    return Measures(dice=dice, iou=dice, hd95=hd95, surface_dice=dice, size=size, true_size=true)


def cases(count: int = 24, seed: int = 0) -> tuple[list[Case], list[str], list[str]]:
    random = np.random.default_rng(seed)
    found: list[Case] = [
        {
            "left": one(float(random.uniform(0.7, 0.95)), size=float(random.uniform(2, 4)), true=3.0),
            "right": one(float(random.uniform(0.3, 0.9)), size=float(random.uniform(1, 2)), true=1.5),
        }
        for _ in range(count)
    ]
    return (
        found,
        [f"case {number}" for number in range(count)],
        [f"p{number // 2}" for number in range(count)],
    )


def test_classes_are_averaged_over_the_cases_that_have_them_then_alike() -> None:
    made: list[Case] = [
        {"a": one(1.0), "b": one(NAN)},
        {"a": one(0.5), "b": one(0.25)},
        {"a": one(0.0), "b": one(NAN)},
    ]

    overall = scores_of_cases(made, ["1", "2", "3"])
    apart = scores_by_class(made, ["1", "2", "3"])

    assert overall["dice"].value == pytest.approx((0.5 + 0.25) / 2) == mean_dice(made)
    assert apart["a"]["dice"].value == pytest.approx(0.5)
    assert (apart["b"]["dice"].value, apart["b"]["dice"].n) == (0.25, 1)
    assert apart["b"]["dice"].note == "one patient only, so no interval"
    assert math.isnan(apart["b"]["dice"].low)


def test_a_class_that_no_case_has_is_not_defined_and_says_so() -> None:
    score = scores_by_class([{"a": one(NAN, size=0, true=0)}] * 3, ["1", "2", "3"])["a"]["dice"]

    assert not score.is_defined
    assert score.note == "no case has it, in truth or prediction"


def test_a_missed_structure_is_told_beside_the_distance_that_it_weighs_on() -> None:
    made: list[Case] = [{"a": one(0.9)}] * 11 + [{"a": one(0.0, size=0.0, hd95=400.0)}]

    scores = scores_of_cases(made, [str(number) for number in range(12)])

    assert scores["hd95_mm"].value == pytest.approx((11 * 2 + 400) / 12)
    assert scores["hd95_mm"].note == "1 masks empty on one side count as the image's diagonal"
    assert scores["dice"].note == ""


def test_no_cases_give_no_scores() -> None:
    assert scores_of_cases([], []) == {}
    assert math.isnan(mean_dice([]))


def test_intervals_go_by_patient_not_by_case() -> None:
    made, _, _ = cases(20)
    copies = [case for case in made for _ in range(10)]

    once = scores_of_cases(made, [str(number) for number in range(20)])["dice"]
    again = scores_of_cases(copies, [str(number // 10) for number in range(200)])["dice"]

    assert again.value == pytest.approx(once.value)
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.01)
    assert once.low < once.value < once.high
    assert (again.n, again.patients) == (200, 20)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        values = np.random.default_rng(seed).beta(8, 2, size=40)
        score = scores_of_cases(
            [{"a": one(float(v))} for v in values], [str(n) for n in range(40)], samples=300
        )["dice"]
        covered += score.low <= 0.8 <= score.high

    assert covered >= 51  # 57 of 60 expected


def test_a_paired_difference_is_narrower_than_the_two_intervals() -> None:
    made, _, patients = cases()
    better = [{name: one(min(1.0, each.dice + 0.02)) for name, each in case.items()} for case in made]

    difference = paired_difference(made, better, patients)["dice"]

    assert difference.value == pytest.approx(0.02)
    assert 0 < difference.low <= difference.high < 0.03


def test_every_score_has_a_meaning_and_survives_json() -> None:
    made, _, patients = cases()

    scores = scores_of_cases(made, patients)

    assert set(scores) <= set(MEANINGS)
    assert not MEANINGS["hd95_mm"].higher_is_better
    plain = json.loads(
        json.dumps({name: score.to_plain() for name, score in scores.items()}, allow_nan=False)
    )
    assert Score.from_plain(plain["dice"]) == scores["dice"]


def test_figures_show_spread_agreement_and_failures() -> None:
    made, ids, _ = cases()
    made[3] = {"left": one(0.0, size=0.0, hd95=300.0), "right": one(NAN, size=0.0, true=0.0, hd95=NAN)}

    figures = figures_of_cases(made, ids)

    assert [figure.kind for figure in figures] == [
        "boxes",
        "boxes",
        "boxes",
        "agreement",
        "agreement",
        "table",
    ]
    assert len(figures[0].data["groups"][1]["values"]) == 23  # the case without that class is left out
    assert (
        max(figures[2].data["groups"][0]["values"]) == 2.0
    )  # nor the diagonal of the missed one as a distance
    assert figures[2].caption.count("1 masks") == 1
    left = figures[3].data
    differences = np.asarray(left["differences"])
    assert left["bias"] == pytest.approx(differences.mean())
    assert left["high"] - left["bias"] == pytest.approx(1.96 * differences.std(ddof=1))
    assert figures[-1].data["rows"][0][:3] == ["case 3", "left", "0.00"]
    assert figures[-1].data["rows"][0][-1] == "missed"
    json.dumps([figure.to_plain() for figure in figures], allow_nan=False)


@pytest.mark.parametrize(("count", "has_limits"), [(3, False), (9, False), (10, True)])
def test_few_cases_have_no_limits_of_agreement(count: int, has_limits: bool) -> None:
    made, ids, _ = cases(count)

    (left, _) = (one for one in figures_of_cases(made, ids) if one.kind == "agreement")

    assert (left.data["low"] is not None, left.data["high"] is not None) == (has_limits, has_limits)
    assert ("No limits of agreement" in left.caption) != has_limits
    assert left.data["bias"] == pytest.approx(np.mean(left.data["differences"]))


def test_figures_of_what_no_case_has_are_left_out() -> None:
    empty = one(NAN, size=0.0, true=0.0, hd95=NAN)

    assert figures_of_cases([], []) == []
    figures = figures_of_cases([{"a": empty}, {"a": empty}], ["1", "2"])
    assert [figure.kind for figure in figures] == ["table"]
    assert figures[0].data["rows"] == []
