"""Series that lie in several folders: one where they complete each other, each a case where they are copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medxfer.data.describe import describe, find_inputs
from medxfer.data.listing.series_cases import units_of
from medxfer.data.policy import STRICT

from .faults import saved, saved_series, series

_SLICES = 8


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return saved_series(series()[:_SLICES], tmp_path / "whole")


def halves(whole: Path, folder: Path) -> Path:
    """The files of a series in two folders below `folder`."""
    for number, file in enumerate(sorted(whole.iterdir())):
        place = folder / ("a" if number < _SLICES // 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.name)
    return folder


def slices_of(folder: Path) -> dict[str, int]:
    found, _ = find_inputs(folder)
    return {one.path.relative_to(folder).as_posix(): describe(one)["shape"][2] for one in found}


def test_halves_are_one_volume_though_the_same_series_lies_elsewhere_too(tmp_path: Path, whole: Path) -> None:
    halves(whole, tmp_path / "nested")

    assert slices_of(tmp_path) == {"nested": _SLICES, "whole": _SLICES}


def test_halves_beside_a_whole_copy_are_one_volume(tmp_path: Path, whole: Path) -> None:
    halves(whole, tmp_path)

    found, aside = find_inputs(tmp_path)

    assert sorted(len(one.series.files) for one in found if one.series) == [_SLICES, _SLICES]
    assert any("one series lies in 2 places" in text and "a case of its own" in text for text in aside)


def test_training_and_inspect_see_the_same_volumes(tmp_path: Path, whole: Path) -> None:
    halves(whole, tmp_path / "nested")
    files = sorted(tmp_path.rglob("*.dcm"))

    units = units_of(tmp_path, files, STRICT, [])

    assert [unit.path.name for unit in units] == [one.path.name for one in find_inputs(tmp_path)[0]]


def test_a_part_of_a_series_that_lies_whole_elsewhere_warns(tmp_path: Path, whole: Path) -> None:
    halves(whole, tmp_path / "nested")
    shutil.rmtree(tmp_path / "nested" / "b")

    by_name = {one.path.name: describe(one) for one in find_inputs(tmp_path)[0]}

    assert by_name["whole"]["status"] == "ok"
    assert any("4 of 8 positions" in text for text in by_name["a"]["warnings"])


def test_d10_localizer_is_noted_only_where_it_lies(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "with")
    overview = series()[0]
    overview.ImageType, overview.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.2.826.0.1.5"
    saved(overview, tmp_path / "with" / "overview.dcm")

    by_name = {one.path.name: describe(one)["warnings"] for one in find_inputs(tmp_path)[0]}

    assert by_name["whole"] == []
    assert ["localizer" in text for text in by_name["with"]] == [True]
