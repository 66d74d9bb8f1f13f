from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import UID

from medxfer.data import synthetic
from medxfer.data.synthetic import chest_xray, contact_sheet, make, write_chest_xrays
from medxfer.errors import ConfigError, RunError
from medxfer.files import sha256_of
from medxfer.progress import Progress

COUNT = 400  # enough for the rules' AUROC to settle within some 0.03; takes about 7 s to make
NAME = "synthetic.chest_xray"


@dataclasses.dataclass(frozen=True)
class Made:
    folder: Path
    files: list[str]
    labels: np.ndarray
    headers: list
    pixels: np.ndarray  # as seen: MONOCHROME1 turned round


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("chests")
    write_chest_xrays(folder, count=COUNT, seed=3)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    headers = [dcmread(folder / row["file"]) for row in rows]
    turned = [header.PhotometricInterpretation == "MONOCHROME1" for header in headers]
    pixels = [header.pixel_array.astype(np.float32) for header in headers]
    return Made(
        folder=folder,
        files=[row["file"] for row in rows],
        labels=np.array([row["label"] == "pneumonia" for row in rows]),
        headers=headers,
        pixels=np.stack([4095 - p if t else p for p, t in zip(pixels, turned, strict=True)]),
    )


@pytest.fixture
def small_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path))
    monkeypatch.setitem(synthetic.SOURCES, NAME, dataclasses.replace(synthetic.SOURCES[NAME], count=6))
    return tmp_path


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        write_chest_xrays(tmp_path / name, count=5, seed=seed)

    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert not set(hashes(tmp_path / "one").values()) & set(hashes(tmp_path / "other").values())


def test_files_are_digital_x_ray_images_with_twelve_bits(made: Made) -> None:
    assert len(made.files) == len(set(made.files)) == COUNT
    assert sorted(p.name for p in (made.folder / "images").iterdir()) == sorted(
        Path(f).name for f in made.files
    )
    for header in made.headers:
        assert header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert header.Modality == "DX"
        assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, 12, 11)
        assert header.pixel_array.shape == (256, 256)
        assert header.pixel_array.max() <= 4095
        assert str(header.PatientName).startswith("SYNTHETIC^")
        assert 1.2 < float(header.PixelSpacing[0]) < float(header.ImagerPixelSpacing[0]) < 1.8


def test_uids_are_valid_and_tell_images_and_studies_apart(made: Made) -> None:
    images = [header.SOPInstanceUID for header in made.headers]
    studies = [header.StudyInstanceUID for header in made.headers]

    assert len(set(images)) == COUNT
    assert len(set(studies)) == COUNT
    assert all(UID(uid).is_valid for uid in (*images, *studies))
    assert all(h.file_meta.MediaStorageSOPInstanceUID == h.SOPInstanceUID for h in made.headers)


def test_a_quarter_of_the_patients_has_two_or_three_images_mostly_alike_in_label(made: Made) -> None:
    patients = [header.PatientID for header in made.headers]
    counts = Counter(patients)
    labels = {p: {bool(y) for q, y in zip(patients, made.labels, strict=True) if q == p} for p in counts}
    several = [p for p, count in counts.items() if count > 1]

    assert set(counts.values()) == {1, 2, 3}
    assert 0.17 < len(several) / len(counts) < 0.33
    assert 0.6 < np.mean([len(labels[p]) == 1 for p in several]) < 1
    for file, patient in zip(made.files, patients, strict=True):
        assert Path(file).stem.split("-")[0][1:] == patient.split("-")[1]


def test_classes_are_balanced_and_no_header_tag_gives_them_away(made: Made) -> None:
    assert abs(made.labels.mean() - 0.5) < 0.02
    for tag, value in (
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("ViewPosition", "AP"),
        ("PatientSex", "F"),
        ("BurnedInAnnotation", "YES"),
    ):
        has = np.array([getattr(header, tag) == value for header in made.headers])
        assert has[made.labels].any()
        assert has[~made.labels].any()
        # Two proportions of about 200 each: differing by more than 3 standard errors is no chance.
        error = np.sqrt(has.mean() * (1 - has.mean()) * 4 / COUNT)
        assert abs(has[made.labels].mean() - has[~made.labels].mean()) < 3 * error, tag
    assert 0.02 < np.mean([header.BurnedInAnnotation == "YES" for header in made.headers]) < 0.09


