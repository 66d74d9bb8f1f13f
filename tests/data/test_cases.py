from __future__ import annotations

import os
from pathlib import Path

import pytest

from medxfer.bundle.schema import DataSpec, PatientSpec
from medxfer.data.cases import Found, find_cases
from medxfer.data.listing.tables import read_table
from medxfer.errors import ConfigError, DataError

from .faults import chest, class_folders, dicom, picture, ramp, saved

STRICT = r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)"


def find(root: Path, **options: object) -> Found:
    return find_cases(DataSpec(source=str(root), **options), root)  # type: ignore[arg-type]


def refusal(root: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        find(root, **options)
    assert all((caught.value.seen, caught.value.accepted))
    return caught.value


def table(root: Path, text: str | bytes, count: int = 4, name: str = "labels.csv") -> Path:
    for number in range(count):
        picture(root / "images" / f"i{number}.png", chest(number))
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


ROWS = "file,label\nimages/i0.png,a\nimages/i1.png,b\nimages/i2.png,a\nimages/i3.png,b\n"


def test_folders_are_classes(tmp_path: Path) -> None:
    found = find(class_folders(tmp_path))

    assert found.layout == "class_folders"
    assert [case.id for case in found.cases][:2] == ["normal/n000.png", "normal/n001.png"]
    assert {case.label for case in found.cases} == {"normal", "pneumonia"}
    assert {case.split for case in found.cases} == {None}


@pytest.mark.parametrize(("names", "splits"), [(("TRAIN", "Valid", "test"), {"train", "val", "test"}),
                                              (("training", "validation"), {"train", "val"})])  # fmt: skip
def test_split_folders_are_known_by_many_names(
    tmp_path: Path, names: tuple[str, ...], splits: set[str]
) -> None:
    for name in names:
        class_folders(tmp_path, 2, name)

    found = find(tmp_path)

    assert {case.split for case in found.cases} == splits
    assert {case.label for case in found.cases} == {"normal", "pneumonia"}


def test_missing_folder_names_what_exists_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "pneumonia").mkdir()

    error = refusal(tmp_path / "penumonia" / "train")

    assert str(tmp_path) in error.seen
    assert "pneumonia" in error.todo


def test_empty_folder_file_and_empty_class_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    class_folders(tmp_path / "one")
    (tmp_path / "one" / "covid").mkdir()

    assert "no image files" in refusal(tmp_path / "empty").seen
    assert "a file" in refusal(tmp_path / "file").seen
    error = refusal(tmp_path / "one")
    assert error.where.endswith("covid")
    assert "without images" in error.seen


def test_images_without_classes_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", chest(0))

    assert "no classes" in refusal(tmp_path).seen


def test_a_table_gives_labels_patients_splits_and_extra_columns(tmp_path: Path) -> None:
    rows = ("images/i0.png,a,7,train,3", "i1.png,b,8,,4", "i2,a,9,Valid,5", "images/i3,b,9,test,6")
    text = "\n".join(("file,label,patient,split,age", *rows))

    found = find(table(tmp_path, text))

    assert found.layout == "csv"
    assert [case.patient for case in found.cases] == ["7", "8", "9", "9"]
    assert [case.split for case in found.cases] == ["train", None, "val", "test"]
    assert found.cases[0].extra["age"] == "3"
    assert found.patient_key == "column `patient` of labels.csv"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ROWS.encode(),
        ROWS.replace(",", ";").encode(),
        ROWS.replace(",", "\t").encode(),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.encode("utf-16"),
        ROWS.replace("file", "Image ").encode(),
    ],
    ids=["bom", "semicolon", "tab", "crlf", "utf-16", "other name"],
)
def test_tl1_tl2_tl3_csv_dialects_are_read(tmp_path: Path, content: bytes) -> None:
    assert [case.label for case in find(table(tmp_path, content)).cases] == ["a", "b", "a", "b"]


