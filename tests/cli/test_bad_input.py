"""Every bad input: its exit code, four lines, no traceback, nothing half-written."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medxfer.cli import main

BUNDLE = str(Path(__file__).parents[2] / "bundles" / "pneumonia_cls")
CLASSES = ("normal", "pneumonia")
SMALL = (  # a run in seconds: nothing is timed, no pretrained network is read and exported
    "images.size=32", "phases.0.epochs=1", "phases.1.epochs=0", "training.precision=fp32",
    "training.memory_format=contiguous", "encoder.id=resnet10", "encoder.weights=none",
)  # fmt: skip


def write_pictures(folder: Path, count: int = 12, classes: tuple[str, ...] = CLASSES) -> Path:
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = (random.random((40, 40)) * 150 + 50 * number).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"IM-{number}{index:03d}-0001.png")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0), capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("option", "code", "words"),
    [
        ("phases.1.epoch=5", 2, ["epoch", "epochs"]),
        ("encoder.id=resnet19", 3, ["resnet19", "resnet18"]),
        ("encoder.id=lung_net_of_nobody", 3, ["lung_net_of_nobody"]),
        ("encoder.weights=imagenette", 3, ["imagenet"]),
        ("task._target_=Clasification", 2, ["Classification"]),
        ("task._target_=os.system", 5, ["os.system"]),
        ("seed=$__import__('os').getpid()", 5, []),
        ("training.precision=fp16", 2, ["fp16"]),
        ("phases.0.lr=nan", 2, ["lr"]),
        ("training.batch=0", 2, ["batch"]),
        ("images.size=[64, 64, 32]", 2, ["3 numbers", "images.dims is 2"]),
        ("images={preset: ct, dims: 3, size: 32, slices: axial}", 2, ["slices"]),
        ("phases=[{name: probe, train: head, lr: 0.001, epochs: 0}]", 2, ["no epoch", "epochs"]),
    ],
)
def test_wrong_setting(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path, option: str, code: int, words: list[str]
) -> None:
    seen, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out), "--set", option)

    assert seen == code, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert not out.exists()


def test_missing_data_folder_names_what_is_there(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path
) -> None:
    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures.parent / "picturs"), "--out", str(out))

    assert code == 3
    assert "did you mean" in text
    assert not out.exists()


def test_empty_class_folder(capsys: pytest.CaptureFixture[str], pictures: Path, out: Path) -> None:
    shutil.rmtree(pictures / "normal")
    (pictures / "normal").mkdir()

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out))

    assert code == 3
    assert "normal" in text
    assert not out.exists()


def test_one_class_only(capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path) -> None:
    folder = write_pictures(tmp_path / "one", classes=("normal",))

    code, text = run(capsys, "run", BUNDLE, "--data", str(folder), "--out", str(out))

    assert code == 3
    assert "Traceback" not in text
    assert not out.exists()


def test_fewer_patients_than_splits_need(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path
) -> None:
    folder = write_pictures(tmp_path / "few", count=2)

    code, text = run(capsys, "run", BUNDLE, "--data", str(folder), "--out", str(out))

    assert code == 3
    assert "patient" in text
    assert not out.exists()


def test_unreadable_image_stops_before_training(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path
) -> None:
    (pictures / "normal" / "IM-0000-0001.png").write_bytes(b"")

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out))

    assert code == 3
    assert "IM-0000-0001.png" in text
    assert "on_bad_image=skip" in text
    assert not out.exists()


def test_unreadable_image_is_skipped_when_asked(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path
) -> None:
    (pictures / "normal" / "IM-0000-0001.png").write_bytes(b"")
    sets = [word for one in (*SMALL, "data.on_bad_image=skip") for word in ("--set", one)]

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out), "--quiet", *sets)

    assert code == 0, text
    assert "IM-0000-0001.png" in text
    assert "IM-0000-0001.png" in (out / "run.json").read_text()


def test_patient_forced_into_two_splits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path
) -> None:
    write_pictures(tmp_path / "d" / "train")
    write_pictures(tmp_path / "d" / "test")

    code, text = run(capsys, "run", BUNDLE, "--data", str(tmp_path / "d"), "--out", str(out))

    assert code == 3
    assert "IM-0000" in text
    assert not out.exists()


def test_label_column_missing(capsys: pytest.CaptureFixture[str], pictures: Path, out: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    rows = [f"{file.relative_to(pictures)},{file.parent.name}" for file in files]
    (pictures / "labels.csv").write_text("\n".join(["file,diagnosis", *rows]) + "\n")

    code, text = run(
        capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out),
        "--set", "data.layout=csv", "--set", "data.column=diagnose",
    )  # fmt: skip

    assert code == 3
    assert "diagnosis" in text
    assert not out.exists()


def test_existing_run_folder(capsys: pytest.CaptureFixture[str], pictures: Path, out: Path) -> None:
    out.mkdir()
    (out / "mine.txt").write_text("keep")

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out))

    assert code == 2
    assert "--resume" in text
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_absent_cuda_device(capsys: pytest.CaptureFixture[str], pictures: Path, out: Path) -> None:
    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out), "--device", "cuda:63")

    assert code == 2
    assert "cuda:63" in text
    assert not out.exists()


def test_bundle_and_resume_exclude_each_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "run")[0] == 2
    assert run(capsys, "run", BUNDLE, "--resume", str(tmp_path))[0] == 2


def test_no_run_folder_to_predict_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, text = run(capsys, "predict", str(tmp_path), str(tmp_path))

    assert code == 3
    assert "run.json" in text


def test_run_folder_in_a_place_that_is_a_file(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(tmp_path / "file" / "run"))

    assert code == 3
    assert "Traceback" not in text


def test_init_writes_a_bundle_that_runs(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "run"

    code, text = run(capsys, "init", str(mine), "--data", str(pictures), "--modality", "xray")
    ran, said = run(
        capsys, "run", str(mine), "--out", str(out), "--quiet", *[w for s in SMALL[:5] for w in ("--set", s)]
    )

    assert code == 0, text
    assert ran == 0, said
    assert (out / "report.html").is_file()


def test_encoders_are_listed_with_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["encoders", "--json"])

    text = capsys.readouterr().out
    assert left.value.code == 0
    assert '"efficientnet_lite0"' in text
    assert '"Apache-2.0"' in text


def test_patient_column_goes_before_the_pattern(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path
) -> None:
    files = sorted(pictures.rglob("*.png"))
    rows = [
        f"{file.relative_to(pictures)},{file.parent.name},{file.parent.name}{i // 2}"
        for i, file in enumerate(files)
    ]
    (pictures / "labels.csv").write_text("\n".join(["file,label,patient", *rows]) + "\n")
    sets = [word for one in SMALL for word in ("--set", one)]

    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out), *sets)

    assert code == 0, text
    assert "column `patient`" in text
    with (out / "split.csv").open() as file:
        assert len({row["patient"] for row in csv.DictReader(file)}) == 12


def test_folder_that_a_killed_run_left_before_training_is_taken_again(
    capsys: pytest.CaptureFixture[str], pictures: Path, out: Path
) -> None:
    (out / "checkpoints").mkdir(parents=True)
    (out / "log.txt").write_text("")
    sets = [word for one in SMALL for word in ("--set", one)]

    refused, said = run(capsys, "run", "--resume", str(out))
    code, text = run(capsys, "run", BUNDLE, "--data", str(pictures), "--out", str(out), "--quiet", *sets)

    assert refused == 3
    assert "run the same command again" in said
    assert code == 0, text


def test_an_empty_folder_of_the_user_is_not_removed_by_a_refusal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path
) -> None:
    out.mkdir()

    code, _ = run(capsys, "run", BUNDLE, "--data", str(tmp_path / "absent"), "--out", str(out))

    assert code == 3
    assert out.is_dir()
    assert not list(out.iterdir())


def test_refusal_leaves_no_folder_of_runs_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    code, text = run(capsys, "run", BUNDLE, "--set", "encoder.id=resnet19")

    assert code == 3, text
    assert list(tmp_path.iterdir()) == []
