"""Names of files that belong to cases: safe on every system, and never two alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medxfer.data.names import file_stem, file_stems


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("imagesTr/hippocampus_001.nii.gz", "imagesTr__hippocampus_001"),
        ("a/b c/Scan (1).NII", "a__b_c__Scan_1"),
        ("series-1.2.840.113", "series-1.2.840.113"),
        ("../x.png", "x"),
        ("ä/ö.dcm", "ä__ö"),
        ("...", "image"),
    ],
)
def test_a_stem_is_the_path_without_its_ending_in_safe_letters(name: str, stem: str) -> None:
    assert file_stem(name) == stem


def test_names_that_differ_by_ending_or_capitals_stay_apart() -> None:
    assert file_stems(["a.png", "a.jpg", "b.nii.gz"]) == ["a_png", "a_jpg", "b"]
    assert file_stems(["x y.png", "x_y.png", "X_Y.png"]) == ["x_y_png", "x_y_png-2", "X_Y_png-3"]


def test_long_paths_keep_their_end_and_stay_apart() -> None:
    uids = "/".join(f"1.2.840.113619.2.{number:050d}" for number in range(5))

    stems = [file_stem(f"{patient}/{uids}/series ä") for patient in ("anna", "bert")]

    assert stems[0] != stems[1]
    assert all(len(stem.encode()) <= 160 and stem.endswith("__series_ä") for stem in stems)


@given(names=st.lists(st.text(st.sampled_from("aAb./ _-é\\:*"), min_size=1, max_size=8), max_size=12))
def test_stems_are_different_whatever_the_names(names: list[str]) -> None:
    stems = file_stems(names)

    assert len({stem.lower() for stem in stems}) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", stem) and not stem.startswith(".") for stem in stems)
