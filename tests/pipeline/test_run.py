import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medxfer.cli import medxfer
from medxfer.data.readers import read_image
from medxfer.methods.compare import compare_runs
from medxfer.run_folder import RunFolder
from medxfer.trained import evaluate_on, open_run

WANTED = [
    "run.json",
    "config.yaml",
    "split.csv",
    "receipt.json",
    "history.csv",
    "scores.json",
    "figures.json",
    "cases.json",
    "report.html",
    "model_card.md",
    "log.txt",
    "predictions/val.csv",
    "predictions/test.csv",
    "checkpoints/last.pt",
    "checkpoints/previous.pt",
    "checkpoints/best.pt",
    "bundle/configs/inference.yaml",
    "bundle/configs/metadata.json",
    "bundle/models/model.pt2",
    "bundle/models/model.safetensors",
]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_run_folder_holds_everything_that_was_decided(finished_run: RunFolder) -> None:
    missing = [name for name in WANTED if not (finished_run.root / name).exists()]

    assert not missing
    assert finished_run.read("run.json")["status"] == "done"
    assert list((finished_run.root / "tensorboard").iterdir())
    assert not list(finished_run.root.rglob("*.tmp-*"))


def test_no_patient_is_in_two_splits(finished_run: RunFolder) -> None:
    sides: dict[str, set[str]] = {}
    for row in finished_run.read("split.csv"):
        sides.setdefault(row["patient"], set()).add(row["split"])

    assert len(sides) > 50
    assert all(len(splits) == 1 for splits in sides.values())


def test_every_encoder_parameter_came_from_the_file(finished_run: RunFolder) -> None:
    assert finished_run.read("receipt.json")["coverage"] == 1.0


def test_history_has_a_row_an_epoch_and_one_best_at_least(finished_run: RunFolder) -> None:
    history = finished_run.read("history.csv")

    assert [row["phase"] for row in history] == ["probe", "probe", "probe", "finetune"]
    assert any(row["best"] == "1" for row in history)


def test_predict_says_what_the_run_said_of_its_test_cases(finished_run: RunFolder) -> None:
    known = finished_run.read("predictions/test.csv")

    said = open_run(finished_run.root).predict([row["file"] for row in known])

    for before, now in zip(known, said, strict=True):
        assert float(now["p_pneumonia"]) == pytest.approx(float(before["p_pneumonia"]), abs=2e-6)
        assert now["predicted"] == before["predicted"]


def test_exported_bundle_opened_by_medxfer_says_the_same(finished_run: RunFolder) -> None:
    known = finished_run.read("predictions/test.csv")

    said = open_run(finished_run.root / "bundle").predict([row["file"] for row in known])

    np.testing.assert_allclose(
        [float(row["p_pneumonia"]) for row in said], [float(row["p_pneumonia"]) for row in known], atol=2e-6
    )


def test_bad_file_is_reported_on_its_line_and_the_others_go_on(
    finished_run: RunFolder, tmp_path: Path
) -> None:
    good = finished_run.read("predictions/test.csv")[0]["file"]
    empty = tmp_path / "empty.dcm"
    empty.touch()
    picture = tmp_path / "grey.png"
    Image.fromarray((np.random.default_rng(0).random((80, 90)) * 255).astype(np.uint8)).save(picture)
    out = tmp_path / "out.csv"

    files = [good, str(empty), str(picture), str(tmp_path / "absent.png")]
    arguments = ["predict", str(finished_run.root), *files, "-o", str(out), "--quiet"]
    result = CliRunner().invoke(medxfer, arguments, standalone_mode=False)

    rows = rows_of(out.read_text())
    assert result.return_value == 4
    assert [row["status"] == "refused" for row in rows] == [False, True, False, True]
    assert rows[1]["reason"]
    assert rows[1]["p_pneumonia"] == ""
    assert 0 <= float(rows[2]["p_pneumonia"]) <= 1


def test_probabilities_are_numbers_in_json(finished_run: RunFolder, tmp_path: Path) -> None:
    good = finished_run.read("predictions/test.csv")[0]["file"]
    arguments = ["predict", str(finished_run.root), good, str(tmp_path / "absent.png"), "--json", "--quiet"]

    rows = json.loads(CliRunner().invoke(medxfer, arguments, standalone_mode=False).stdout)

    assert rows[0]["p_normal"] + rows[0]["p_pneumonia"] == pytest.approx(1, abs=1e-6)
    assert rows[1]["p_pneumonia"] is None


