"""Several findings an image: unknown ones count nowhere, and a whole run goes through."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from medxfer.bundle.create import write_bundle
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import EncoderSpec
from medxfer.data.case import Case
from medxfer.data.inspect import facts_of
from medxfer.encoders.loading import create_encoder
from medxfer.errors import ConfigError, DataError
from medxfer.networks.network import Network
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress
from medxfer.reports.facts import read_facts
from medxfer.reports.tables import count_table
from medxfer.run_folder import RunFolder
from medxfer.tasks.base import Predictions
from medxfer.tasks.findings import Findings
from medxfer.trained import open_run

NAMES = ("bright", "stripes", "never")


def case(**label: bool | None) -> Case:
    return Case(id="c", images=(Path("c.png"),), patient="p", label=label)


def predictions(count: int = 240, seed: int = 0) -> Predictions:
    """Two findings that the logits tell, a third that nobody has, a tenth of the cells unknown."""
    random = np.random.default_rng(seed)
    truth = (random.uniform(size=(count, 3)) < (0.3, 0.5, 0.0)).astype(np.float64)
    logits = 3 * (2 * truth - 1) * (0.6, 0.2, 0.0) + random.normal(size=truth.shape)
    labels = np.where(random.uniform(size=truth.shape) < 0.1, np.nan, truth).astype(np.float32)
    names = tuple(f"c{row}" for row in range(count))
    patients = tuple(f"p{row // 2}" for row in range(count))
    return Predictions(
        ids=names, files=names, patients=patients, labels=labels, outputs=logits.astype(np.float32)
    )


@pytest.fixture(scope="module")
def task() -> Findings:
    return Findings(NAMES)


def test_labels_are_read_by_name_and_unknown_is_nan(task: Findings) -> None:
    row = task.read_label(case(Stripes=True, bright=None, never=False, other=True))

    assert math.isnan(row[0])
    assert row[1:] == [1.0, 0.0]
    assert [task.class_of(case(bright=a, stripes=b, never=None)) for a, b in ((1, 0), (1, 1), (0, None))] == [
        "bright", "bright; stripes", "none"
    ]  # fmt: skip
    with pytest.raises(DataError, match="did you mean stripes"):
        Findings(["strypes"]).read_label(case(stripes=True))
    with pytest.raises(DataError, match="no findings"):
        task.read_label(Case(id="c", images=(Path("c"),), patient="p", label="bright"))


@pytest.mark.parametrize(
    "options", [{"classes": []}, {"classes": ["a", "A"]}, {"balance": "x"}, {"dropout": 1.0}]
)
def test_impossible_arguments_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Findings(**{"classes": ["a"], **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_is_unknown_changes_neither_loss_nor_gradient(smoothing: float) -> None:
    task = Findings(["a", "b"], balance="weights")
    task.prepare(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [float("nan"), 0.0]]))
    output = torch.tensor([[0.3, -1.0], [2.0, 0.5]], requires_grad=True)
    unknown = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])

    task.loss(output, unknown, label_smoothing=smoothing).backward()
    nothing = task.loss(output, torch.full((2, 2), float("nan")))

    assert output.grad is not None
    assert output.grad[0, 1] == 0
    assert bool((output.grad.abs() > 0).sum() == 3)
    assert nothing == 0
    assert nothing.requires_grad


def test_a_finding_that_training_cannot_teach_is_refused(task: Findings) -> None:
    with pytest.raises(DataError, match=r"never \(0 of 2 known\)"):
        task.prepare(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_the_head_begins_with_the_share_of_each_finding() -> None:
    encoder = create_encoder(EncoderSpec(id="cnn"), spatial_dims=2)[0]
    task = Findings(["a", "b"])
    head = task.head(encoder)

    task.prepare(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, float("nan")]]))

    said = head(torch.zeros(1, sum(encoder.channels))).sigmoid()
    torch.testing.assert_close(said, torch.tensor([[0.25, 2 / 3]]))


def test_scores_are_those_of_scikit_learn_on_known_cases_and_undefined_ones_are_left_out(
    task: Findings,
) -> None:
    one = predictions()
    calibration = task.calibrate(one, "youden")

    scores = task.score({"test": task.finish(one, calibration)}, calibration, seed=0)

    assert one.labels is not None
    known = [~np.isnan(one.labels[:, number]) for number in range(2)]
    pairs = [(one.labels[rows, number], one.outputs[rows, number]) for number, rows in enumerate(known)]
    auroc = [roc_auc_score(*pair) for pair in pairs]
    precision = [average_precision_score(*pair) for pair in pairs]
    by_finding = scores["by_finding"]["test"]
    assert scores["test"]["auroc"]["value"] == pytest.approx(np.mean(auroc))
    assert scores["test"]["average_precision"]["value"] == pytest.approx(np.mean(precision))
    assert task.measure(one) == pytest.approx(np.mean(auroc))
    assert by_finding["bright"]["auroc"]["value"] == pytest.approx(auroc[0])
    assert by_finding["bright"]["auroc"]["low"] < auroc[0] < by_finding["bright"]["auroc"]["high"]
    assert by_finding["never"]["auroc"]["value"] is None
    assert "no case of never" in by_finding["never"]["auroc"]["note"]
    assert by_finding["bright"]["auroc"]["n"] == known[0].sum()
    assert "not defined: never" in scores["test"]["auroc"]["note"]
    assert scores["baseline"]["test"]["auroc"]["value"] == 0.5
    assert set(calibration["threshold"]["by_finding"]) == set(NAMES)


def test_no_finding_defined_gives_no_score(task: Findings) -> None:
    one = predictions(20)
    nothing = Predictions(
        ids=one.ids,
        files=one.files,
        patients=one.patients,
        labels=np.zeros((20, 3), np.float32),
        outputs=one.outputs,
    )

    calibration = task.calibrate(nothing, "f1")
    scores = task.score({"test": task.finish(nothing, calibration)}, calibration, seed=0)

    assert math.isnan(task.measure(nothing))
    assert calibration["temperature"] == 1.0
    assert scores["test"]["auroc"]["value"] is None
    assert any("not defined" in alarm for alarm in scores["alarms"])
    assert [one.kind for one in task.figures({"test": task.finish(nothing, calibration)}, calibration)] == [
        "table"
    ]


def test_temperature_undoes_logits_that_are_too_sure(task: Findings) -> None:
    one = predictions(4000)
    assert one.labels is not None
    # Logits of a mixture of two normal distributions, 2 apart from the middle: true ones are 2 x mean x value.
    random = np.random.default_rng(1)
    outputs = (2 * (2 * np.nan_to_num(one.labels) - 1 + random.normal(size=one.labels.shape))).astype(
        np.float32
    )
    sure = Predictions(
        ids=one.ids, files=one.files, patients=one.patients, labels=one.labels, outputs=3 * outputs
    )

    assert task.calibrate(sure, "half")["temperature"] == pytest.approx(3, rel=0.1)


def test_pictures_are_of_known_findings_and_say_what_was_called(task: Findings) -> None:
    one = predictions()
    calibration = task.calibrate(one, "youden")
    encoder, _ = create_encoder(EncoderSpec(id="cnn", in_channels=1), spatial_dims=2)
    network = Network(encoder, task.head(encoder))

    found = list(
        task.pictures(network, lambda _: torch.rand(1, 32, 32), task.finish(one, calibration), calibration, 4)
    )

    assert one.labels is not None
    assert [each.group for each in found] == ["best"] * 4 + ["worst"] * 4
    assert len({each.index for each in found}) == 8
    assert all(not np.isnan(one.labels[each.index, NAMES.index(each.heat_of)]) for each in found)
    assert all(each.wrong == (() if each.group == "best" else ("called",)) for each in found)
    assert all(each.facts["true"] == each.heat_of for each in found[:4])
    assert all(each.image.shape == (1, 32, 32) for each in found)


def write_pictures(root: Path, count: int = 90) -> Path:
    """Grey noise; `bright` has a light corner, `stripes` has stripes; a fifth of `stripes` is unknown."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        bright, stripes = random.uniform(size=2) < 0.5
        pixels = random.normal(90, 12, (32, 32))
        pixels[:12, :12] += 80 * bright
        pixels[::4] += 60 * stripes
        place = root / "images" / f"i{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)
        rows.append(f"images/{place.name},p{number // 2},{int(bright)},{int(stripes) if number % 5 else ''}")
    (root / "labels.csv").write_text("file,patient_id,bright,stripes\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("findings")
    data = write_pictures(root / "data")
    facts = facts_of(data, "findings", "xray")
    bundle = write_bundle(facts, root / "bundle", task="findings", modality="xray")
    small = (
        "phases.0.epochs=30", "phases.1.epochs=0", "training.precision=fp32", "images.augment=[]", "phases.0.lr=0.01",
        "training.memory_format=contiguous", "images.size=64",
    )  # fmt: skip
    loaded = load_bundle(bundle, overrides=small)
    return run_bundle(loaded, Request(out=root / "run", device="cpu"), Progress(quiet=True))


def test_a_bundle_of_findings_runs_as_init_wrote_it(run: RunFolder) -> None:
    scores, rows = run.read("scores.json"), run.read("predictions/test.csv")

    assert scores["task"] == "Findings"
    assert scores["test"]["auroc"]["value"] > 0.8
    assert scores["test"]["brier"]["value"] < scores["baseline"]["test"]["brier"]["value"]
    assert {"p_bright", "p_stripes", "predicted"} <= rows[0].keys()
    assert any("stripes?" in row["label"] for row in rows)
    assert run.has("report.html")
    report = run.path("report.html").read_text(encoding="utf-8")
    assert "each finding by its share of the training cases" in report
    assert "most frequent class" not in report
    counts = count_table(read_facts(run))
    assert counts is not None
    assert counts.head == ("", "bright", "stripes", "none", "all")
    of_all = [int(cell.split()[0]) for cell in counts.rows[-1][1:]]
    assert sum(of_all[:3]) > of_all[3] == 90  # an image with both findings counts for both


def test_predictions_of_the_opened_run_are_those_of_the_run(run: RunFolder) -> None:
    rows = run.read("predictions/test.csv")[:4]

    again = open_run(run.root).predict([row["file"] for row in rows])

    for before, after in zip(rows, again, strict=True):
        assert float(before["p_bright"]) == pytest.approx(float(str(after["p_bright"])), abs=1e-4)
        assert before["predicted"] == after["predicted"]


def test_exported_bundle_keeps_each_findings_threshold_and_says_so(run: RunFolder) -> None:
    rows, thresholds = run.read("predictions/test.csv"), run.read("scores.json")["threshold"]["by_finding"]
    exported = run.root / "bundle"

    opened = open_run(exported)

    assert opened.calibration["threshold"]["by_finding"] == thresholds
    said = [row["predicted"] for row in opened.predict([row["file"] for row in rows])]
    assert said == [row["predicted"] for row in rows]
    readme = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(
        f"`{name}` from {value:.6g} on" in " ".join(readme.split()) for name, value in thresholds.items()
    )
    assert "Findings" in (exported / "configs" / "train.yaml").read_text(encoding="utf-8")
