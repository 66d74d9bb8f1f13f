"""A run that is killed ends as one that was not. Each part is a process of its own, hence over 5 s."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from medxfer.data.synthetic import write_chest_xrays
from medxfer.errors import DataError, RunError
from medxfer.pipeline import resume_run
from medxfer.progress import Progress
from medxfer.run_folder import RunFolder
from tests.pipeline.conftest import BUNDLE, SMALL

TINY = (*SMALL, "phases.1.epochs=2", "encoder.id=resnet10", "encoder.weights=none")


def command(xrays: Path, out: Path) -> list[str]:
    sets = [word for one in TINY for word in ("--set", one)]
    run = [sys.executable, "-m", "medxfer", "run", str(BUNDLE), "--data", str(xrays), "--out", str(out)]
    return [*run, "--quiet", "--device", "cpu", *sets]


def resuming(out: Path) -> list[str]:
    return [sys.executable, "-m", "medxfer", "run", "--resume", str(out), "--quiet"]


def run_until_epochs(started: list[str], out: Path, epochs: int, number: signal.Signals) -> int:
    process = subprocess.Popen(
        started,
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
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "films"
    write_chest_xrays(folder, count=60, seed=3)
    return folder


@pytest.fixture(scope="module")
def whole(films: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(films, out), check=True, stdout=subprocess.DEVNULL)
    return RunFolder.open(out)


@dataclass
class Stopped:
    """One run, stopped three times: how each part ended, and the folder as it was then."""

    codes: list[int]
    folders: list[Path]

    def copy(self, number: int, to: Path) -> Path:
        shutil.copytree(self.folders[number], to)
        return to


@pytest.fixture(scope="module")
def stopped(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """Killed in the probe, interrupted in it after it went on, killed in the fine-tuning."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    found = Stopped([], [])
    for epochs, number in ((1, signal.SIGKILL), (2, signal.SIGINT), (4, signal.SIGKILL)):
        started = resuming(out) if found.codes else command(films, out)
        found.codes.append(run_until_epochs(started, out, epochs, number))
        found.folders.append(out.with_name(f"after-{epochs}"))
        shutil.copytree(out, found.folders[-1])
    return found


def assert_equal_runs(first: RunFolder, second: RunFolder) -> None:
    assert first.path("history.csv").read_bytes() == second.path("history.csv").read_bytes()
    one, two = (torch.load(run.path("checkpoints/best.pt"), weights_only=True) for run in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
    probabilities = [
        [(row["case"], row["p_pneumonia"]) for row in run.read("predictions/test.csv")]
        for run in (first, second)
    ]
    assert probabilities[0] == probabilities[1]


def as_if_trained_longer(checkpoint: Path, more: float) -> float:
    """Add seconds of training to a checkpoint; those that it held."""
    state = torch.load(checkpoint, weights_only=True)
    seconds = float(state["standing"]["seconds"])
    state["standing"]["seconds"] += more
    torch.save(state, checkpoint)
    return seconds


def test_killed_run_resumes_bit_identically(whole: RunFolder, stopped: Stopped, tmp_path: Path) -> None:
    out = stopped.copy(2, tmp_path / "run")
    seconds = as_if_trained_longer(out / "checkpoints" / "last.pt", 1000.0)

    told = subprocess.run(resuming(out), check=True, stdout=subprocess.PIPE, text=True).stdout

    assert [stopped.codes[number] for number in (0, 2)] == [-signal.SIGKILL] * 2
    assert_equal_runs(whole, RunFolder.open(out))
    about = RunFolder.open(out).read("run.json")
    assert 0 < seconds < about["seconds"]["training"] - 1000 < about["seconds"]["whole"] - 1000
    assert about["resumed"] == 3
    assert "resumed 3 times, training summed" in told


def test_interrupted_run_says_how_to_go_on_and_leaves_with_130(stopped: Stopped) -> None:
    folder = RunFolder.open(stopped.folders[1])

    assert stopped.codes[1] == 130
    assert folder.read("run.json")["status"] == "interrupted"
    assert "to go on: medxfer run --resume" in folder.path("log.txt").read_text(encoding="utf-8")


def test_damaged_checkpoint_falls_back_to_the_previous_one(
    whole: RunFolder, stopped: Stopped, tmp_path: Path
) -> None:
    out = stopped.copy(2, tmp_path / "run")
    last = out / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])

    resume_run(out, say=Progress(quiet=True))

    assert_equal_runs(whole, RunFolder.open(out))


def test_changed_configuration_is_refused_at_resume(stopped: Stopped, tmp_path: Path) -> None:
    out = stopped.copy(0, tmp_path / "run")
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))

    with pytest.raises(RunError, match="edited"):
        resume_run(out, say=Progress(quiet=True))


def test_changed_image_is_refused_at_resume(films: Path, stopped: Stopped, tmp_path: Path) -> None:
    out = stopped.copy(0, tmp_path / "run")
    image = next(path for path in sorted(films.rglob("*.dcm")))
    content = image.read_bytes()
    image.write_bytes(content[:-10] + bytes([content[-10] ^ 0xFF]) + content[-9:])

    try:
        with pytest.raises(DataError, match="changed"):
            resume_run(out, say=Progress(quiet=True))
    finally:
        image.write_bytes(content)
