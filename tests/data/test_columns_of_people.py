"""Patients by columns that are not called so, classes misspelt, tables told by their columns of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.create import write_bundle
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import DataSpec, PatientSpec, SplitSpec
from medxfer.cli import main
from medxfer.data.cases import Found, find_cases
from medxfer.data.inspect import facts_of
from medxfer.data.listing.misspelt import meant
from medxfer.errors import DataError

from .faults import chest, class_folders, picture


def table(root: Path, head: str, rows: list[str]) -> Path:
    for number in range(len(rows)):
        picture(root / "images" / f"{number}.png", chest(number, 32))
    text = "".join(f"images/{number}.png,{row}\n" for number, row in enumerate(rows))
    (root / "labels.csv").write_text(f"file,{head}\n{text}")
    return root


def find(root: Path, **options: object) -> Found:
    return find_cases(DataSpec(source=str(root), **options), root)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["exam", "Exam ID", "StudyInstanceUID", "case_id", "subject_no", "person"])
def test_init_takes_a_repeating_column_named_after_people_and_says_so(tmp_path: Path, name: str) -> None:
    data = table(tmp_path / "data", f"label,{name}", [f"{'ab'[n % 2]},e{n // 3}" for n in range(12)])

    facts = facts_of(data, "classification", "xray")
    bundle = write_bundle(facts, tmp_path / "mine", task="classification", modality="xray")

    assert facts.patient == PatientSpec(column=name)
    assert facts.patients == 4
    assert any(f"column `{name}` of labels.csv (4 values in 12 rows)" in note for note in facts.notes)
    assert load_bundle(bundle).data.patient.column == name
    assert "correct it if that is not the patient" in (bundle / "configs" / "train.yaml").read_text()


@pytest.mark.parametrize("values", ["e{n}", "only", "{half}"], ids=["all differ", "one", "two"])
def test_columns_that_tell_nobody_apart_are_not_taken(tmp_path: Path, values: str) -> None:
    rows = [f"{'ab'[n % 2]}," + values.format(n=n, half=n // 6) for n in range(12)]
    data = table(tmp_path, "label,exam", rows)

    assert facts_of(data, "classification", "xray").patient == PatientSpec()


def test_a_table_beside_class_folders_gives_the_patient(tmp_path: Path) -> None:
    data = class_folders(tmp_path, 6)
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    rows = "".join(f"{name},{name.split('/')[0]},e{n % 6 // 2},x{n}\n" for n, name in enumerate(names))
    (data / "list.csv").write_text(f"file,label,exam,note\n{rows}")

    found, facts = find(data), facts_of(data, "classification", "xray")

    assert any("column `exam` of list.csv" in note and "data.patient.column" in note for note in found.notes)
    assert (facts.labels, facts.column, facts.patient) == ("list.csv", "label", PatientSpec(column="exam"))
    assert (facts.images, facts.patients) == (12, 3)
    named = facts_of(data, "classification", "xray", patient_column="note")
    assert (named.patient, named.patients) == (PatientSpec(column="note"), 12)


def test_a_table_with_other_labels_than_the_folders_changes_nothing(tmp_path: Path) -> None:
    data = class_folders(tmp_path, 6)
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    rows = "".join(f"{name},{'ab'[n % 2]},e{n // 2}\n" for n, name in enumerate(names))
    (data / "list.csv").write_text(f"file,grade,exam\n{rows}")

    facts = facts_of(data, "classification", "xray")

    assert (facts.layout, facts.labels, facts.patient) == ("class_folders", None, PatientSpec())


def test_a_class_one_letter_from_a_frequent_one_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(
        tmp_path, "label,patient", [f"{'yess' if n == 5 else ('no', 'yes')[n % 2]},p{n}" for n in range(20)]
    )

    notes = [note for note in find(data).notes if "misspelt?" in note]

    assert len(notes) == 1
    assert "class `yess` (1 image: labels.csv, line 7) is one letter from `yes` (9 images)" in notes[0]
    with pytest.raises(SystemExit, match="3"):
        main(["doctor", "data", str(data), "--no-sheet", "-q"])
    refused, _, suspects = " ".join(capsys.readouterr().out.split()).partition("SUSPECT")
    assert "misspelt?" in suspects
    assert "did you mean `yes`?" in refused


@pytest.mark.parametrize(
    ("name", "is_slip"),
    [("yess", True), ("ye", True), ("eys", True), ("yse", True), ("yas", True), ("Yes", False), ("no", False),
     ("yesss", False), ("yes2", False), ("maybe", False)],
)  # fmt: skip
def test_slips_are_one_letter_and_no_digit(name: str, is_slip: bool) -> None:
    assert (meant(name, {name: 1, "yes": 30, "unsure": 30}) == "yes") is is_slip


def test_stages_and_frequent_classes_are_no_slips() -> None:
    assert meant("T1a", {"T1a": 1, "T2a": 30}) is None
    assert meant("cyst", {"cyst": 3, "cysts": 30}) is None
    assert meant("cyst", {"cyst": 2, "cysts": 9}) is None


def test_tables_are_told_by_the_columns_of_files_that_the_bundle_names(tmp_path: Path) -> None:
    for number in range(4):
        for folder in ("flair", "t1"):
            picture(tmp_path / folder / f"{number}.png", chest(number, 32))
    rows = "".join(f"flair/{n}.png,t1/{n}.png,{'ab'[n % 2]}\n" for n in range(4))
    (tmp_path / "labels.csv").write_text(f"flair,t1,label\n{rows}")

    found = find(tmp_path, images=("flair", "t1"))

    assert [len(case.images) for case in found.cases] == [2] * 4
    with pytest.raises(DataError) as caught:
        find(tmp_path, images=("flair", "t2"))
    assert "no label table (CSV) with the columns flair, t2" in caught.value.seen
    with pytest.raises(DataError) as caught:
        find(tmp_path / "flair")
    assert "add a table" in caught.value.todo


def test_images_of_one_value_mostly_get_a_wide_window(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(4):
            pixels = np.zeros((64, 64), np.uint8)
            pixels[10 : 16 + number, 20:26] = 150 + number
            picture(tmp_path / "data" / label / f"{number}.png", pixels)

    facts = facts_of(tmp_path / "data", "classification", "xray")
    bundle = write_bundle(facts, tmp_path / "mine", task="classification", modality="xray")

    assert facts.is_dominated
    assert load_bundle(bundle).images.adjust == {"PercentileWindow": {"lower": 0.0, "upper": 100.0}}
    assert not facts_of(class_folders(tmp_path / "full", 4), "classification", "xray").is_dominated


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init", "{out}", "--data", "{data}", "--patient-column", "exom"], "set --patient-column"),
        (["init", "{out}", "--data", "{data}", "--column", "lable"], "set --column"),
        (["doctor", "data", "{data}", "--no-sheet", "-q", "--split-column", "exom"], "set --split-column"),
        (
            ["doctor", "data", "{data}", "--no-sheet", "-q", "--patient-column", "exom"],
            "set --patient-column",
        ),
    ],
)
def test_messages_name_the_options_of_the_command(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "data", "label,exam", [f"{'ab'[n % 2]},e{n // 3}" for n in range(12)])
    given = [text.format(out=tmp_path / "mine", data=data) for text in arguments]

    with pytest.raises(SystemExit, match="3"):
        main(given)

    told = "".join(capsys.readouterr())
    assert words in " ".join(told.split())
    assert "data.patient.column" not in told


def test_a_split_column_that_is_not_there_is_named_by_its_own_key(tmp_path: Path) -> None:
    data = table(tmp_path, "label,exam", [f"{'ab'[n % 2]},e{n // 3}" for n in range(12)])
    with pytest.raises(DataError, match=r"data\.split\.column"):
        find(data, split=SplitSpec(column="exom"))
