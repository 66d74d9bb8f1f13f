from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medxfer.data.listing.patients import ALONE
from medxfer.errors import DataError
from medxfer.evaluation.figures import FigureData
from medxfer.reports.html import write_report
from medxfer.run_folder import FileName, RunFolder
from medxfer.surroundings import AS_BUNDLE
from tests.reports.made_run import make_run

VOID = {"meta", "img", "br", "link", "input", "hr", "use", "path"}


class Page(HTMLParser):
    """Text, ids and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.addresses += [found[name] or "" for name in ("src", "href", "xlink:href") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += " " + " ".join(data.split())


def page_of(folder: RunFolder) -> tuple[str, Page]:
    text = write_report(folder).read_text(encoding="utf-8")
    return text, Page(text)


def test_the_report_asks_nothing_of_the_network(finished: RunFolder) -> None:
    text, page = page_of(finished)

    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
    assert all(address.startswith(("data:image/png", "#")) for address in page.addresses)
    assert page.open == []


def test_ids_are_unique_and_references_have_a_target(finished: RunFolder) -> None:
    text, page = page_of(finished)

    references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    assert len(page.ids) == len(set(page.ids))
    assert references <= set(page.ids)


def test_first_lines_hold_score_interval_numbers_and_synthetic(finished: RunFolder) -> None:
    words = page_of(finished)[1].words
    score = finished.read("scores.json")["test"]["auroc"]

    first = words[: words.index("What was run")]

    assert f"{score['value']:.3f}" in first
    assert f"{score['low']:.3f} to {score['high']:.3f}" in first
    assert "200 images of 167 patients" in first
    assert "SYNTHETIC" in first


def test_first_lines_hold_the_alarms(shifted: RunFolder) -> None:
    words = page_of(shifted)[1].words

    first = words[: words.index("What was run")]

    assert "The test data differ from the training data" in first
    assert "trivial baseline" in first
    assert "SYNTHETIC" not in first
    assert "patient data" in first


def test_sections_hold_what_the_files_say(finished: RunFolder) -> None:
    words = page_of(finished)[1].words

    for expected in (
        "medxfer run bundles/pneumonia_cls",
        "PatientID of the DICOM files",
        "400 images, 334 patients",
        "Balanced accuracy",
        "ROC curve, test",
        "Precision and recall, test",
        "Calls, test",
        "Reliability of the probabilities, test",
        "Loss over epochs",
        "Blank map",
        "99.6% of the encoder's parameters came from the file",
        "classifier.weight",
        "1.8 times as fast as fp32 here",
        "truncated pixel data",
        "2.13.0",
    ):
        assert expected in words, expected


def test_what_a_timing_chose_is_given_as_options(copied: RunFolder) -> None:
    options = "--set training.precision=bf16 --set training.memory_format=channels_last"
    about = copied.read("run.json")
    chosen = {name: {**one, "why": AS_BUNDLE} for name, one in about["chosen"].items()}

    assert options in write_report(copied).read_text(encoding="utf-8")
    copied.update(chosen=chosen, resumed=2)
    page = write_report(copied).read_text(encoding="utf-8")
    assert "--set training" not in page
    assert "resumed, times" in page


def test_three_classes_are_drawn(tmp_path: Path) -> None:
    folder = make_run(tmp_path, classes=("normal", "bacterial", "viral"))

    words = page_of(folder)[1].words

    for name in ("normal: AUROC", "bacterial: AUROC", "viral: AUROC"):
        assert name in words


def test_a_table_stands_in_the_page_as_a_table(copied: RunFolder) -> None:
    data = {"columns": ["Case", "Dice"], "rows": [["a < b & $c$", "0.10"]]}
    empty = FigureData(kind="table", title="Nothing here", data={"columns": ["Case", "Dice"], "rows": []})
    copied.write(
        "figures.json", [FigureData(kind="table", title="Worst", data=data).to_plain(), empty.to_plain()]
    )

    text, page = page_of(copied)

    assert '<th scope="row">a &lt; b &amp; $c$</th><td>0.10</td>' in text
    assert "Nothing here Case Dice none" in " ".join(page.words.split())
    assert page.open == []


def test_unknown_patients_are_said_before_the_scores_are_believed(copied: RunFolder) -> None:
    about = copied.read("run.json")
    copied.write("run.json", about | {"data": about["data"] | {"patient_key": ALONE}})

    words = page_of(copied)[1].words

    assert "Nothing tells which images are of one patient" in words[: words.index("What was run")]
    assert "No patient is in more than one split" not in words


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cases.json", "No cases.json"),
        ("figures.json", "No figures.json"),
        ("scores.json", "no scores yet"),
        ("history.csv", "No history.csv"),
        ("receipt.json", "No receipt.json"),
        ("split.csv", "No split.csv"),
    ],
)
def test_a_missing_file_is_said_in_its_section(copied: RunFolder, name: FileName, said: str) -> None:
    copied.path(name).unlink()

    assert said in page_of(copied)[1].words


def test_a_folder_of_an_early_end_is_drawn(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"status": "interrupted"})
    folder.write("config.yaml", "seed: 0\n")

    assert "status is interrupted" in page_of(folder)[1].words


def test_undefined_scores_are_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    scores = folder.read("scores.json")
    scores["test"]["auroc"] |= {"value": None, "low": None, "high": None, "note": "no case of pneumonia"}
    folder.write("scores.json", scores)

    words = page_of(folder)[1].words

    assert "not defined" in words
    assert "nan" not in words.lower().split()


def test_unknown_scores_and_kinds_of_figure_do_not_stop_it(copied: RunFolder) -> None:
    scores = copied.read("scores.json")
    scores["test"]["time_to_read"] = {"value": 0.81, "low": 0.7, "high": 0.9, "n": 5, "patients": 5}
    copied.write("scores.json", scores)
    copied.write("figures.json", [{"kind": "hologram", "title": "?", "data": {}, "caption": ""}])

    words = page_of(copied)[1].words

    assert "Time to read" in words
    assert "0.810 (0.700 to 0.900)" in words
    assert "hologram" in words


def test_names_from_data_are_shown_and_never_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, classes=("a$b$<script>alert(1)</script>", 'quote" & <b>'))

    text, page = page_of(folder)

    assert "<script" not in text
    assert "<b>" not in text
    assert page.open == []


def test_pictures_can_be_left_out_and_come_from_the_run_folder_only(
    copied: RunFolder, tmp_path: Path
) -> None:
    without = write_report(copied, pictures=False).read_text(encoding="utf-8")
    (tmp_path / "secret.png").write_bytes((copied.root / "pictures/best-1.png").read_bytes())
    cases = copied.read("cases.json")
    one = {**cases["groups"]["best"][0], "picture": "../secret.png", "heat": "pictures/absent.png"}
    legend = [{"kind": "true", "name": "a", "colour": "red;background:url(x)"}]
    copied.write("cases.json", {"groups": {"best": [one]}, "legend": legend})

    text, page = page_of(copied)

    assert "data:image" not in without
    assert "data:image" not in text
    assert "not in the run folder" in page.words
    assert "url(x)" not in text


def test_the_home_folder_is_not_named(shifted: RunFolder) -> None:
    text, _ = page_of(shifted)

    assert str(Path.home() / "data") not in text
    assert "~/data" in text


def test_a_patient_in_two_splits_is_said(copied: RunFolder) -> None:
    rows = copied.read("split.csv")
    rows[0]["patient"] = rows[-1]["patient"]
    copied.write("split.csv", rows)

    assert "1 patient in more than one split" in page_of(copied)[1].words


def test_the_same_run_gives_the_same_report(finished: RunFolder) -> None:
    assert page_of(finished)[0] == page_of(finished)[0]


def test_a_damaged_file_is_named(copied: RunFolder) -> None:
    copied.path("scores.json").write_text("{", encoding="utf-8")

    with pytest.raises(DataError, match=r"scores\.json"):
        write_report(copied)
