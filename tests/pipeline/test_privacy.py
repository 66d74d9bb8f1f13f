"""What a DICOM header says of a person appears in nothing that medxfer writes or prints."""

from __future__ import annotations

import stat
from pathlib import Path

import pydicom
import pytest

from medxfer.cli import main
from medxfer.data.synthetic.chest_xray import write_chest_xrays

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "pneumonia_cls")
CANARIES = (b"Zephyrine", b"Q0417", b"19410203", b"ACC-99812", b"St Elsewhere")
QUICK = (
    "images.size=32", "training.precision=fp32", "training.memory_format=channels_last", "encoder.id=resnet10",
    "encoder.weights=none", "phases=[{name: probe, train: head, lr: 0.001, epochs: 1}]",
)  # fmt: skip


@pytest.fixture
def named(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    write_chest_xrays(folder, count=60, seed=3)
    for path in folder.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        data.PatientID = f"Q0417{data.PatientID}"
        data.PatientName = "Quill^Zephyrine"
        data.PatientBirthDate = "19410203"
        data.AccessionNumber = "ACC-99812"
        data.InstitutionName = "St Elsewhere"
        data.save_as(path)
    return folder


def test_no_name_or_number_of_a_patient_leaves_the_data_folder(
    named: Path, tmp_path: Path, home: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def call(*arguments: str) -> None:
        with pytest.raises(SystemExit):
            main(list(arguments))

    run, images = str(tmp_path / "run"), str(named / "images")
    settings = [part for option in QUICK for part in ("--set", option)]
    call("run", BUNDLE, "--data", str(named), "--out", run, *settings)
    call("predict", run, images, "-o", str(tmp_path / "out.csv"))
    call("evaluate", run, "--data", str(named), "-o", str(tmp_path / "scores.json"))
    call("export", run, "--to", "bundle", "-o", str(tmp_path / "exported"))
    call("inspect", images, "--json")
    call("doctor", "data", str(named), "--json", "--sheet", str(tmp_path / "sheet.png"))
    call("run", BUNDLE, "--data", str(named), "--set", "task.classes=[a, b]", "--debug")

    said = b"".join(capfdbinary.readouterr())
    written = {
        path: path.read_bytes() for place in (tmp_path, home) for path in place.rglob("*") if path.is_file()
    }
    kept = {path: content for path, content in written.items() if named not in path.parents}
    assert (tmp_path / "run" / "report.html") in kept
    assert (tmp_path / "exported" / "configs" / "inference.yaml") in kept
    assert not [canary for canary in CANARIES if canary in said]
    assert not [(path, canary) for path, content in kept.items() for canary in CANARIES if canary in content]
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "key").stat().st_mode) == 0o600
