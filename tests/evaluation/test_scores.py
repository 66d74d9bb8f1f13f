from __future__ import annotations

import math
from typing import Any

import pytest

from medxfer.evaluation.scores import MEANINGS, Score, alarms_of, meaning_of


def score(value: float, low: float, high: float, note: str = "") -> Score:
    return Score(value=value, low=low, high=high, n=100, patients=80, note=note)


def scores(test: Score, val: Score, trivial: float = 0.5) -> dict[str, Any]:
    return {
        "key_metric": "auroc",
        "test": {"auroc": test},
        "val": {"auroc": val},
        "baseline": {"test": {"auroc": score(trivial, trivial, trivial)}},
    }


def test_a_good_network_raises_no_alarm() -> None:
    assert alarms_of(scores(score(0.93, 0.9, 0.95), score(0.94, 0.9, 0.97))) == []


def test_guessing_raises_the_baseline_alarm() -> None:
    (alarm,) = alarms_of(scores(score(0.48, 0.4, 0.56), score(0.55, 0.45, 0.6)))

    assert alarm.startswith("The model does not beat the trivial baseline")
    assert "0.480 (0.400 to 0.560)" in alarm


def test_an_interval_that_holds_the_baseline_is_said() -> None:
    (alarm,) = alarms_of(scores(score(0.56, 0.45, 0.66), score(0.6, 0.5, 0.7)))

    assert "not shown to beat the trivial baseline" in alarm


def test_a_useless_threshold_is_said_though_the_ranking_is_good() -> None:
    found = scores(score(0.9, 0.85, 0.95), score(0.9, 0.85, 0.95))
    found["test"]["balanced_accuracy"] = score(0.5, 0.5, 0.5)
    found["baseline"]["test"]["balanced_accuracy"] = score(0.5, 0.5, 0.5)

    (alarm,) = alarms_of(found)

    assert "test balanced accuracy is 0.500" in alarm


@pytest.mark.parametrize(
    ("val", "differ"),
    [(score(0.997, 0.99, 1.0), True), (score(0.97, 0.94, 0.99), False), (score(0.6, 0.55, 0.7), True)],
)
def test_intervals_apart_mean_that_the_test_data_differ(val: Score, differ: bool) -> None:
    alarms = alarms_of(scores(score(0.95, 0.92, 0.97), val))

    assert any("test data differ from the training data" in alarm for alarm in alarms) is differ


def test_an_undefined_test_score_is_an_alarm() -> None:
    undefined = score(math.nan, math.nan, math.nan, "no case of pneumonia")

    (alarm,) = alarms_of(scores(undefined, score(0.9, 0.8, 0.95)))

    assert alarm == "Test AUROC is not defined: no case of pneumonia."


def test_alarms_read_plain_scores_as_well() -> None:
    found = scores(score(0.48, 0.4, 0.56), score(0.9, 0.8, 0.95))
    as_plain = {
        **found,
        "test": {"auroc": found["test"]["auroc"].to_plain()},
        "val": {"auroc": found["val"]["auroc"].to_plain()},
    }

    assert alarms_of(as_plain) == alarms_of(found)
    assert alarms_of({}) == []


def test_lower_is_better_where_it_is() -> None:
    found = scores(score(0.3, 0.25, 0.35), score(0.3, 0.25, 0.35))
    found |= {"key_metric": "brier", "test": {"brier": score(0.1, 0.05, 0.15)}}
    found["baseline"]["test"] = {"brier": score(0.25, 0.25, 0.25)}

    assert alarms_of(found) == []


@pytest.mark.parametrize("one", [score(0.9, 0.8, 0.95), score(math.nan, math.nan, math.nan, "no cases")])
def test_a_score_survives_the_way_through_plain_data(one: Score) -> None:
    assert str(Score.from_plain(one.to_plain())) == str(one)


def test_every_score_has_words_and_an_unknown_one_a_title() -> None:
    assert all(meaning.words for meaning in MEANINGS.values())
    assert meaning_of("time_to_read").title == "Time to read"
