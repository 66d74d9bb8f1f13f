from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medxfer.cli import main

from ..data.faults import chest, class_folders, dicom, picture, saved

BUNDLE = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "data", *map(str, words)])
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    return int(caught.value.code or 0), output.out, output.err


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder apart from the data."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_good_data_end_with_0_and_a_sheet_in_the_working_folder(
    tmp_path: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, class_folders(tmp_path / "films", 12))

    assert code == 0
    assert "classes     normal 12, pneumonia 12" in out
    assert "verdict: a run would take these data" in out
    with Image.open(desk / "doctor-sheet.png") as sheet:
        assert sheet.width > 1000
    assert [path.name for path in desk.iterdir()] == ["doctor-sheet.png"]


@pytest.mark.parametrize("width", [80, 120])
def test_report_is_no_wider_than_the_terminal(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    root = class_folders(tmp_path / "films", 12)
    (root / "normal" / ("a long name " * 8 + ".png")).touch()
    shutil.copy(root / "normal/n000.png", root / "pneumonia/copy of another.png")

    code, out, _ = run(capsys, root)

    assert code == 3
    assert max(map(len, out.splitlines())) <= width
    assert "1 bad file or table row" in out
    assert "0 bytes" in out
    assert "verdict: a run would refuse these data" in out


def test_json_is_whole_and_tells_which_case_a_number_on_the_sheet_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "films", 12)
    Path(os.fsdecode(os.fsencode(root) + b"/normal/na\xefve.png")).write_bytes(b"")

    code, out, _ = run(capsys, root, "--json", "-o", "overview.png")
    report = json.loads(out)

    assert code == 3
    assert report["verdict"] == "refused"
    assert report["facts"]["readable"] == 24
    assert report["bad_files"][0]["case"] == "normal/na\\xefve.png"
    assert {"level", "where", "problem", "todo", "cases", "is_seen"} == set(report["findings"][0])
    assert report["sheet"]["file"] == "overview.png"
    assert report["sheet"]["cases"]["1"] == "normal/n000.png"
    assert Path("overview.png").is_file()


def test_a_bundle_says_how_its_data_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(class_folders(tmp_path / "films", 12, "train"), 6, "test")
    for number in range(4):
        picture(root / "train/pneumonia" / f"person{number // 2}_virus_{number}.jpeg", chest(900 + number))
    picture(root / "test/pneumonia/person1_virus_9.jpeg", chest(950))
    (root / "train/normal/IM-0001.png").touch()

    code, out, _ = run(capsys, root, "--bundle", BUNDLE, "--no-sheet")

    assert code == 3
    assert "told apart by pattern" in out
    assert "1 patients in train and test" in re.sub(r"\s+", " ", out)
    assert not Path("doctor-sheet.png").exists()


def test_labels_that_the_bundles_task_does_not_know_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "films", 12)
    for number in range(6):
        picture(root / "pnuemonia" / f"person{number}_virus_1.png", chest(300 + number))

    code, out, _ = run(capsys, root, "--bundle", BUNDLE, "--no-sheet", "--json")

    problems = [one for one in json.loads(out)["findings"] if one["level"] == "refused"]
    assert code == 3
    assert "label that the task does not know: pnuemonia" in problems[0]["problem"]
    assert "did you mean pneumonia" in problems[0]["todo"]
    assert len(problems[0]["cases"]) == 6


def test_any_rule_of_reading_can_be_set_without_a_bundle_and_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "films", 12)
    (root / "normal/empty.png").touch()
    (root / "exclude.txt").write_text("normal/empty.png  # nothing in it")

    refused = run(capsys, root, "--no-sheet")[0]
    skipped, out, _ = run(capsys, root, "--no-sheet", "--set", "data.on_bad_image=skip")
    excluded = run(capsys, root, "--no-sheet", "--set", "data.exclude=exclude.txt")[0]
    ours = ("--bundle", BUNDLE, "--set", "data.patient.pattern=null", "--set", "data.exclude=exclude.txt")
    bundle = run(capsys, root, "--no-sheet", *ours)[0]

    assert (refused, skipped, excluded, bundle) == (3, 0, 0, 0)
    assert "the run leaves them out" in out


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.on_bad_imag=skip", "on_bad_image"),
        ("images.size=64", "not about `data`"),
        ("data.volume", "KEY="),
    ],
)
def test_settings_that_are_none_are_usage_errors(
    tmp_path: Path, setting: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, class_folders(tmp_path / "films", 12), "--no-sheet", "--set", setting)

    assert code == 2
    assert said in err


def test_each_missing_file_of_a_table_has_its_own_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["file,label"]
    for number in range(12):
        rows.append(f"a{number}.png,{number // 2 % 2}")
        if number % 3:
            picture(tmp_path / "films" / f"a{number}.png", chest(number))
    (tmp_path / "films/labels.csv").write_text("\n".join(rows))

    code, out, _ = run(capsys, tmp_path / "films", "--no-sheet", "--json")

    bad = json.loads(out)["bad_files"]
    assert code == 3
    assert [one["case"] for one in bad] == [f"labels.csv, line {number + 2}" for number in (0, 3, 6, 9)]
    assert [one["seen"] for one in bad] == [f"a{number}.png: no such file" for number in (0, 3, 6, 9)]


def test_bundle_and_columns_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path, "--bundle", BUNDLE, "--column", "x")

    assert code == 2
    assert "--bundle and --column" in err


def test_no_place_for_the_sheet_costs_the_sheet_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("a file")

    code, out, err = run(capsys, class_folders(tmp_path / "films", 12), "-o", "taken/sheet.png")

    assert code == 0
    assert "no contact sheet" in err
    assert "verdict" in out


def test_nothing_of_a_patient_is_printed(
    tmp_path: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        tags = {"PatientName": "Quill^Zephyrine", "PatientID": "P0417", "PatientBirthDate": "19410203"}
        image = dicom(chest(number).astype(np.uint16), StudyInstanceUID="1.2.826.0.1.417", **tags)
        saved(image, tmp_path / "films" / "ab"[number % 2] / f"{number}.dcm")

    texts = [*run(capsys, tmp_path / "films")[1:], *run(capsys, tmp_path / "films", "--json")[1:]]

    kept = "".join(texts).encode() + b"".join(path.read_bytes() for path in desk.iterdir())
    for word in (b"Quill", b"Zephyrine", b"P0417", b"19410203", b"1.2.826.0.1.417"):
        assert word not in kept
