"""Patients that hold several classes: split all the same, every class in every part."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import ImagesSpec, SliceSpec, SplitSpec
from medxfer.data.cache import cache_arrays
from medxfer.data.case import Case
from medxfer.data.cases import find_cases
from medxfer.data.presets import steps_of
from medxfer.data.sampling import Reading
from medxfer.data.splits import folds_of, split_by_patient
from medxfer.files import write_atomic
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder

from .test_splits import NONE, case, cohort, names_of, refusal, split

PARTS = ("train", "val", "test")
LESIONS = """data:
  source: {source}
  slices: {{plane: axial, every: 2, lesion: true}}
images: {{preset: mri, size: 32}}
encoder: {{id: cnn, in_channels: 1}}
task: {{_target_: Classification, classes: [none, lesion]}}
phases:
  - {{name: train, train: all, lr: 1.0e-3, epochs: 1}}
"""


def mixed(patients: int, *, pure: int = 0, images: int = 1) -> list[Case]:
    """Patients with both classes, so many images of each; `pure` more with one class."""
    cases = [
        case(2 * images * number + 2 * one + side, f"p{number}", ("no", "yes")[side])
        for number in range(patients)
        for one in range(images)
        for side in (0, 1)
    ]
    return cases + [case(5000 + number, f"q{number}", ("no", "yes")[number % 2]) for number in range(pure)]


@pytest.mark.parametrize("pure", [0, 1, 2, 3, 12])
@pytest.mark.parametrize("seed", range(4))
def test_patients_of_both_classes_are_split(pure: int, seed: int) -> None:
    cases = mixed(30, pure=pure)

    splits = split(cases, seed=seed)

    patients = [{cases[row].patient for row in splits[name]} for name in PARTS]
    assert sum(map(len, patients)) == 30 + pure
    for name, share in zip(PARTS, (0.68, 0.12, 0.2), strict=True):
        counts = Counter(cases[row].label for row in splits[name])
        assert set(counts) == {"no", "yes"}
        assert abs(len(splits[name]) / len(cases) - share) < 0.09


@settings(max_examples=100)
@given(data=some.data(), patients=some.integers(12, 40), seed=some.integers(0, 99))
def test_any_mixture_of_three_classes_is_split_and_dealt_into_folds(
    data: some.DataObject, patients: int, seed: int
) -> None:
    sets = [
        data.draw(some.sets(some.sampled_from("abc"), min_size=1), label="classes") for _ in range(patients)
    ]
    # Four patients with all: else a class may have fewer patients than there are parts.
    sets[:4] = [set("abc")] * 4
    cases = [
        case(10 * number + place, f"p{number}", label)
        for number, own in enumerate(sets)
        for place, label in enumerate(sorted(own))
    ]
    label_of = lambda one: str(one.label)  # noqa: E731
    whole = split(cases, seed=seed)
    parts = folds_of(cases, NONE, SplitSpec(folds=2), seed=seed, accept_leak=None, label_of=label_of)

    for splits in (whole, *parts):
        where = {name: {cases[row].patient for row in splits[name]} for name in PARTS}
        assert sum(map(len, where.values())) == patients
        assert all({cases[row].label for row in splits[name]} == set("abc") for name in PARTS)


def test_a_split_of_mixed_patients_does_not_hang_on_the_order_of_rows() -> None:
    cases = mixed(25, pure=1)
    shuffled = [cases[row] for row in np.random.default_rng(1).permutation(len(cases))]

    assert names_of(split(cases)) == names_of(split(shuffled))
    assert names_of(split(cases)) != names_of(split(cases, seed=1))


def test_three_mixed_patients_are_enough_and_two_are_counted() -> None:
    assert all(len(split(mixed(3))[name]) == 2 for name in PARTS)
    assert "class no: 1 patients left to take val from" in refusal(mixed(2)).seen


def test_every_mixed_patient_is_tested_once_in_folds() -> None:
    cases = mixed(20, images=2)
    label_of = lambda one: str(one.label)  # noqa: E731
    parts = folds_of(cases, NONE, SplitSpec(folds=5), seed=0, accept_leak=None, label_of=label_of)

    assert sorted(row for splits in parts for row in splits["test"]) == list(range(len(cases)))
    assert {len({cases[row].patient for row in splits["test"]}) for splits in parts} == {4}


def test_splits_of_published_figures_stay_as_they_were() -> None:
    """Where each class has patients that count for it, nothing moved: hashes of earlier splits."""
    odd = [case(7000 + number, f"p{number}", "well") for number in range(0, 60, 3)]
    found = []
    for cases in (cohort(100), [*cohort(100), *odd]):
        names = names_of(split(cases, seed=3))
        found.append(hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()[:16])

    assert found == ["8ab8d1efda69a164", "187a927aca8b9b0a"]


def volumes(root: Path, count: int) -> Path:
    """Small volumes of noise, the lower half of each with a bright box that its mask marks."""
    random = np.random.default_rng(0)
    for number in range(count):
        image = random.normal(100, 10, (20, 20, 12)).astype(np.float32)
        mask = np.zeros(image.shape, np.uint8)
        mask[6:12, 5:15, :6] = 1
        image[mask > 0] += 100
        for folder, values in (("images", image), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / folder / f"{number}.nii.gz")
    rows = "".join(f"images/{n}.nii.gz,masks/{n}.nii.gz,v{n}\n" for n in range(count))
    (root / "labels.csv").write_text(f"image,mask,patient\n{rows}")
    return root


def test_slices_of_volumes_are_split_by_lesion_and_patient(tmp_path: Path) -> None:
    bundle = load_bundle(_lesions(tmp_path))
    found = find_cases(bundle.data, tmp_path)
    steps = steps_of(ImagesSpec(size=16, preset="mri"), 1)
    reading = Reading(slices=SliceSpec(lesion=True))
    arrays = cache_arrays(found.cases, steps, "uint8", Progress(quiet=True), reading=reading)
    label_of = lambda one: str(one.label)  # noqa: E731

    one = split_by_patient(arrays.cases, NONE, SplitSpec(), seed=0, accept_leak=None, label_of=label_of)
    folds = folds_of(arrays.cases, NONE, SplitSpec(folds=2), seed=0, accept_leak=None, label_of=label_of)

    for splits in (one, *folds):
        for name in PARTS:
            assert {splits.classes[row] for row in splits[name]} == {"none", "lesion"}
            assert len(splits[name]) % 12 == 0  # whole volumes


def test_a_run_tells_slices_with_a_lesion_from_others(tmp_path: Path) -> None:
    folder = run_bundle(
        load_bundle(_lesions(tmp_path)), Request(out=tmp_path / "run", device="cpu"), Progress(quiet=True)
    )

    assert isinstance(folder, RunFolder)
    assert folder.read("scores.json")["test"]["auroc"]["patients"] == 1


def _lesions(root: Path) -> Path:
    volumes(root, 6)
    write_atomic(root / "lesions.yaml", LESIONS.format(source=root))
    return root / "lesions.yaml"
