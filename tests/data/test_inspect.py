from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.create import write_bundle
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import PatientSpec
from medxfer.data.cases import find_cases
from medxfer.data.inspect import facts_of
from medxfer.errors import ConfigError, DataError

from .faults import chest, class_folders, dicom, picture, ramp, saved


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    class_folders(tmp_path, 5, "train")
    class_folders(tmp_path, 3, "test")

    facts = facts_of(tmp_path, "classification", "xray")

    assert facts.layout == "class_folders"
    assert facts.classes == {"normal": 8, "pneumonia": 8}
    assert (facts.images, facts.patients) == (16, 16)
    assert facts.splits == {"train": 10, "test": 6}
    assert (facts.channels, facts.median_size) == (1, (48, 48))
    assert facts.labels is None
    assert facts.patient == PatientSpec()
    assert any("cannot be told apart" in note for note in facts.notes)
    assert any("data.patient.pattern" in note for note in facts.notes)


@pytest.mark.parametrize("label", ["label", "class", "Diagnosis"])
@pytest.mark.parametrize("patient", ["patient", "patient_id", "Subject"])
def test_columns_are_taken_where_one_name_fits(tmp_path: Path, label: str, patient: str) -> None:
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.png", chest(number, 40))
    rows = "".join(f"images/{number}.png,{'ab'[number % 2]},p{number // 2}\n" for number in range(4))
    (tmp_path / "list.csv").write_text(f"file,{label},{patient}\n{rows}")

    facts = facts_of(tmp_path, "classification", "xray")

    assert (facts.labels, facts.column, facts.patient) == ("list.csv", label, PatientSpec(column=patient))
    assert facts.patients == 2
    assert not any("cannot be told" in note for note in facts.notes)


def test_no_guess_between_two_columns_that_might_be_the_label(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "0.png", chest(0))
    (tmp_path / "list.csv").write_text("file,class,target\nimages/0.png,a,1\n")

    with pytest.raises(DataError, match="no column `label`"):
        facts_of(tmp_path, "classification", "xray")


def test_dicom_patients_come_from_the_files(tmp_path: Path) -> None:
    for number in range(6):
        saved(dicom(ramp(30, 20), PatientID=f"P{number // 2}"), tmp_path / "images" / f"{number}.dcm")
    rows = "".join(f"images/{number}.dcm,{'ab'[number % 2]}\n" for number in range(6))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)

    facts = facts_of(tmp_path, "classification", "xray")

    assert facts.layout == "dicom_csv"
    assert facts.patients == 3
    assert facts.median_size == (30, 20)
    assert facts.patient == PatientSpec()
    assert not any("P0" in note for note in facts.notes)


def test_colour_and_unreadable_images_are_told(tmp_path: Path) -> None:
    class_folders(tmp_path, 2)
    random = np.random.default_rng(0)
    for number in range(6):
        picture(tmp_path / "normal" / f"c{number}.png", random.integers(0, 255, (30, 30, 3)).astype(np.uint8))
    (tmp_path / "normal" / "bad.png").write_bytes(b"")

    facts = facts_of(tmp_path, "classification", "xray")

    assert facts.channels == 3
    assert any("in colour" in note for note in facts.notes)
    assert any("cannot be read" in note for note in facts.notes)


def test_bundle_written_from_the_facts_finds_the_same_cases(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", 5)
    facts = facts_of(tmp_path / "data", "classification", "xray")

    bundle = load_bundle(write_bundle(facts, tmp_path / "bundle", task="classification", modality="xray"))

    assert len(find_cases(bundle.data, Path(bundle.data.source)).cases) == facts.images


def test_absent_folder_task_and_modality_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        facts_of(tmp_path / "nope", "classification", "xray")
    with pytest.raises(ConfigError, match="--task"):
        facts_of(tmp_path, "detection", "xray")
    with pytest.raises(ConfigError, match="preset"):
        facts_of(tmp_path, "classification", "mri")


def test_real_folders(shared: Path) -> None:
    chests = facts_of(shared / "data/pneumonia", "classification", "xray")
    nodules = facts_of(shared / "data/lung_nodule_ct", "classification", "xray")

    assert chests.classes == {"NORMAL": 1575, "PNEUMONIA": 4265}
    assert chests.splits == {"train": 5216, "test": 624}
    assert chests.median_size == (224, 224)
    assert (nodules.layout, nodules.column, nodules.images) == ("csv", "label", 704)
    assert facts_of(shared / "data/pathology_cls", "classification", "xray").channels == 3
