"""A run that is killed ends as one that was not. Each run is a process of its own, hence over 5 s."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medxfer.errors import DataError, RunError
from medxfer.pipeline import resume_run
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder
from tests.pipeline.conftest import BUNDLE, SMALL


def command(xrays: Path, out: Path) -> list[str]:
    sets = [word for one in SMALL for word in ("--set", one)]
    run = [sys.executable, "-m", "medxfer", "run", str(BUNDLE), "--data", str(xrays), "--out", str(out)]
    return [*run, "--quiet", "--device", "cpu", *sets, "--set", "phases.1.epochs=2"]


def run_until_epochs(xrays: Path, out: Path, epochs: int, number: signal.Signals) -> int:
    process = subprocess.Popen(
        command(xrays, out),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # what runs in the background hands down a Ctrl-C that is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    history = out / "history.csv"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if history.exists() and len(history.read_text().splitlines()) > epochs:
            process.send_signal(number)
            break
        time.sleep(0.005)
    return process.wait(60)


@pytest.fixture(scope="module")
def whole(xrays: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(xrays, out), check=True, stdout=subprocess.DEVNULL)
    return RunFolder.open(out)


def assert_equal_runs(first: RunFolder, second: RunFolder) -> None:
    assert first.path("history.csv").read_bytes() == second.path("history.csv").read_bytes()
    one, two = (torch.load(run.path("checkpoints/best.pt"), weights_only=True) for run in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
    probabilities = [
        [(row["case"], row["p_pneumonia"]) for row in run.read("predictions/test.csv")]
        for run in (first, second)
    ]
    assert probabilities[0] == probabilities[1]


@pytest.mark.parametrize("epochs", [1, 4])  # in the middle of the probe, and of the fine-tuning
def test_killed_run_resumes_bit_identically(
    whole: RunFolder, xrays: Path, tmp_path: Path, epochs: int
) -> None:
    out = tmp_path / "run"

    code = run_until_epochs(xrays, out, epochs, signal.SIGKILL)
    subprocess.run([sys.executable, "-m", "medxfer", "run", "--resume", str(out), "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip

    assert code == -signal.SIGKILL
    assert_equal_runs(whole, RunFolder.open(out))


def test_interrupted_run_says_how_to_go_on_and_leaves_with_130(xrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    code = run_until_epochs(xrays, out, 1, signal.SIGINT)

    assert code == 130
    assert RunFolder.open(out).read("run.json")["status"] == "interrupted"


def test_damaged_checkpoint_falls_back_to_the_previous_one(
    whole: RunFolder, xrays: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run_until_epochs(xrays, out, 3, signal.SIGKILL)
    last = out / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    threads = os.environ.get("OMP_NUM_THREADS")

    subprocess.run([sys.executable, "-m", "medxfer", "run", "--resume", str(out), "--quiet"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    assert threads == os.environ.get("OMP_NUM_THREADS")
    assert_equal_runs(whole, RunFolder.open(out))


def test_changed_configuration_is_refused_at_resume(xrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_until_epochs(xrays, out, 1, signal.SIGKILL)
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))

    with pytest.raises(RunError, match="edited"):
        resume_run(out, say=Progress(quiet=True))


def test_changed_image_is_refused_at_resume(xrays: Path, tmp_path: Path) -> None:
    import shutil

    copied, out = tmp_path / "xrays", tmp_path / "run"
    shutil.copytree(xrays, copied)
    run_until_epochs(copied, out, 1, signal.SIGKILL)
    image = next(path for path in sorted(copied.rglob("*.dcm")))
    content = bytearray(image.read_bytes())
    content[-10] ^= 0xFF
    image.write_bytes(bytes(content))

    with pytest.raises(DataError, match="changed"):
        resume_run(out, say=Progress(quiet=True))
