"""Two runs on the cases they share, whatever their predictions are."""

from __future__ import annotations

from pathlib import Path

import pytest

from medxfer.errors import DataError
from medxfer.methods.compare import compare_runs
from medxfer.methods.folds import summary_of
from medxfer.run_folder import RunFolder

CASES = 12


def masks_run(root: Path, *, better: float = 0.0, true: float = 3.0) -> RunFolder:
    """The files of a run of masks: two classes, `b` is in every second case only."""
    folder = RunFolder(root)
    rows = []
    for number in range(CASES):
        dice = 0.6 + 0.02 * number + better
        there = number % 2 == 0
        rows.append(
            {
                "case": f"c{number}",
                "dice": dice,
                "dice_a": dice,
                "dice_b": dice - 0.2 if there else "",
                "hd95_mm_a": 4 - number / 10,
                "hd95_mm_b": 9 if there else "",
                "true_volume_ml_a": true,
                "true_volume_ml_b": 1.0 if there else 0.0,
            }
        )
    score = {"value": 0.7 + better, "low": 0.6, "high": 0.8, "n": CASES, "patients": CASES}
    folder.write(
        "scores.json",
        {"classes": ["a", "b"], "test": {"dice": score}, "by_class": {"test": {"a": {"dice": score}}}},
    )
    folder.write("predictions/test.csv", rows)
    folder.write("split.csv", [{"case": f"c{number}", "patient": f"p{number}"} for number in range(CASES)])
    folder.write("run.json", {"status": "done"})
    folder.write("config.yaml", "seed: 0\n")
    return folder


def test_runs_of_masks_are_compared_case_by_case(tmp_path: Path) -> None:
    first, second = masks_run(tmp_path / "one"), masks_run(tmp_path / "two", better=0.05)

    rows = compare_runs([first.root, second.root])

    assert [(Path(row["run"]).name, row["score"]) for row in rows] == [
        ("one", "dice"), ("one", "hd95_mm"), ("two", "dice"), ("two", "hd95_mm"),
    ]  # fmt: skip
    # a: mean of 0.60 to 0.82; b: of every second, 0.2 lower
    assert rows[0]["value"] == pytest.approx((0.71 + 0.50) / 2)
    assert rows[2]["difference"] == pytest.approx(0.05)
    assert rows[2]["low"] == pytest.approx(0.05)  # the same gain in every case: nothing varies
    assert (rows[3]["difference"], rows[3]["n"]) == (0.0, CASES)


def test_other_true_masks_are_refused(tmp_path: Path) -> None:
    first, second = masks_run(tmp_path / "one"), masks_run(tmp_path / "two", true=3.5)

    with pytest.raises(DataError, match=r"true_volume_ml_a of c0 is 3\.5, in the first run 3"):
        compare_runs([first.root, second.root])


def test_predictions_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first, second = masks_run(tmp_path / "one"), masks_run(tmp_path / "two")
    rows = [{"case": f"c{number}", "label": "a; b", "p_a": 0.5, "p_b": 0.5} for number in range(CASES)]
    second.write("predictions/test.csv", rows)

    with pytest.raises(DataError, match="columns case, label, p_a, p_b"):
        compare_runs([first.root, second.root])


def test_folds_are_summed_up_for_each_class(tmp_path: Path) -> None:
    runs = [masks_run(tmp_path / "one"), masks_run(tmp_path / "two", better=0.1)]

    found = summary_of(runs)

    assert found["test"]["dice"]["mean"] == pytest.approx(0.75)
    assert found["by_class"]["a"]["dice"] == {**found["test"]["dice"]}
    assert found["runs"] == ["one", "two"]
