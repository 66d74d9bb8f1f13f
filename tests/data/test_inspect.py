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
        facts_of(tmp_path, "classification", "ultrasound")


def findings_folder(root: Path, blanks: bool = True) -> Path:
    for number in range(8):
        picture(root / "images" / f"{number}.png", chest(number, 40))
    blank = "" if blanks else 0
    rows = "".join(
        f"images/{n}.png,p{n // 2},{n % 2},{n % 3 == 0:d},{blank if n == 5 else 1}\n" for n in range(8)
    )
    (root / "labels.csv").write_text(f"file,patient_id,effusion,mass,support\n{rows}")
    return root


def test_findings_become_a_bundle_that_names_them(tmp_path: Path) -> None:
    facts = facts_of(findings_folder(tmp_path / "data", blanks=False), "findings", "xray")
    bundle = load_bundle(write_bundle(facts, tmp_path / "bundle", task="findings", modality="xray"))

    assert facts.findings == ("effusion", "mass", "support")
    assert dict(facts.classes) == {"effusion": 4, "mass": 3, "support": 7}
    assert bundle.data.findings == facts.findings
    assert bundle.data.patient.column == "patient_id"
    assert (bundle.task.target, bundle.task.arguments["classes"]) == ("Findings", list(facts.findings))
    assert len(find_cases(bundle.data, Path(bundle.data.source)).cases) == 8


def test_labels_of_another_kind_than_the_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write --task findings"):
        facts_of(findings_folder(tmp_path / "a"), "classification", "xray")
    with pytest.raises(DataError, match="one class a case"):
        facts_of(class_folders(tmp_path / "b"), "findings", "xray")


def test_volumes_become_a_bundle_of_three_dimensions(tmp_path: Path) -> None:
    import nibabel

    for number in range(6):
        voxels = np.random.default_rng(number).uniform(0, 90, (40, 44, 20)).astype(np.float32)
        place = tmp_path / "data" / "ab"[number % 2] / f"{number}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), place)  # type: ignore[attr-defined]

    facts = facts_of(tmp_path / "data", "classification", "mri")
    bundle = load_bundle(write_bundle(facts, tmp_path / "bundle", task="classification", modality="mri"))

    assert (facts.dims, facts.median_size, facts.channels) == (3, (40, 44, 20), 1)
    assert (bundle.images.dims, bundle.images.size, bundle.images.preset) == (3, 32, "mri")
    assert bundle.encoder.weights == "none"
    with pytest.raises(ConfigError, match="the data are volumes"):
        write_bundle(facts, tmp_path / "other", task="classification", modality="xray")


def test_pictures_of_ct_get_no_hounsfield_windows(tmp_path: Path) -> None:
    facts = facts_of(class_folders(tmp_path / "data", 5), "classification", "ct")

    bundle = load_bundle(write_bundle(facts, tmp_path / "bundle", task="classification", modality="ct"))

    assert facts.are_pictures
    assert bundle.images.preset == "xray"


def test_real_folders(shared: Path) -> None:
    chests = facts_of(shared / "data/pneumonia", "classification", "xray")
    nodules = facts_of(shared / "data/lung_nodule_ct", "classification", "xray")

    assert chests.classes == {"NORMAL": 1575, "PNEUMONIA": 4265}
    assert chests.splits == {"train": 5216, "test": 624}
    assert chests.median_size == (224, 224)
    assert (nodules.layout, nodules.column, nodules.images) == ("csv", "label", 704)
    assert facts_of(shared / "data/pathology_cls", "classification", "xray").channels == 3
    findings = facts_of(shared / "data/chest_xray_findings", "findings", "xray", labels="labels.csv")
    assert (findings.images, findings.patients, len(findings.findings)) == (1100, 350, 14)
    assert findings.classes["Hernia"] == 16
