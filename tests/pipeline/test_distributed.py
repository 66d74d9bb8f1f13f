"""Two gloo processes under torchrun; starting them takes most of the time."""

import subprocess
import sys
from pathlib import Path

from medxfer.run_folder import RunFolder
from tests.pipeline.conftest import BUNDLE, SMALL


def test_two_processes_train_one_network_and_the_first_writes(xrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = (*SMALL, "encoder.id=resnet10", "encoder.weights=none")
    sets = [word for one in small for word in ("--set", one)]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "medxfer",
    ]

    subprocess.run(
        [*launch, "run", str(BUNDLE), "--data", str(xrays), "--out", str(out), "--device", "cpu", *sets],
        check=True,
        timeout=240,
        stdout=subprocess.DEVNULL,
    )

    folder = RunFolder.open(out)
    about = folder.read("run.json")
    assert about["status"] == "done"
    assert about["hardware"]["processes"] == 2
    assert len(folder.read("history.csv")) == 4
    assert folder.has("report.html")
