"""The page "Read a hospital export": its commands are run from top to bottom."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec
from medxfer.cli import main

from ..data.faults import chest, dicom, saved, saved_series, series

TEXT = (Path(__file__).parents[2] / "docs" / "read-a-hospital-export.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an export: films with a label table, and a scan that no row names."""
    rows = ["file,diagnosis,patient"]
    for number in range(32):
        image = dicom(chest(number).astype(np.uint16), PatientID=f"P{number}")
        image.StudyInstanceUID = f"1.2.826.0.1.{number + 1}"
        saved(image, tmp_path / f"export/films/film{number:02}.dcm")
        rows.append(f"films/film{number:02}.dcm,{('normal', 'pneumonia')[number % 2]},P{number}")
    saved_series(series(), tmp_path / "export/scan")
    (tmp_path / "export/labels.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_of_the_page_do_what_it_says(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    # The bundle that one command reads is made further down the page.
    for line in sorted(LINES, key=lambda line: 0 if line.startswith("medxfer init") else 1):
        with pytest.raises(SystemExit) as left:
            main(shlex.split(line)[1:])
        output = capsys.readouterr()
        assert not left.value.code, f"{line}\n{output.out}{output.err}"
        said[line] = output.out

    scan, _, film = (said[line] for line in LINES[:3])
    assert "DICOM series, 26 x 20 x 12 voxels" in scan
    assert json.loads(film)["path"] == "export/films/film03.dcm"
    report, overview, bundle = (said[line] for line in LINES[3:6])
    assert "classes     normal 16, pneumonia 16" in report
    assert json.loads(overview)["sheet"]["file"] == "overview.png"
    assert (desk / "overview.png").is_file()
    assert (desk / "doctor-sheet.png").is_file()
    assert "verdict: a run would take these data" in bundle
    assert "on_geometry: resample" in said[LINES[-1]]


def test_policies_of_the_page_are_keys_of_a_bundle() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE))

    assert len(listed) == 9
    assert listed <= {field.name for field in fields(DataSpec)}
