"""A small run, trained once a worker and looked at by many tests."""

from pathlib import Path

import pytest

from medxfer.bundle.parser import load_bundle
from medxfer.data.synthetic import write_chest_xrays
from medxfer.pipeline import Request, run_bundle
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder

BUNDLE = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"
SMALL = (
    "images.size=64",
    "phases.0.epochs=3",
    "phases.1.epochs=1",
    "training.batch=16",
    "training.precision=fp32",
    "training.memory_format=channels_last",
)


@pytest.fixture(scope="session")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "xrays"
    write_chest_xrays(folder, count=120, seed=3)
    return folder


@pytest.fixture(scope="session")
def finished_run(xrays: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    bundle = load_bundle(BUNDLE, overrides=SMALL, data=str(xrays))
    out = tmp_path_factory.mktemp("runs") / "run"
    return run_bundle(bundle, Request(out=out, device="cpu"), Progress(quiet=True))