def test_evaluate_on_the_training_data_again_finds_the_same_test_scores(
    finished_run: RunFolder, xrays: Path
) -> None:
    scores = evaluate_on(finished_run.root, xrays)

    assert scores["all"]["auroc"]["n"] == 120
    trained_on = sum(row["split"] != "test" for row in finished_run.read("split.csv"))
    assert scores["alarms"][0].startswith(f"{trained_on} of 120 images were trained or tuned on")
    assert scores["all"]["auroc"]["patients"] == len(
        {row["patient"] for row in finished_run.read("split.csv")}
    )


def test_run_compared_with_itself_differs_by_nothing(finished_run: RunFolder) -> None:
    rows = compare_runs([finished_run.root, finished_run.root])

    differences = [row["difference"] for row in rows if "difference" in row]
    assert differences
    assert all(value == 0 for value in differences)


def test_report_is_drawn_again_from_the_folder_alone(finished_run: RunFolder) -> None:
    before = (finished_run.root / "report.html").read_text()

    result = CliRunner().invoke(medxfer, ["report", str(finished_run.root)], catch_exceptions=False)

    assert result.exit_code == 0
    assert len((finished_run.root / "report.html").read_text()) == pytest.approx(len(before), rel=0.05)


def test_scores_are_plain_json_with_intervals(finished_run: RunFolder) -> None:
    scores = json.loads((finished_run.root / "scores.json").read_text())

    for split in ("val", "test"):
        auroc = scores[split]["auroc"]
        assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert scores["threshold"]["from"] == "val, youden"
    assert scores["temperature"] > 0
    assert scores["baseline"]["test"]["auroc"]["value"] == 0.5


def test_export_of_a_finished_run_keeps_the_documents_of_its_bundle(
    finished_run: RunFolder, tmp_path: Path
) -> None:
    arguments = ["export", str(finished_run.root), "--to", "bundle", "-o", str(tmp_path / "again")]
    result = CliRunner().invoke(medxfer, arguments, catch_exceptions=False)

    names = ("authors", "intended_use", "network_data_format", "references")
    first, again = (
        json.loads((folder / "configs" / "metadata.json").read_text())
        for folder in (finished_run.root / "bundle", tmp_path / "again")
    )
    assert result.exit_code == 0
    assert {name: first[name] for name in names} == {name: again[name] for name in names}


def test_evaluate_reads_data_that_are_named_otherwise(finished_run: RunFolder, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["image,diagnosis,who"]
    for number in range(8):
        Image.fromarray((random.random((50, 50)) * 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{('normal', 'pneumonia')[number % 2]},p{number // 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    overrides = ("data.column=diagnosis", "data.patient.column=who", "data.patient.pattern=null")

    scores = evaluate_on(finished_run.root, tmp_path, overrides=overrides)

    assert scores["all"]["auroc"]["patients"] == 4


def inverted(file: str, path: Path) -> None:
    values = read_image(Path(file)).array[0]
    negative = (values.max() - values) / np.ptp(values) * 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(negative.round().astype(np.uint8)).save(path)


def test_an_inverted_image_is_warned_of_by_the_run_and_its_bundle(
    finished_run: RunFolder, tmp_path: Path
) -> None:
    rows = [row for row in finished_run.read("predictions/test.csv") if row["label"] == "normal"][:3]
    for number, row in enumerate(rows):
        inverted(row["file"], tmp_path / f"{number}.png")

    for root in (finished_run.root, finished_run.root / "bundle"):
        trained = open_run(root)
        as_they_are = trained.predict([row["file"] for row in rows])
        turned = trained.predict([tmp_path])
        assert not any("unlike" in str(row["reason"]) for row in as_they_are)
        assert [row["status"] for row in turned] == ["warned"] * len(rows)
        assert all("unlike the training images" in str(row["reason"]) for row in turned)


def test_evaluate_tells_how_many_images_are_unlike_the_training_images(
    finished_run: RunFolder, tmp_path: Path
) -> None:
    rows = finished_run.read("split.csv")[:10]
    for number, row in enumerate(rows):
        inverted(row["file"], tmp_path / row["class"] / f"{number}.png")

    scores = evaluate_on(finished_run.root, tmp_path, overrides=["data.patient.pattern=null"])

    assert scores["unlike_training_images"] == {"images": 10, "of": 10}
    assert "10 of 10 images are unlike the training images" in scores["alarms"][0]
