"""What the gate refuses, what it says, and what it finds in real sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec, ImagesSpec, PatientSpec, SplitSpec
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.case import Case
from medxfer.data.cases import find_cases
from medxfer.data.leaks import Duplicates, find_duplicates
from medxfer.data.presets import steps_of
from medxfer.data.sampling import reading_of
from medxfer.data.splitting.copies import find_copies
from medxfer.data.splitting.gate import Verdict, leaks_in, shared_stems
from medxfer.data.splitting.grouping import groups_of
from medxfer.errors import DataError
from medxfer.progress import Progress

from .test_leaks import arrays_of

STRICT = r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)"


def cases_of(*names: str, **changes: object) -> list[Case]:
    made = [Case(id=name, images=(Path(name),), patient=name, label=name.split("/")[-2]) for name in names]
    return [dataclasses.replace(one, **changes) for one in made]  # type: ignore[arg-type]


def gate(cases: list[Case], duplicates: Duplicates | None = None) -> Verdict:
    return leaks_in(cases, duplicates or Duplicates(), SplitSpec())


def split(case: Case, name: str) -> Case:
    return dataclasses.replace(case, split=name)  # type: ignore[arg-type]


def test_one_picture_under_two_labels_is_refused_equal_or_nearly_equal() -> None:
    cases = cases_of("a/0.png", "b/1.png")

    for duplicates in (Duplicates(exact=((0, 1),)), Duplicates(near=((0, 1),))):
        verdict = gate(cases, duplicates)
        assert "have two labels: a/0.png = b/1.png" in verdict.found[0]
        with pytest.raises(DataError, match="accept_leak"):
            verdict.require(None)
        assert "leak accepted (looked at): " in verdict.require("looked at")[0]


def test_neighbouring_slices_of_a_patient_may_differ_in_their_label() -> None:
    cases = cases_of("a/0.png", "b/1.png", patient="p")

    verdict = gate(cases, Duplicates(near=((0, 1),)))

    assert verdict.found == ()
    assert any("of one patient have two labels" in note for note in verdict.notes)


def test_findings_contradict_each_other_only_where_both_are_known() -> None:
    known = [{"x": True, "y": None}, {"x": None, "y": False}, {"x": False, "y": None}]
    cases = [
        dataclasses.replace(one, label=label)
        for one, label in zip(cases_of("a/0", "a/1", "a/2"), known, strict=True)
    ]

    assert gate(cases, Duplicates(exact=((0, 1),))).found == ()
    assert "two labels" in gate(cases, Duplicates(exact=((0, 2),))).found[0]


@pytest.mark.parametrize("field", ["study", "links"])
def test_l2_a_scan_of_two_patients_is_refused_across_splits_and_kept_together_within(field: str) -> None:
    value: object = "1.2.3" if field == "study" else ("series 1.2.3",)
    cases = cases_of("a/0.png", "b/1.png", **{field: value})

    verdict = gate([split(cases[0], "train"), split(cases[1], "test")])
    inside = gate(cases)

    assert "in train and test: a/0.png and b/1.png" in verdict.found[0]
    assert inside.found == ()
    assert any("shared by patients that are told apart" in note for note in inside.notes)
    assert groups_of(cases, Duplicates(), SplitSpec()) == [(0, 1)]
    assert "1.2.3" not in str(verdict.found)


def test_copies_by_name_stay_with_their_original() -> None:
    cases = cases_of(
        "a/scan7.png", "a/scan7_flipped.png", "a/aug_3_scan7.png", "b/scan8.png", "b/scan8 (1).png"
    )

    copies = find_copies(cases)
    crossing = gate([split(one, "train" if row else "test") for row, one in enumerate(cases)])

    assert copies.groups == ((0, 1, 2), (3, 4))
    assert copies.orphans == ()
    assert "1 images with copies in another split" in crossing.found[0]
    assert groups_of(cases, Duplicates(), SplitSpec(), copies.groups) == [(0, 1, 2), (3, 4)]


def test_copies_without_an_original_are_refused_with_the_rule() -> None:
    verdict = gate(cases_of("a/0.png", "a/aug_12_981.png", "b/aug_13_77.png"))

    assert "2 augmented copies whose originals the names do not tell" in verdict.found[0]
    assert "aug_, flipped" in verdict.found[0]


@pytest.mark.parametrize(
    "name",
    ["aug_2019_4.png", "august.png", "1 no.jpg", "Y1.jpg", "rotterdam_3.png", "copy.png", "scan (1).png"],
)
def test_other_names_are_no_copies(name: str) -> None:
    assert find_copies(cases_of("a/0.png", f"a/{name}", "b/7.png")) == find_copies([])


def test_where_all_names_say_so_there_is_nothing_to_hold_apart() -> None:
    assert find_copies(cases_of("a/aug_1_1.png", "b/aug_2_2.png")).orphans == ()


def test_a_looser_key_that_shares_patients_is_said() -> None:
    cases = [
        dataclasses.replace(one, patient=key, stem=stem)
        for one, key, stem in zip(
            cases_of("a/0.png", "a/1.png", "b/2.png", "b/3.png"),
            ("p1_x", "p1_y", "p2_x", "p3"),
            ("p1", "p1", "p2", None),
            strict=True,
        )
    ]

    (said,) = shared_stems(["train", "test", "train", "train"], cases)

    assert "1 are in train and test (1 train images, 1 test images)" in said
    assert "a/0.png and a/1.png" in said
    assert shared_stems(["train", "train", "test", "val"], cases) == []


def test_small_things_on_black_are_not_alike_because_of_the_black() -> None:
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(40):
        one = np.zeros((64, 64), np.uint8)
        one[28:36, 28:36] = random.integers(60, 255, (8, 8))
        pictures.append(one)
    copy = np.clip(pictures[3].astype(int) + (pictures[3] > 0) * 2, 0, 255).astype(np.uint8)

    found = find_duplicates(arrays_of([*pictures, copy]))

    assert found.near == ((3, 40),)


def test_volumes_are_compared_too_and_empty_ones_are_not() -> None:
    random = np.random.default_rng(0)
    volumes = [
        np.kron(random.integers(0, 250, (4, 4, 4)), np.ones((6, 6, 6))).astype(np.uint8) for _ in range(12)
    ]
    louder = np.clip(volumes[2].astype(int) + random.integers(-3, 4, volumes[2].shape), 0, 255).astype(
        np.uint8
    )
    empty = np.zeros_like(louder)

    found = find_duplicates(arrays_of([*volumes, volumes[5], louder, empty, empty]))

    assert found.exact == ((5, 12),)
    assert found.near == ((2, 13),)


def real(
    shared: Path, name: str, *, channels: int = 1, images: ImagesSpec | None = None, **options: object
) -> Arrays:
    root = shared / "data" / name
    data = DataSpec(source=str(root), **options)  # type: ignore[arg-type]
    steps = steps_of(images or ImagesSpec(size=64), channels)
    cases = find_cases(data, root).cases
    return cache_arrays(cases, steps, "uint8", Progress(quiet=True), reading=reading_of(data))


def test_real_tissue_is_refused_for_every_reason(shared: Path) -> None:
    arrays = real(shared, "pathology_cls", channels=3)

    found = find_duplicates(arrays)
    told = leaks_in(arrays.cases, found, SplitSpec()).found

    assert (len(found.exact), len(found.near)) == (7, 2)
    assert [one.partition(":")[0].partition(" whose")[0] for one in told] == [
        "1 groups of equal pictures in two splits",
        "6 groups of equal pictures have two labels",
        "1 groups of nearly equal pictures in two splits",
        "1 groups of nearly equal pictures have two labels",
        "80 augmented copies (40 in train, 40 in test)",
    ]


def test_real_findings_have_thirty_patients_in_two_splits_and_eleven_images_twice(shared: Path) -> None:
    split_spec = SplitSpec(column="source_split")
    arrays = real(shared, "chest_xray_findings", labels="labels.csv", split=split_spec)

    found = find_duplicates(arrays)
    verdict = leaks_in(arrays.cases, found, split_spec)

    assert (found.exact, len(found.near)) == ((), 11)
    assert all(
        {Path(arrays.cases[row].id).parts[0] for row in group} == {"images64", "images224"}
        for group in found.near
    )
    assert verdict.found[0].startswith("30 patients in train and val and test")


@pytest.mark.parametrize(("name", "preset"), [("hippocampus_mri", "mri"), ("sarcoma_ct", "ct")])
def test_real_volumes_of_different_people_are_not_alike(shared: Path, name: str, preset: str) -> None:
    images = ImagesSpec(size=32, dims=3, preset=preset)

    found = find_duplicates(real(shared, name, images=images))

    assert found == Duplicates()


def test_real_nodules_on_black_share_no_label(shared: Path) -> None:
    arrays = real(shared, "lung_nodule_ct", patient=PatientSpec(column="exam"))

    found = find_duplicates(arrays)

    assert (found.exact, len(found.near)) == ((), 3)
    assert leaks_in(arrays.cases, found, SplitSpec()).found == ()


def test_real_chest_films_share_170_numbers_by_a_looser_key(shared: Path) -> None:
    root = shared / "data/pneumonia"
    found = find_cases(DataSpec(source=str(root), patient=PatientSpec(pattern=STRICT)), root)

    (said,) = shared_stems([case.split for case in found.cases], found.cases)

    assert "170 are in train and test (457 train images, 320 test images)" in said
    assert leaks_in(found.cases, Duplicates(), SplitSpec()).found == ()


def test_a_refusal_of_many_leaks_stays_short() -> None:
    cases = [
        split(one, ("train", "test")[row % 2])
        for row, one in enumerate(cases_of(*[f"sick/{n:04}.png" for n in range(400)]))
    ]
    groups = Duplicates(
        exact=tuple(tuple(range(n, n + 10)) for n in range(0, 200, 10)),
        near=tuple((n, n + 1) for n in range(200, 400, 2)),
    )
    cases = [dataclasses.replace(one, patient=f"p{row // 3}") for row, one in enumerate(cases)]

    verdict = leaks_in(cases, groups, SplitSpec())
    with pytest.raises(DataError) as caught:
        verdict.require(None)

    assert len(verdict.found) >= 3
    assert len(caught.value.seen) < 4 * 120
    assert "133 patients in train and test" in caught.value.seen
    assert "20 groups of equal pictures in two splits" in caught.value.seen
