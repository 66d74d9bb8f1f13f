from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from medxfer.errors import ConfigError
from medxfer.evaluation.classification import (
    auroc_of,
    baseline_of,
    choose_threshold,
    figures_of,
    paired_difference,
    scores_of,
)
from medxfer.evaluation.figures import FigureData

TWO = ("normal", "pneumonia")
THREE = ("a", "b", "c")


def draw(
    count: int, classes: int, *, seed: int = 0, lift: float = 1.0, digits: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities; few digits make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += lift
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = p.round(digits)
    return labels, p / p.sum(1, keepdims=True)


def own_patients(count: int) -> list[str]:
    return [f"P{number}" for number in range(count)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), digits=st.integers(1, 8), threshold=st.floats(0.1, 0.9))
def test_scores_of_two_classes_are_those_of_scikit_learn(seed: int, digits: int, threshold: float) -> None:
    labels, p = draw(60, 2, seed=seed, digits=digits)
    called = (p[:, 1] >= threshold).astype(int)

    scores = scores_of(labels, p, own_patients(60), classes=TWO, threshold=threshold, samples=3)

    expected = {
        "auroc": metrics.roc_auc_score(labels, p[:, 1]),
        "average_precision": metrics.average_precision_score(labels, p[:, 1]),
        "accuracy": metrics.accuracy_score(labels, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called),
        "f1": metrics.f1_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called),
        "specificity": metrics.recall_score(labels, called, pos_label=0),
        "brier": metrics.brier_score_loss(labels, p[:, 1]),
    }
    assert {name: scores[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert set(scores) == {*expected, "ece"}


def test_scores_of_three_classes_are_those_of_scikit_learn() -> None:
    labels, p = draw(200, 3, digits=2)
    called = p.argmax(1)

    scores = scores_of(labels, p, own_patients(200), classes=THREE, threshold=0.5, samples=3)

    expected = {
        "auroc": metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
        "average_precision": metrics.average_precision_score(np.eye(3)[labels], p, average="macro"),
        "accuracy": metrics.accuracy_score(labels, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called),
        "f1": metrics.f1_score(labels, called, average="macro"),
        "sensitivity": metrics.recall_score(labels, called, average="macro"),
        "brier": float(((p - np.eye(3)[labels]) ** 2).sum(1).mean()),
    }
    assert {name: scores[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert auroc_of(labels, p) == pytest.approx(expected["auroc"])


def test_intervals_are_the_percentiles_of_scikit_learn_on_resampled_patients() -> None:
    labels, p = draw(80, 2, digits=2)
    patients = [f"P{number // 2}" for number in range(80)]
    generator = np.random.default_rng(1)
    rows = np.arange(80).reshape(40, 2)
    resamples = [rows[generator.integers(0, 40, 40)].ravel() for _ in range(1000)]

    score = scores_of(labels, p, patients, classes=TWO, threshold=0.5, samples=1000)["auroc"]

    expected = np.quantile([metrics.roc_auc_score(labels[i], p[i, 1]) for i in resamples], [0.025, 0.975])
    assert [score.low, score.high] == pytest.approx(expected, abs=0.015)


def test_copies_of_a_patients_image_do_not_narrow_the_interval() -> None:
    labels, p = draw(80, 2)
    thrice, patients = np.tile(np.arange(80), 3), own_patients(80) * 3

    once = scores_of(labels, p, own_patients(80), classes=TWO, threshold=0.5)["auroc"]
    by_patient = scores_of(labels[thrice], p[thrice], patients, classes=TWO, threshold=0.5)["auroc"]
    by_image = scores_of(labels[thrice], p[thrice], own_patients(240), classes=TWO, threshold=0.5)["auroc"]

    assert by_patient.high - by_patient.low == pytest.approx(once.high - once.low, rel=1e-9)
    assert (by_patient.high - by_patient.low) / (by_image.high - by_image.low) == pytest.approx(
        math.sqrt(3), rel=0.15
    )
    assert (by_patient.n, by_patient.patients) == (240, 80)


def test_calibration_error_by_hand() -> None:
    # bin .2 to .3: stated .25 twice, happened once (off by .25); bin .9 to 1: .95 twice, once (off by .45)
    p1 = np.array([0.25, 0.25, 0.95, 0.95])
    labels = np.array([0, 1, 0, 1])

    score = scores_of(
        labels, np.stack([1 - p1, p1], 1), own_patients(4), classes=TWO, threshold=0.5, samples=10
    )["ece"]

    assert score.value == pytest.approx(0.5 * 0.25 + 0.5 * 0.45)


@pytest.mark.parametrize("only", [0, 1])
def test_a_split_of_one_class_has_undefined_scores(only: int) -> None:
    _, p = draw(30, 2)

    scores = scores_of(np.full(30, only), p, own_patients(30), classes=TWO, threshold=0.5, samples=20)

    assert scores["auroc"].text() == "not defined"
    assert f"no case of {TWO[1 - only]}" in scores["auroc"].note
    assert scores["auroc"].to_plain()["value"] is None
    assert scores["accuracy"].is_defined
    assert scores[("sensitivity", "specificity")[only]].text() == "not defined"
    assert [
        figure.kind
        for figure in figures_of(np.full(30, only), p, own_patients(30), classes=TWO, threshold=0.5)
    ] == [
        "confusion",
        "reliability",
        "histogram",
    ]


def test_a_class_without_cases_is_left_out_of_means_and_said() -> None:
    labels, p = draw(90, 3)
    labels[labels == 2] = 0

    scores = scores_of(labels, p, own_patients(90), classes=THREE, threshold=0.5, samples=20)

    assert scores["auroc"].value == pytest.approx(
        np.mean([metrics.roc_auc_score(labels == label, p[:, label]) for label in (0, 1)])
    )
    assert "no case of c" in scores["auroc"].note


def test_no_cases_at_all_is_said() -> None:
    scores = scores_of(np.zeros(0, int), np.zeros((0, 2)), [], classes=TWO, threshold=0.5)

    assert {score.text() for score in scores.values()} == {"not defined"}
    assert figures_of(np.zeros(0, int), np.zeros((0, 2)), [], classes=TWO, threshold=0.5) == []


def test_one_patient_gives_no_interval() -> None:
    labels, p = draw(30, 2)

    score = scores_of(labels, p, ["P0"] * 30, classes=TWO, threshold=0.5, samples=20)["auroc"]

    assert math.isnan(score.low)
    assert "one patient" in score.note


def test_a_faultless_split_does_not_claim_certainty() -> None:
    labels = np.arange(40) % 2
    p1 = np.where(labels == 1, 0.9, 0.1)

    scores = scores_of(labels, np.stack([1 - p1, p1], 1), own_patients(40), classes=TWO, threshold=0.5)

    assert scores["sensitivity"].value == scores["auroc"].value == 1.0
    assert scores["sensitivity"].low == pytest.approx(20 / (20 + 1.96**2), abs=1e-3)
    assert scores["auroc"].high == 1.0


def test_few_patients_are_said() -> None:
    labels = np.array([1] * 6 + [0] * 40)
    _, p = draw(46, 2)

    scores = scores_of(labels, p, own_patients(46), classes=TWO, threshold=0.5, samples=50)

    assert scores["auroc"].note == "few patients: 6 with pneumonia"


def test_same_seed_same_intervals() -> None:
    labels, p = draw(50, 2)

    one, two = (
        scores_of(labels, p, own_patients(50), classes=TWO, threshold=0.5, seed=4, samples=50) for _ in "ab"
    )

    assert one == two


def test_order_of_cases_changes_no_point_value() -> None:
    labels, p = draw(50, 2, digits=1)
    other = np.random.default_rng(0).permutation(50)

    one = scores_of(labels, p, own_patients(50), classes=TWO, threshold=0.5, samples=5)
    two = scores_of(labels[other], p[other], own_patients(50), classes=TWO, threshold=0.5, samples=5)

    assert {name: s.value for name, s in one.items()} == pytest.approx(
        {name: s.value for name, s in two.items()}
    )


def test_baseline_names_the_most_frequent_class() -> None:
    labels = np.array([0] * 10 + [1] * 30)

    scores = baseline_of(labels, own_patients(40), classes=TWO, shares=[300, 700], samples=50)

    assert scores["auroc"].value == 0.5
    assert scores["accuracy"].value == 0.75
    assert scores["average_precision"].value == 0.75
    assert scores["brier"].value == pytest.approx(0.75 * 0.3**2 + 0.25 * 0.7**2)
    assert (scores["sensitivity"].value, scores["specificity"].value) == (1.0, 0.0)


def test_baseline_without_training_shares_uses_those_of_the_split() -> None:
    labels = np.array([0] * 30 + [1] * 10)

    scores = baseline_of(labels, own_patients(40), classes=TWO, samples=50)

    assert scores["accuracy"].value == 0.75
    assert scores["ece"].value == pytest.approx(0.0)


def test_paired_difference_of_equals_is_zero_without_width() -> None:
    labels, p = draw(100, 2)

    score = paired_difference(
        labels, p, p, own_patients(100), classes=TWO, thresholds=(0.5, 0.5), samples=100
    )["auroc"]

    assert (score.value, score.low, score.high) == (0.0, 0.0, 0.0)


def test_paired_difference_is_second_minus_first_and_narrower_than_apart() -> None:
    labels, p = draw(300, 2, lift=1.0)
    better = p.copy()
    better[np.arange(300), labels] += 0.15
    better /= better.sum(1, keepdims=True)
    options = {"classes": TWO, "samples": 400}

    difference = paired_difference(labels, p, better, own_patients(300), thresholds=(0.5, 0.5), **options)[
        "auroc"
    ]
    one = scores_of(labels, p, own_patients(300), threshold=0.5, **options)["auroc"]
    two = scores_of(labels, better, own_patients(300), threshold=0.5, **options)["auroc"]

    assert difference.value == pytest.approx(two.value - one.value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < one.high - one.low


def test_threshold_by_youden_is_the_best_cut() -> None:
    labels, p = draw(200, 2, digits=2)

    threshold = choose_threshold(labels, p[:, 1], "youden")

    def youden(cut: float) -> float:
        called = p[:, 1] >= cut
        return float(called[labels == 1].mean() - called[labels == 0].mean())

    assert youden(threshold) == pytest.approx(max(youden(cut) for cut in p[:, 1]))


def test_threshold_stands_in_the_middle_of_a_gap() -> None:
    assert choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_threshold_by_f1_is_the_best_cut() -> None:
    labels, p = draw(200, 2, digits=2)

    threshold = choose_threshold(labels, p[:, 1], "f1")

    best = max(metrics.f1_score(labels, p[:, 1] >= cut) for cut in p[:, 1])
    assert metrics.f1_score(labels, p[:, 1] >= threshold) == pytest.approx(best)


def test_threshold_of_one_class_is_a_half_and_an_unknown_rule_is_refused() -> None:
    assert choose_threshold(np.zeros(5, int), np.linspace(0, 1, 5)) == 0.5
    assert choose_threshold(np.array([0, 1]), np.array([0.1, 0.2]), "half") == 0.5
    with pytest.raises(ConfigError, match="youdn"):
        choose_threshold(np.array([0, 1]), np.array([0.1, 0.2]), "youdn")


@pytest.mark.parametrize("classes", [TWO, THREE])
def test_figures_survive_the_way_through_json(classes: tuple[str, ...]) -> None:
    import json

    labels, p = draw(90, len(classes))

    figures = figures_of(labels, p, own_patients(90), classes=classes, threshold=0.5, samples=20)
    back = [
        FigureData.from_plain(json.loads(json.dumps(figure.to_plain(), allow_nan=False)))
        for figure in figures
    ]

    assert [figure.kind for figure in back] == ["roc", "pr", "confusion", "reliability", "histogram"]
    assert sum(map(sum, back[2].data["matrix"])) == sum(back[3].data["counts"]) == 90
    roc = back[0].data["series"][0]
    assert (roc["x"][0], roc["y"][-1]) == (0.0, 1.0)
    assert all(low <= high for low, high in zip(roc["low"], roc["high"], strict=True))
