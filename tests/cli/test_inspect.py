from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medxfer.cli import main
from medxfer.data.describe import KEYS, find_inputs
from medxfer.data.readers import read_image

from ..data.faults import chest, dicom, picture, ramp, saved

AFFINE = np.array([[-0.8, 0, 0, 40.0], [0, -0.7, 0, 12], [0, 0, 3, -9], [0, 0, 0, 1]])
CT = "1.2.840.10008.5.1.4.1.1.2"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["inspect", *words])
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    return int(caught.value.code or 0), output.out, output.err


def no_token(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def records(
    capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """What --json prints, by the last part of the path."""
    found, out, _ = run(capsys, "--json", *map(str, words))
    assert found == code
    by_name: dict[str, list[dict[str, Any]]] = {}
    for line in out.splitlines():
        record = json.loads(line, parse_constant=no_token)
        assert tuple(record) == KEYS
        assert record["status"] in ("ok", "warned", "refused")
        assert (record["status"] == "refused") == (record["reason"] is not None) == (record["shape"] is None)
        assert (record["status"] == "warned") == bool(record["warnings"])
        by_name.setdefault(Path(record["path"]).name, []).append(record)
    return by_name


def series(folder: Path, count: int = 5, name: str = "one", **tags: Any) -> Path:
    rng = np.random.default_rng(len(name))
    for index in range(count):
        data = dicom(
            rng.integers(0, 4000, (12, 10)).astype(np.uint16),
            SOPClassUID=CT,
            Modality="CT",
            SOPInstanceUID=generate_uid(entropy_srcs=[name, str(index)]),
            SeriesInstanceUID=generate_uid(entropy_srcs=[name]),
            ImagePositionPatient=[0.0, 0.0, 2.5 * index],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            RescaleSlope="1",
            RescaleIntercept="-1024",
            **tags,
        )
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.file_meta.MediaStorageSOPClassUID = CT
        saved(data, folder / f"{name}{index}.dcm")
    return folder


def test_a_volume_is_told_with_the_figures_of_its_turned_array(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    nibabel.Nifti1Image(array, AFFINE).to_filename(tmp_path / "a.nii.gz")

    (record,) = records(capsys, tmp_path / "a.nii.gz")["a.nii.gz"]

    turned = array[::-1, ::-1]
    assert record["path"] == str(tmp_path / "a.nii.gz")
    assert (record["status"], record["kind"], record["channels"]) == ("ok", "NIfTI", 1)
    assert record["shape"] == [5, 6, 7]
    assert record["spacing"] == pytest.approx([0.8, 0.7, 3])
    assert np.allclose(np.diag(record["affine"]), [0.8, 0.7, 3, 1])
    assert record["sha256"] == hashlib.sha256(np.ascontiguousarray(turned, "<f4").tobytes()).hexdigest()
    assert record["sum"] == pytest.approx(turned.sum(dtype=np.float64), rel=1e-12)
    assert record["mean"] == pytest.approx(turned.mean(dtype=np.float64), rel=1e-12)
    assert (record["min"], record["max"]) == (float(array.min()), float(array.max()))
    assert record["profile"] == pytest.approx(turned.mean(axis=(0, 1), dtype=np.float64).tolist())
    assert record["applied"] == ["axes LPS turned to RAS"]


def test_a_picture_is_told_as_rows_and_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved(dicom(ramp(), PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm")

    (record,) = records(capsys, tmp_path / "a.dcm")["a.dcm"]

    assert record["shape"] == [24, 32]
    assert record["spacing"] == [0.5, 1.25]
    assert record["affine"] is None
    assert record["profile"] == pytest.approx((4095 - ramp()).mean(axis=0).tolist())


def test_a_folder_of_one_series_is_one_case_and_of_several_one_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = series(tmp_path / "ct")
    (alone,) = records(capsys, folder)["ct"]
    series(folder, 4, "another")

    pair = records(capsys, folder)["ct"]

    assert alone["kind"] == "DICOM series"
    assert alone["shape"] == [10, 12, 5]
    assert alone["spacing"] == pytest.approx([1.25, 0.5, 2.5])
    assert [record["shape"][2] for record in pair] == [4, 5]
    assert alone["sha256"] in {record["sha256"] for record in pair}
    assert all("of 2 in this folder: CT, axial" in record["applied"][0] for record in pair)


def test_copies_of_a_series_in_two_folders_are_two_cases_and_a_series_over_two_folders_is_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    series(tmp_path / "copies" / "a")
    shutil.copytree(tmp_path / "copies" / "a", tmp_path / "copies" / "b")
    series(tmp_path / "spread" / "a")
    (tmp_path / "spread" / "b").mkdir()
    for index in (3, 4):
        name = f"one{index}.dcm"
        (tmp_path / "spread" / "a" / name).rename(tmp_path / "spread" / "b" / name)

    copies, spread = records(capsys, tmp_path / "copies"), records(capsys, tmp_path / "spread")

    assert copies["a"][0]["sha256"] == copies["b"][0]["sha256"] == spread["spread"][0]["sha256"]


def test_projections_of_one_series_are_a_case_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for index in range(3):
        uids = {"SOPInstanceUID": generate_uid(entropy_srcs=[str(index)]), "SeriesInstanceUID": "1.2.3"}
        saved(dicom(ramp(), **uids), tmp_path / f"{index}.dcm")

    assert set(records(capsys, tmp_path)) == {"0.dcm", "1.dcm", "2.dcm"}


def test_a_mixed_folder_gives_each_image_once_and_leaves_other_files_aside(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    series(tmp_path / "ct")
    picture(tmp_path / "a.png", chest(0))
    picture(tmp_path / ".hidden.png", chest(0))
    nibabel.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4)).to_filename(tmp_path / "pair.hdr")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "Thumbs.db").write_bytes(bytes(30))
    (tmp_path / "loop").symlink_to(tmp_path)

    found = records(capsys, tmp_path)

    assert {name: len(each) for name, each in found.items()} == {"ct": 1, "a.png": 1, "pair.hdr": 1}


def test_exit_code_is_3_at_the_first_refusal_and_4_when_it_kept_going(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.png", "c.png"):
        picture(tmp_path / name, chest(0))
    (tmp_path / "b.png").write_bytes(b"")

    stopped = records(capsys, tmp_path, code=3)
    went_on = records(capsys, "--keep-going", tmp_path, code=4)

    assert list(stopped) == ["a.png", "b.png"]
    assert list(went_on) == ["a.png", "b.png", "c.png"]
    assert "b.png: 0 bytes" in went_on["b.png"][0]["reason"]
    assert "do: " in went_on["b.png"][0]["reason"]


def test_tx1_nan_never_reaches_the_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = np.nan
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "a.nii")

    (record,) = records(capsys, tmp_path / "a.nii", code=3)["a.nii"]

    assert "1 value is NaN" in record["reason"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"", "0 bytes"),
        ("a.dcm", np.random.default_rng(3).bytes(3000), "no known image format"),
        ("a.dcm", b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git-LFS"),
        ("a.mha", b"ObjectType = Image\nNDims = 3\nDimSize = 4 5", "ElementDataFile"),
    ],
)
def test_td1_td2_other_content_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)

    (record,) = records(capsys, tmp_path, code=3)[name]

    assert words.lower() in record["reason"].lower()
    assert name in record["reason"]


def test_each_policy_of_the_reader_is_an_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    holed = np.ones((4, 5, 6), np.float32)
    holed[1, 2, 3] = np.nan
    nibabel.Nifti1Image(holed, np.eye(4)).to_filename(tmp_path / "holed.nii")
    pair = np.stack([np.zeros((4, 5, 6)), np.arange(120).reshape(4, 5, 6)], -1).astype(np.float32)
    nibabel.Nifti1Image(pair, np.eye(4)).to_filename(tmp_path / "pair.nii")
    gap = series(tmp_path / "gap", 6)
    (gap / "one3.dcm").unlink()

    (zeroed,) = records(capsys, tmp_path / "holed.nii", "--on-nonfinite", "zero")["holed.nii"]
    (second,) = records(capsys, tmp_path / "pair.nii", "--volume", "1")["pair.nii"]
    (even,) = records(capsys, gap, "--on-geometry", "resample")["gap"]
    (kept,) = records(capsys, gap, "--on-geometry", "warn")["gap"]

    assert (zeroed["min"], zeroed["status"]) == (0, "warned")
    assert second["max"] == 119
    assert (even["shape"], kept["shape"]) == ([10, 12, 6], [10, 12, 5])
    assert records(capsys, tmp_path / "pair.nii", code=3)["pair.nii"][0]["reason"]
    assert records(capsys, gap, code=3)["gap"][0]["reason"]


def test_rules_choose_a_series_and_tags_a_volume_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = series(tmp_path / "scans", 5)
    series(folder, 3, "another")
    for time in (10, 30):
        series(tmp_path / "echoes", 4, f"e{time}", EchoTime=str(time))
    for path in (tmp_path / "echoes").iterdir():
        image = pydicom.dcmread(path)
        image.SeriesInstanceUID = "1.2.826.0.1.7"
        image.save_as(path)

    code, out, err = run(capsys, "--json", str(folder), "--series", "slices=4", "--series", "modality=ct")
    (echo,) = records(capsys, tmp_path / "echoes", "--select", "EchoTime=30")["echoes"]

    assert code == 0
    assert [json.loads(line)["shape"] for line in out.splitlines()] == [[10, 12, 5]]
    assert "3 files set aside: of series that the rules do not choose" in err
    assert any("EchoTime 30 selected (4 of 8 images)" in text for text in echo["applied"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--select", "EchoTme=30"), "write EchoTime"),
        (("--series", "slices"), "NAME=VALUE"),
        (("--frames", "last"), "first, middle"),
        (("--volume", "-1"), "whole number from 0"),
        (("--on-geometry", "resmple"), "resample"),
    ],
)
def test_a_policy_that_is_none_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    picture(tmp_path / "a.png", chest(0))

    code, _, err = run(capsys, str(tmp_path / "a.png"), *words)

    assert code == 2
    assert said in err


def test_td3_absent_path_and_empty_folder_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (record,) = records(capsys, tmp_path / "gone.png", code=3)["gone.png"]
    assert "no such file" in record["reason"]
    (tmp_path / "empty").mkdir()
    (record,) = records(capsys, tmp_path / "empty", code=3)["empty"]
    assert "no image" in record["reason"]


def test_td5_td6_td7_odd_names_stay_on_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["a\nb.png", "-x.png", os.fsdecode(b"\xff.png"), "Größe тест.png", "\x1b[31m.png"]
    for name in names:
        picture(tmp_path / "plain.png", chest(0)).rename(tmp_path / name)

    found = records(capsys, tmp_path)
    code, out, _ = run(capsys, str(tmp_path))

    assert set(found) == {"a\nb.png", "-x.png", "\\xff.png", "Größe тест.png", "\x1b[31m.png"}
    assert code == 0
    assert "\x1b" not in out
    assert "a\\nb.png" in out
    assert "\\xff.png" in out


def test_td8_td9_td10_pipes_links_and_forbidden_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    picture(tmp_path / "good.png", chest(0))
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    picture(tmp_path / "locked.png", chest(0)).chmod(0)

    original, by_system = Path.open, os.open

    def refuse(path: Any) -> None:
        if Path(os.fspath(path)).name == "locked.png":  # root may open anything
            raise PermissionError(13, "Permission denied")

    def forbidden(self: Path, *args: Any, **kwargs: Any) -> Any:
        refuse(self)
        return original(self, *args, **kwargs)

    def forbidden_by_system(path: Any, *args: Any, **kwargs: Any) -> int:
        refuse(path)
        return by_system(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    monkeypatch.setattr(os, "open", forbidden_by_system)
    found = records(capsys, "--keep-going", tmp_path, code=4)

    assert "pipe" in found["pipe.dcm"][0]["reason"]
    assert found["link.png"][0]["sha256"] == found["good.png"][0]["sha256"]
    assert "Permission denied" in found["locked.png"][0]["reason"]


def test_td11_many_files_are_listed(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", chest(0))
    for index in range(1, 10_000):
        os.link(tmp_path / "0.png", tmp_path / f"{index}.png")

    found, _ = find_inputs(tmp_path)

    assert len(found) == 10_000


def test_people_read_lines_no_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    image = nibabel.Nifti1Image(array, np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 3
    image.set_qform(moved, 1)
    image.to_filename("a.nii")
    Path("b.png").write_bytes(b"")
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)

        code, out, _ = run(capsys, "a.nii", "b.png", "--keep-going")

        assert code == 4
        assert max(map(len, out.splitlines())) <= int(columns)
        assert out.startswith("warned   a.nii\n")
        assert "5 x 6 x 7 voxels, 1 x 1 x 1 mm, 1 channel, 0 to 209" in " ".join(out.split())
        assert "refused  b.png" in out
        assert "2 cases: 1 refused, 1 warned" in out


def test_the_executable_prints_valid_json_into_a_pipe(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", chest(0))
    command = [sys.executable, "-m", "medxfer", "inspect", "--json", str(tmp_path / "a.png")]

    done = subprocess.run(command, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["sha256"] == hashlib.sha256(chest(0).astype("<f4").tobytes()).hexdigest()


def test_real_files_agree_with_the_tables(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    root = shared / "data"
    found = records(capsys, "--keep-going", root / "nifti", code=4)
    table = json.loads((root / "nifti" / "expected.json").read_text())
    assert found.keys() == table.keys() - {"expected.json"}
    for name, (record,) in found.items():
        figures = table[name].get("finite_min_max_mean")
        if record["status"] != "refused" and figures != "rgb24":
            assert [record["min"], record["max"], record["mean"]] == pytest.approx(
                figures, rel=1e-5, abs=1e-4
            )

    single = records(capsys, "--keep-going", root / "dicom" / "single", code=4)
    table = {
        Path(name).name: each
        for name, each in json.loads((root / "dicom" / "expected.json").read_text())["shared"].items()
    }
    checked = 0
    for name, (record,) in single.items():
        figures = table[name].get("value_min_max_mean")
        plain = "MONOCHROME1" not in str(table[name].get("photometric"))
        if record["status"] == "refused" or figures is None or not plain or len(figures) != 3:
            continue
        if any("padding" in text for text in record["applied"]) or record["channels"] != 1:
            continue
        assert [record["min"], record["max"], record["mean"]] == pytest.approx(figures, rel=1e-4, abs=1e-2), (
            name
        )
        checked += 1
    assert checked >= 10


def test_real_series_as_dicom_and_nifti_are_one_tensor(
    capsys: pytest.CaptureFixture[str], shared: Path
) -> None:
    root = shared / "data"
    for name in ("sts008_ct", "sts008_pet"):
        (dicom_record,) = records(capsys, root / "dicom" / "series" / name)[name]
        ours = read_image(root / "dicom" / "series" / name)
        nifti = read_image(root / "nifti" / f"{name}.nii.gz")

        np.testing.assert_allclose(ours.array, nifti.array, atol=4e-7)
        assert ours.affine is not None
        np.testing.assert_allclose(ours.affine, nifti.affine, atol=1e-3)
        assert dicom_record["shape"] == list(nifti.array.shape[1:])
        if name == "sts008_ct":
            np.testing.assert_array_equal(ours.array, nifti.array)
