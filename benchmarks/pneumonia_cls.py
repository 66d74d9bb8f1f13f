"""The main job over several seeds: scores, times and peak memory, as README and bundle quote them.

    python benchmarks/pneumonia_cls.py [--data PATH] [--seeds 0 1 2] [--set KEY=VALUE]...

Each seed is a fresh process of `medxfer run bundles/pneumonia_cls`. Writes benchmarks/results/pneumonia_cls*.json.
Timings are of this machine and hold for it alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "ece")


def main() -> None:
    """Run every seed and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="the Kermany folder; without it the built-in synthetic data"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--name", default="", help="added to the name of the result file")
    arguments = parser.parse_args()
    runs = [run_seed(seed, arguments.data, arguments.overrides) for seed in arguments.seeds]
    kind = "synthetic" if arguments.data is None else arguments.data.name
    result = {
        "command": "python benchmarks/pneumonia_cls.py " + " ".join(sys.argv[1:]),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "data": kind,
        "hardware": runs[0]["hardware"],
        "versions": runs[0]["versions"],
        "seeds": arguments.seeds,
        "summary": {
            f"{split}_{name}": summary([run["scores"][split][name]["value"] for run in runs])
            for split in ("val", "test")
            for name in SHOWN
        },
        "runs": runs,
    }
    path = ROOT / "benchmarks" / "results" / f"pneumonia_cls-{kind}{arguments.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, found in result["summary"].items():
        print(
            f"{name:<24} {found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f}, {len(runs)} seeds)"
        )
    for run in runs:
        print(
            f"seed {run['seed']}: {run['wall_s']:.0f} s, peak so far {run['peak_gb']:.2f} GB, {run['seconds']}"
        )
    print(path)


def run_seed(seed: int, data: Path | None, overrides: list[str]) -> dict[str, object]:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "medxfer",
            "run",
            str(ROOT / "bundles" / "pneumonia_cls"),
            "--out",
            str(out),
        ]
        command += ["--set", f"seed={seed}", "--quiet"]
        for one in overrides:
            command += ["--set", one]
        if data is not None:
            command += ["--data", str(data)]
        begun = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - begun
        about = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return {
            "seed": seed,
            "wall_s": round(wall, 1),
            "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6,
            "seconds": about["seconds"],
            "chosen": about["chosen"],
            "hardware": about["hardware"],
            "versions": about["versions"],
            "scores": json.loads((out / "scores.json").read_text(encoding="utf-8")),
        }


def summary(values: list[float]) -> dict[str, float]:
    """Mean and range."""
    return {"mean": statistics.mean(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