def test_lungs_are_darker_than_the_mediastinum_in_both_photometric_interpretations(made: Made) -> None:
    middle = made.pixels[:, 110:150, 118:138].mean((1, 2))
    lungs = made.pixels[:, 90:130, 60:80].mean((1, 2))

    assert (middle > lungs).mean() > 0.99


def test_pneumonia_changes_the_lungs_and_nothing_else() -> None:
    for patient in range(1, 9):
        healthy, sick = (
            chest_xray.make_radiograph(chest_xray.Planned(patient=patient, number=1, label=label), seed=0)
            for label in chest_xray.CLASSES
        )
        change = sick.pixels.astype(int) - healthy.pixels.astype(int)

        assert dataclasses.replace(sick, pixels=healthy.pixels) == dataclasses.replace(healthy)
        assert change.max() > 200
        assert np.abs(change[:20]).max() < 100  # scattered rays alone reach the neck
        assert change.mean() > 0


def test_simple_rules_on_grey_values_stay_under_070(made: Made) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels = made.pixels[:, ::2, ::2]  # the rules know no places
    low, high = np.percentile(pixels, (1, 99), axis=(1, 2))[:, :, None, None]
    windowed = np.clip((pixels - low) / (high - low), 0, 1)
    features = {
        "histogram": np.stack([np.histogram(image, 32, (0, 1))[0] for image in windowed]),
        "mean and deviation": np.stack([windowed.mean((1, 2)), windowed.std((1, 2))], 1),
        "as stored": np.stack([pixels.mean((1, 2)), pixels.std((1, 2))], 1),
    }
    rules = (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000)),
        make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000)),
        RandomForestClassifier(60, min_samples_leaf=3, random_state=0),
    )
    patients = [header.PatientID for header in made.headers]

    for name, values in features.items():
        for rule in rules:
            found = cross_val_predict(
                rule, values, made.labels, groups=patients, cv=GroupKFold(5), method="predict_proba"
            )
            assert roc_auc_score(made.labels, found[:, 1]) < 0.70, (name, rule)


def test_contact_sheet_is_a_picture_of_every_class(made: Made, tmp_path: Path) -> None:
    path = contact_sheet(made.folder, tmp_path / "sheet.png", rows=2, columns=3)

    with Image.open(path) as page:
        assert page.width == 3 * 256
        assert page.height > 2 * 256
        assert np.asarray(page.convert("L")).std() > 30


def test_made_once_and_found_again(small_source: Path) -> None:
    folder = make(NAME, Progress(quiet=True))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    again = make(NAME, Progress(quiet=True))

    assert again == folder
    assert folder.parent == small_source / "synthetic"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_set_is_made_anew(small_source: Path) -> None:
    folder = make(NAME, Progress(quiet=True))
    whole = hashes(folder)
    next(folder.glob("images/*.dcm")).unlink()

    make(NAME, Progress(quiet=True))

    assert hashes(folder) == whole
    assert folder.is_relative_to(small_source)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_processes_making_it_at_once_both_find_it_whole(tmp_path: Path) -> None:
    script = (
        "import dataclasses, sys\n"
        "from medxfer.data import synthetic\n"
        "from medxfer.progress import Progress\n"
        f"name = {NAME!r}\n"
        "synthetic.SOURCES[name] = dataclasses.replace(synthetic.SOURCES[name], count=12)\n"
        "folder = synthetic.make(name, Progress(quiet=True))\n"
        "print(len(list(folder.glob('images/*.dcm'))), (folder / 'labels.csv').is_file())\n"
    )
    environment = {**os.environ, "MEDXFER_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]

    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in running]

    assert [(out.strip(), process.returncode) for (out, _), process in zip(said, running, strict=True)] == [
        ("12 True", 0)
    ] * 3, said
    assert len(list((tmp_path / "synthetic").iterdir())) == 1


def test_unknown_source_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as refused:
        make("synthetic.chest_xrays", Progress(quiet=True))

    assert NAME in refused.value.todo
    assert refused.value.seen == "synthetic.chest_xrays"


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")

    with pytest.raises(RunError):
        write_chest_xrays(tmp_path / "taken", count=1, seed=0)
