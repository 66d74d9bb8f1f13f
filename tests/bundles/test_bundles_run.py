"""Every bundle of the repository: what MONAI asks of it, its parts, and a run of one epoch on a few synthetic cases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from medxfer.bundle.components import build, check_components
from medxfer.bundle.parser import load_bundle
from medxfer.data.presets import fill_in, steps_of
from medxfer.data.synthetic import SOURCES
from medxfer.export.monai_bundle import metadata_schema
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress

BUNDLES = sorted(path for path in (Path(__file__).parents[2] / "bundles").iterdir() if path.is_dir())
CASES = 48  # for two classes of patients in each of three parts
QUICK = (
    "images.size=32", "training.batch=16", "training.precision=fp32", "training.memory_format=contiguous",
)  # fmt: skip
each_bundle = pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)


def test_metadata_passes_monais_check() -> None:
    from monai.bundle import verify_metadata

    schema = metadata_schema()
    for folder in BUNDLES:
        verify_metadata(
            meta_file=str(folder / "configs" / "metadata.json"),
            filepath=str(schema),
            create_dir=False,
            hash_val=hashlib.sha256(schema.read_bytes()).hexdigest(),
            hash_type="sha256",
        )


@each_bundle
def test_metadata_say_what_the_network_is_fed_and_answers(folder: Path) -> None:
    bundle = load_bundle(folder)
    formats = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))[
        "network_data_format"
    ]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]

    assert (image["num_channels"], image["spatial_shape"]) == (
        bundle.encoder.in_channels,
        list(bundle.images.shape),
    )
    classes = list(bundle.task.arguments["classes"])
    task = build(bundle.task, kind="task", trusted=False)
    outputs = classes if task.masks is None else ["background", *classes]
    assert list(pred["channel_def"].values()) == outputs


@each_bundle
def test_name_parts_documents_and_data_are_there(folder: Path) -> None:
    bundle = load_bundle(folder)
    readme = (folder / "docs" / "README.md").read_text(encoding="utf-8")

    check_components(bundle)
    build(bundle.task, kind="task", trusted=False)

    assert bundle.name == folder.name
    assert bundle.data.source in SOURCES
    assert steps_of(fill_in(bundle).images, bundle.encoder.in_channels)
    assert f"medxfer run bundles/{folder.name}" in readme
    assert "Measured" in (folder / "configs" / "train.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(  # tests/pipeline runs pneumonia_cls
    "folder", [folder for folder in BUNDLES if folder.name != "pneumonia_cls"], ids=lambda folder: folder.name
)
def test_one_epoch_on_a_few_synthetic_cases_leaves_a_whole_run(folder: Path, tmp_path: Path) -> None:
    source = load_bundle(folder).data.source
    SOURCES[source].write(tmp_path / "data", count=CASES, seed=0, advance=None)
    count = len(load_bundle(folder).phases)
    overrides = [*QUICK, *(f"phases.{number}.epochs={int(number == count - 1)}" for number in range(count))]
    bundle = load_bundle(folder, overrides=overrides, data=str(tmp_path / "data"))

    run = run_bundle(bundle, Request(out=tmp_path / "run", device="cpu"), Progress(quiet=True))

    scores = run.read("scores.json")
    assert run.read("run.json")["status"] == "done"
    assert scores["test"][scores["key_metric"]]["n"] > 0
    assert "baseline" in run.path("report.html").read_text(encoding="utf-8")
    assert (run.root / "bundle" / "models" / "model.pt2").is_file()