def test_tl4_rows_of_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    text = ROWS + "".join(f"images/gone{number}.png,a\n" for number in range(7))

    error = refusal(table(tmp_path, text))

    assert "7 of 11 rows" in error.seen
    assert "gone4" in error.seen
    assert "gone5" not in error.seen
    assert "line 6" in error.seen
    assert len(find(tmp_path, on_bad_image="skip").cases) == 4


def test_tl5_a_row_that_repeats_another_is_kept_once_and_said(tmp_path: Path) -> None:
    found = find(table(tmp_path, ROWS + "images/i0.png,a\n"))

    assert len(found.cases) == 4
    assert any("1 rows of labels.csv repeat" in note for note in found.notes)


def test_tl6_one_image_with_two_labels_is_refused_with_both_lines(tmp_path: Path) -> None:
    error = refusal(table(tmp_path, ROWS + "images/i0.png,b\n"))

    assert "duplicate case" in error.seen
    assert "lines 2 and 6, with the labels `a` and `b`" in error.seen


def test_tl7_missing_label_column_names_the_columns_and_the_nearest(tmp_path: Path) -> None:
    error = refusal(table(tmp_path, ROWS.replace("label", "lable")))

    assert "file, lable" in error.seen
    assert "`lable`" in error.todo


def test_tl11_paths_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    for number, path in enumerate(("../../etc/passwd", "/etc/passwd", "C:\\x.png")):
        error = refusal(table(tmp_path / str(number), ROWS + f"{path},a\n"))
        assert "leaves the data folder" in error.seen
        assert "line 6" in error.where


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("file,label\n", "no rows"),
        ("file,label\nimages/i0.png\n", "1 cells"),
        ("file,label,label\nimages/i0.png,a,b\n", "twice"),
        ("file,label\n,a\n", "no file name"),
        ("file,label,split\nimages/i0.png,a,trian\n", "trian"),
        ("label\na\n", "no column with file names"),
    ],
)
def test_tl13_broken_tables_have_one_reason_each(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(table(tmp_path, text), labels="labels.csv").seen


def test_tl15_tl16_tl17_blanks_and_numbers_follow_one_rule(tmp_path: Path) -> None:
    text = "file,label,patient\nimages/i0.png,1,007\nimages/i1.png,1.0,7\nimages/i2.png, True ,8\nimages/i3.png,,9\n"

    found = find(table(tmp_path, text))

    assert [case.label for case in found.cases] == ["1", "1", "1"]
    assert [case.patient for case in found.cases] == ["007", "7", "8"]
    assert any("have no label" in note for note in found.notes)
    assert any("read as whole numbers" in note for note in found.notes)


def test_several_tables_need_a_name(tmp_path: Path) -> None:
    (table(tmp_path, ROWS) / "more.csv").write_text(ROWS)

    assert "labels.csv, more.csv" in refusal(tmp_path).seen
    assert len(find(tmp_path, labels="more.csv").cases) == 4


def test_class_folders_win_over_a_table_without_labels(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "sizes.csv").write_text("file,width\nnormal/n000.png,48\n")

    assert find(tmp_path).layout == "class_folders"


def test_patient_id_goes_before_the_pattern_and_studies_are_known(tmp_path: Path) -> None:
    for number in range(4):
        data = dicom(ramp(), PatientID="" if number == 3 else f"P{number // 2}")
        saved(data, tmp_path / "images" / f"x{number}_a.dcm")
    rows = "".join(f"images/x{number}_a.dcm,{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)

    found = find(tmp_path, patient=PatientSpec(pattern=r"(x\d)_"))

    assert found.layout == "dicom_csv"
    assert [case.patient for case in found.cases] == ["P0", "P0", "P1", "x3"]
    assert all(case.study for case in found.cases)
    assert "PatientID" in found.patient_key


def test_dicom_files_without_pixels_are_set_aside_in_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(dicom(ramp()), tmp_path / name / "image.dcm")
    saved(dicom(ramp(), PixelData=None, Rows=None), tmp_path / "a" / "report.dcm")

    found = find(tmp_path)

    assert len(found.cases) == 2
    assert any("without pixels" in note for note in found.notes)


def test_pattern_takes_its_first_group_and_must_fit(tmp_path: Path) -> None:
    class_folders(tmp_path, 4)

    found = find(tmp_path, patient=PatientSpec(pattern=r"([np]00)\d"))

    assert {case.patient for case in found.cases} == {"n00", "p00"}
    with pytest.raises(DataError, match="fits none of 8"):
        find(tmp_path, patient=PatientSpec(pattern="zzz"))
    with pytest.raises(ConfigError, match="pattern"):
        find(tmp_path, patient=PatientSpec(pattern="("))


def test_without_a_rule_each_file_is_a_patient_and_that_is_said(tmp_path: Path) -> None:
    found = find(class_folders(tmp_path))

    assert len({case.patient for case in found.cases}) == len(found.cases)
    assert any("cannot be told apart" in note for note in found.notes)


def test_patient_column_that_is_missing_names_the_nearest(tmp_path: Path) -> None:
    text = ROWS.replace("label", "label,patient_id").replace("a\n", "a,1\n").replace("b\n", "b,2\n")

    error = refusal(table(tmp_path, text), patient=PatientSpec(column="patientid"))

    assert "`patient_id`" in error.todo


def test_excluded_cases_are_left_out_and_unknown_lines_are_said(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "leave.txt").write_text("# bad\nnormal/n000.png\nnormal/nope.png\n")

    found = find(tmp_path, exclude="leave.txt")

    assert len(found.cases) == 11
    assert any("nope.png" in note for note in found.notes)
    assert "no such file" in refusal(tmp_path, exclude="nothing.txt").seen


def test_td4_links_in_a_circle_end_and_other_files_are_set_aside(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "normal" / "again").symlink_to(tmp_path / "normal", target_is_directory=True)
    (tmp_path / "normal" / "Thumbs.db").touch()
    (tmp_path / "normal" / ".hidden.png").touch()

    found = find(tmp_path)

    assert len(found.cases) == 12
    assert any(".db" in note for note in found.notes)


def test_td5_td6_td7_odd_names_are_cases_like_others(tmp_path: Path) -> None:
    class_folders(tmp_path)
    content = (tmp_path / "normal" / "n000.png").read_bytes()
    for name in (b"a\nb.png", b"\xff.png", b"-rf.png"):
        Path(os.fsdecode(os.fsencode(str(tmp_path / "normal")) + b"/" + name)).write_bytes(content)

    assert len(find(tmp_path).cases) == 15


def test_td11_many_files_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10_000):
            (tmp_path / name / f"{number}.png").touch()

    assert len(find(tmp_path).cases) == 20_000


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    head, *rows = ROWS.splitlines(keepends=True)
    first, second = table(tmp_path / "a", ROWS), table(tmp_path / "b", head + "".join(reversed(rows)))

    assert [(case.id, case.label) for case in find(first).cases] == [
        (case.id, case.label) for case in find(second).cases
    ]


def test_windows_letters_are_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file,label\na.png,Größe\n".encode("cp1252"))

    read = read_table(tmp_path / "t.csv")

    assert read.rows[0]["label"] == "Größe"
    assert any("Windows-1252" in note for note in read.notes)


def test_real_chest_films_share_no_patient_by_the_strict_key(shared: Path) -> None:
    found = find(shared / "data/pneumonia", patient=PatientSpec(pattern=STRICT))

    sides = {name: {case.patient for case in found.cases if case.split == name} for name in ("train", "test")}

    assert len(found.cases) == 5840
    assert not sides["train"] & sides["test"]
    assert "person1_bacteria" in sides["train"] | sides["test"]


def test_real_folders_of_other_shapes(shared: Path) -> None:
    data = shared / "data"

    assert find(data / "brain_mri").layout == "class_folders"
    assert len(find(data / "abdomen_chest").cases) == 75
    assert find(data / "lung_nodule_ct").layout == "csv"
    findings = find(
        data / "chest_xray_findings", column="source_class", patient=PatientSpec(column="patient_id")
    )
    assert len({case.patient for case in findings.cases}) == 264
    assert "several label tables" in refusal(data / "chest_xray_findings").seen
