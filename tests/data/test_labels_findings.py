"""Tables with a column a finding: what is blank is unknown, and other values are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from medxfer.bundle.schema import DataSpec
from medxfer.data.cases import Found, find_cases
from medxfer.errors import DataError

from .faults import chest, picture

HEAD = "file,age,effusion,mass\n"
ROWS = "0.png,61,1,0\n1.png,62,,1\n2.png,63,0,\n3.png,64,,\n"


def find(root: Path, text: str, **options: object) -> Found:
    for number in range(4):
        picture(root / f"{number}.png", chest(number))
    (root / "labels.csv").write_text(text)
    return find_cases(DataSpec(source=str(root), **options), root)  # type: ignore[arg-type]


def test_tl15_blanks_are_unknown_and_never_zero(tmp_path: Path) -> None:
    found = find(tmp_path, HEAD + ROWS)

    assert found.findings == ("effusion", "mass")
    assert [case.label for case in found.cases] == [
        {"effusion": True, "mass": False}, {"effusion": None, "mass": True}, {"effusion": False, "mass": None}
    ]  # fmt: skip
    assert "1 rows of labels.csv have no label and were left out" in found.notes
    assert any("2 of 6 cells of findings" in note for note in found.notes)


def test_named_columns_are_taken_even_with_one_value(tmp_path: Path) -> None:
    found = find(
        tmp_path, HEAD.replace("age", "tube") + ROWS.replace(",6", ",1"), findings=("Effusion", "mass")
    )

    assert found.findings == ("effusion", "mass")


@pytest.mark.parametrize(
    ("value", "todo"), [("-1", "uncertain"), ("2", "correct the cell"), ("maybe", "correct")]
)
def test_tl8_other_values_are_refused_with_their_line(tmp_path: Path, value: str, todo: str) -> None:
    with pytest.raises(DataError) as caught:
        find(tmp_path, HEAD + ROWS.replace("61,1", f"61,{value}"), findings=("effusion", "mass"))

    assert caught.value.where.endswith("line 2")
    assert f"`{value}`" in caught.value.seen
    assert todo in caught.value.todo


def test_a_further_table_brings_blanks(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("file,fracture\n1.png,1\n2.png,0\n9.png,1\n")

    found = find(tmp_path, HEAD + ROWS, join=("more.csv",), findings=("effusion", "fracture"))

    assert [case.label["fracture"] for case in found.cases] == [None, True, False]  # type: ignore[index,call-overload]
    assert any("2 of 4 rows are in it" in note for note in found.notes)
    assert any("1 rows of more.csv are not in" in note for note in found.notes)
    with pytest.raises(DataError, match="outside of the data"):
        find(tmp_path, HEAD + ROWS, labels="labels.csv", join=("../more.csv",))


def test_real_adjudicated_labels_are_blank_for_all_other_images(shared: Path) -> None:
    root = shared / "data/chest_xray_findings"
    data = DataSpec(
        source=str(root), labels="labels.csv", join=("adjudicated.csv",), findings=("Mass", "fracture")
    )

    found = find_cases(data, root)

    known = [case for case in found.cases if case.label["fracture"] is not None]  # type: ignore[index,call-overload]
    assert (len(found.cases), len(known)) == (1100, 30)
    assert found.patient_key == "column `patient_id` of labels.csv"
