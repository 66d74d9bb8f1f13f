"""Sets that stand in for real ones: the same for a seed, laid out as the real one, not to be told by brightness."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medxfer.bundle.schema import DataSpec, PatientSpec
from medxfer.data import synthetic
from medxfer.data.cases import find_cases
from medxfer.data.readers import read_image
from medxfer.data.synthetic import SOURCES, contact_sheet, make
from medxfer.data.synthetic.findings import FINDINGS
from medxfer.files import sha256_of
from medxfer.progress import Advance, Progress

Small = Callable[[str, int], Path]
NAMES = sorted(name.removeprefix("synthetic.") for name in SOURCES if name != "synthetic.chest_xray")
FEW = {name: 44 if name == "pathology" else 8 for name in NAMES}


def rows_of(folder: Path, table: str = "labels.csv") -> list[dict[str, str]]:
    with (folder / table).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def pictures(folder: Path, names: list[str]) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / name)) for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_files_and_another_seed_others(
    name: str, small: Small, tmp_path: Path
) -> None:
    source = SOURCES[f"synthetic.{name}"]
    source.write(tmp_path / "again", count=FEW[name], seed=4, advance=None)
    source.write(tmp_path / "other", count=FEW[name], seed=5, advance=None)
    first = hashes(small(name, FEW[name]))
    images = {
        digest for path, digest in first.items() if "." + path.split(".", 1)[1] in (".png", ".jpg", ".nii.gz")
    }

    assert hashes(tmp_path / "again") == first
    assert images
    assert not images & set(hashes(tmp_path / "other").values())


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_made_whole_says_each_image_and_can_be_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES[f"synthetic.{name}"]
    said: list[int] = []

    def counted(folder: Path, *, count: int, seed: int, advance: Advance | None) -> None:
        def told(steps: int = 1, note: str = "") -> None:
            said.append(steps)
            if advance:
                advance(steps, note)

        source.write(folder, count=count, seed=seed, advance=told)

    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path))
    monkeypatch.setitem(
        synthetic.SOURCES, f"synthetic.{name}", dataclasses.replace(source, count=FEW[name], write=counted)
    )
    folder = make(f"synthetic.{name}", Progress(quiet=True))
    whole = hashes(folder)
    sheet = contact_sheet(folder, tmp_path / "sheet.png", rows=2, columns=3)
    lost = next(path for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".jpg", ".gz"))
    lost.write_bytes(lost.read_bytes()[:-9])

    assert sum(said) == FEW[name]
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2 * FEW[name] * source.image_bytes + 9000
    with Image.open(sheet) as page:
        assert page.width == 3 * 256
        assert np.asarray(page.convert("L"))[60:].std() > 15
    assert hashes(make(f"synthetic.{name}", Progress(quiet=True))) == whole


def test_abdomen_and_chest_lie_in_split_folders_under_names_that_mislead(small: Small) -> None:
    folder = small("abdomen_chest", 20)
    found = find_cases(DataSpec(source=str(folder)), folder)

    assert Counter((case.split, case.label) for case in found.cases) == {
        ("train", "abd"): 8, ("train", "chst"): 8, ("val", "abd"): 2, ("val", "chst"): 2,
    }  # fmt: skip
    assert all(path.name.startswith("abd") for path in (folder / "val" / "chst").iterdir())
    assert len({read_image(case.images[0]).array.shape for case in found.cases}) > 15


def test_head_slices_have_copies_inside_a_class_and_none_between_them(small: Small) -> None:
    folder = small("brain_mri", 100)
    table = rows_of(folder, "files.csv")
    digests: dict[str, set[str]] = defaultdict(set)
    for row in table:
        digests[sha256_of(folder / row["file"])].add(row["class"])
    found = find_cases(DataSpec(source=str(folder)), folder)

    assert Counter(case.label for case in found.cases) == {"yes": 60, "no": 40}
    assert 4 <= len(table) - len(digests) == sum(row["kind"] == "exact" for row in table)
    assert all(len(classes) == 1 for classes in digests.values())
    near = [row for row in table if row["kind"] == "near"]
    assert len(near) >= 4
    for row in near:
        one, other = (
            np.asarray(Image.open(folder / row[column]).convert("L").resize((32, 32)), float).ravel()
            for column in ("file", "copy_of")
        )
        assert np.corrcoef(one, other)[0, 1] > 0.98
    assert len({(row["width"], row["height"]) for row in table}) > 50


def test_findings_are_yes_no_or_blank_and_patients_cross_the_sources_split(small: Small) -> None:
    folder = small("chest_findings", 70)
    table = rows_of(folder)
    cells = Counter(row[finding] for row in table for finding in FINDINGS)
    parts: dict[str, set[str]] = defaultdict(set)
    for row in table:
        parts[row["patient_id"]].add(row["source_split"])

    assert set(cells) == {"0", "1", ""}
    assert 0.02 < cells[""] / sum(cells.values()) < 0.12
    assert all(5 <= sum(row[finding] == "1" for row in table) <= 45 for finding in FINDINGS)
    assert any(sum(row[finding] == "1" for finding in FINDINGS) > 1 for row in table)
    assert len(parts) < len(table)
    assert any(len(where) > 1 for where in parts.values())
    assert all((folder / row["file"]).is_file() for row in table)


@pytest.mark.parametrize(("name", "count"), [("lung_nodule_ct", 300), ("lung_nodule_ct_volumes", 80)])
def test_nodules_are_found_by_table_and_grouped_by_exam(name: str, count: int, small: Small) -> None:
    folder = small(name, count)
    found = find_cases(DataSpec(source=str(folder), patient=PatientSpec(column="exam")), folder)
    classes: dict[str, set[object]] = defaultdict(set)
    for case in found.cases:
        classes[case.patient].add(case.label)

    assert len(found.cases) == count
    assert len(classes) < count
    assert any(len(labels) == 2 for labels in classes.values())
    assert 0.25 < np.mean([case.label == "malignant" for case in found.cases]) < 0.55


def test_nodule_volumes_point_many_ways_and_are_read_as_hounsfield_units(small: Small) -> None:
    folder = small("lung_nodule_ct_volumes", 80)
    table = rows_of(folder)
    spacings = set()
    for row in table[:16]:
        stored = nibabel.nifti1.load(folder / row["file"])
        image = read_image(folder / row["file"])
        spacings.add(tuple(np.round(image.spacing or (), 2)))

        assert "".join(nibabel.orientations.aff2axcodes(stored.affine)) == row["axes"]
        assert -1024 <= image.array.min() < -850
        assert 0 < image.array.max() < 3071
        centre = [size // 2 for size in image.array.shape[1:]]
        middle = image.array[0, centre[0] - 3 : centre[0] + 4, centre[1] - 3 : centre[1] + 4, centre[2]]
        assert middle.max() > -400  # the nodule lies there, however the file is turned
    assert len({row["axes"] for row in table}) > 4
    assert len(spacings) > 10


def test_tissue_tiles_carry_the_faults_that_the_list_excludes(small: Small) -> None:
    folder = small("pathology", 200)
    everything = find_cases(DataSpec(source=str(folder)), folder)
    found = find_cases(DataSpec(source=str(folder), exclude="exclude.txt"), folder)
    labels: dict[str, set[object]] = defaultdict(set)
    splits: dict[str, set[object]] = defaultdict(set)
    for case in everything.cases:
        labels[sha256_of(case.images[0])].add(case.label)
        splits[sha256_of(case.images[0])].add(case.split)

    assert len(everything.cases) == 200
    assert sum(len(seen) == 2 for seen in labels.values()) == 4
    assert sum(len(seen) == 2 for seen in splits.values()) == 1
    assert len(found.cases) == 200 - 16 - 8 - 1
    assert len({sha256_of(case.images[0]) for case in found.cases}) == len(found.cases)
    assert not any("aug_" in case.id for case in found.cases)
    assert (folder / "exclude.txt").read_text(encoding="utf-8").count("#") == 3
    assert read_image(found.cases[0].images[0]).array.shape == (3, 128, 128)


@pytest.mark.parametrize(
    ("name", "count", "most"),
    [
        ("abdomen_chest", 70, 0.75),
        ("brain_mri", 100, 0.75),
        ("lung_nodule_ct", 300, 0.75),
        ("lung_nodule_ct_volumes", 80, 0.75),
        ("pathology", 200, 0.72),
    ],
)
def test_simple_rules_on_brightness_do_not_tell_the_classes_apart(
    name: str, count: int, most: float, small: Small
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = small(name, count)
    group = PatientSpec(column="exam") if "nodule" in name else PatientSpec()
    exclude = "exclude.txt" if name == "pathology" else None
    cases = find_cases(DataSpec(source=str(folder), patient=group, exclude=exclude), folder).cases
    origin = (
        {row["file"]: row["copy_of"] for row in rows_of(folder, "files.csv")} if name == "brain_mri" else {}
    )
    groups = [origin.get(case.id) or (case.patient if "nodule" in name else case.id) for case in cases]
    values = [read_image(case.images[0]).array for case in cases]
    values = [array.reshape(len(array) if name == "pathology" else 1, -1) for array in values]
    low, high = (-1100, 1200) if "volumes" in name else (0, 256)
    features = {
        "mean and deviation": [np.r_[array.mean(1), array.std(1)] for array in values],
        "histogram": [
            np.concatenate([np.histogram(channel, 32, (low, high))[0] / channel.size for channel in array])
            for array in values
        ],
    }
    sick = np.array([case.label in ("abd", "yes", "malignant", "oscc") for case in cases])
    for rule, numbers in features.items():
        for strength in (0.05, 1.0):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
            folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
            found = cross_val_predict(
                model, np.stack(numbers), sick, groups=groups, cv=folds, method="predict_proba"
            )
            assert roc_auc_score(sick, found[:, 1]) < most, (rule, strength)
