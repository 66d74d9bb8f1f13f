from pathlib import Path

from medxfer.bundle.parser import load_bundle
from medxfer.data.synthetic import write_chest_xrays
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress

BUNDLE = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"


def test_a_new_kind_of_question_is_one_file(tmp_path: Path) -> None:
    write_chest_xrays(tmp_path / "xrays", count=60, seed=1)
    config = (BUNDLE / "configs" / "train.yaml").read_text()
    before = config[config.index("task:") : config.index("phases:")]
    bundle = tmp_path / "severity.yaml"
    bundle.write_text(config.replace(before, "task: {_target_: tests.tasks.regression.Severity}\n"))
    small = [
        "images.size=32", "phases.0.epochs=2", "phases.1.epochs=1", "training.precision=fp32",
        "training.memory_format=contiguous", "encoder.id=resnet10", "encoder.weights=none",
    ]  # fmt: skip

    loaded = load_bundle(bundle, overrides=small, data=str(tmp_path / "xrays"), trust=True)
    run = run_bundle(loaded, Request(out=tmp_path / "run", device="cpu"), Progress(quiet=True))

    assert run.read("scores.json")["test"]["agreement"]["value"] < 0
    assert "severity" in run.read("predictions/test.csv")[0]
    assert run.has("report.html")
    assert (run.root / "bundle" / "models" / "model.pt2").is_file()
