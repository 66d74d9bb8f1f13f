from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from medxfer.reports.model_card import as_markdown, write_model_card
from medxfer.run_folder import RunFolder
from tests.reports.made_run import make_run

SECTIONS = (  # Mitchell et al. 2019, figure 1
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
)


def test_the_card_has_the_sections_of_the_paper_in_order(finished: RunFolder) -> None:
    card = write_model_card(finished).read_text(encoding="utf-8")

    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)


def test_the_card_is_honest_on_what_it_is(finished: RunFolder, shifted: RunFolder) -> None:
    synthetic = write_model_card(finished).read_text(encoding="utf-8")
    given = write_model_card(shifted).read_text(encoding="utf-8")

    assert "Not a medical device" in synthetic
    assert "SYNTHETIC" in synthetic
    assert "SYNTHETIC" not in given
    assert "The test data differ from the training data" in given


def test_tables_have_as_many_cells_as_their_head(finished: RunFolder) -> None:
    lines = write_model_card(finished).read_text(encoding="utf-8").splitlines()

    tables = [line.count("|") for line in lines if line.startswith("|")]
    score = finished.read("scores.json")["test"]["auroc"]
    row = f"| AUROC | {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) |"
    assert set(tables) == {5}
    assert any(line.startswith(row) for line in lines)


def test_names_from_data_cannot_break_the_card(tmp_path: Path) -> None:
    folder = make_run(tmp_path, classes=("a|b", "<img src=x>\n# no"))

    card = write_model_card(folder).read_text(encoding="utf-8")

    assert "<img" not in card
    assert "\n# no" not in card
    assert as_markdown("a|b_c") == r"a\|b\_c"


def test_an_unfinished_run_has_a_card(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"status": "failed"})

    assert "the run is not finished" in write_model_card(folder).read_text(encoding="utf-8")


def test_a_table_ends_with_an_empty_line(finished: RunFolder) -> None:
    lines = write_model_card(finished).read_text(encoding="utf-8").splitlines()

    after = [second for first, second in pairwise(lines) if first.startswith("|")]

    assert all(line == "" or line.startswith("|") for line in after)
