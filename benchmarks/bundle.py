"""A bundle over several seeds: scores, times and peak memory, as README and the bundles quote them.

    python benchmarks/bundle.py BUNDLE [--data PATH] [--seeds 0 1 2] [--set KEY=VALUE]... [--name TEXT]

BUNDLE is the name of a folder in bundles/. Each seed is a fresh process of `medxfer run bundles/BUNDLE`; it decides the
split too, where the data bring none. Writes benchmarks/results/BUNDLE-SOURCE.json. Timings are of this machine and hold
for it alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEYS = ("mean", "low", "high")
SHOWN = (
    "auroc", "balanced_accuracy", "sensitivity", "specificity", "ece",
    "dice", "iou", "surface_dice", "hd95_mm", "hd95_pixels",
)  # fmt: skip


def main() -> None:
    """Run every seed and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="a folder in bundles/")
    parser.add_argument(
        "--data", type=Path, help="real data; without it the bundle's built-in synthetic ones"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--name", default="", help="added to the name of the result file")
    arguments = parser.parse_args()
    bundle = ROOT / "bundles" / arguments.bundle
    runs = [run_seed(bundle, seed, arguments.data, arguments.overrides) for seed in arguments.seeds]
    kind = "synthetic" if arguments.data is None else arguments.data.name
    result: dict[str, Any] = {
        "command": "python benchmarks/bundle.py " + told(sys.argv[1:], arguments.data),
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
            if name in runs[0]["scores"][split]
        },
        "test_by_finding": by_finding(runs),
        "runs": runs,
    }
    path = ROOT / "benchmarks" / "results" / f"{arguments.bundle}-{kind}{arguments.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    aurocs = {f"test_auroc {name}": found for name, found in result["test_by_finding"].items()}
    for name, found in {**result["summary"], **aurocs}.items():
        mean, low, high = (found[key] if found[key] is not None else float("nan") for key in KEYS)
        print(f"{name:<32} {mean:.4f} ({low:.4f} to {high:.4f}, {found.get('seeds', len(runs))} seeds)")
    for run in runs:
        used = (
            f"{run['wall_s']:.0f} s, {run['cpu_s']:.0f} s of processor, peak so far {run['peak_gb']:.2f} GB"
        )
        print(f"seed {run['seed']}: {used}, {run['seconds']}")
    print(path)


def told(words: list[str], data: Path | None) -> str:
    """The command as others would type it: where data lie is one machine's matter."""
    return shlex.join("PATH" if data is not None and word == str(data) else word for word in words)


def run_seed(bundle: Path, seed: int, data: Path | None, overrides: list[str]) -> dict[str, Any]:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "medxfer", "run", str(bundle), "--out", str(out)]
        command += ["--set", f"seed={seed}", "--quiet"]
        for one in overrides:
            command += ["--set", one]
        if data is not None:
            command += ["--data", str(data)]
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        about = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return {
            "seed": seed,
            "wall_s": round(wall, 1),
            # Processor time: what else the machine does counts for less in it.
            "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "peak_gb": after.ru_maxrss / 1e6,
            "seconds": about["seconds"],
            "chosen": about["chosen"],
            "hardware": about["hardware"],
            "versions": about["versions"],
            "scores": json.loads((out / "scores.json").read_text(encoding="utf-8")),
        }


def summary(values: list[float | None]) -> dict[str, float | int | None]:
    """Mean and range of the seeds in which it is defined."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None, "seeds": 0}
    found: dict[str, float | int | None] = {
        "mean": statistics.mean(known),
        "low": min(known),
        "high": max(known),
    }
    return found if len(known) == len(values) else found | {"seeds": len(known)}


def by_finding(runs: list[dict[str, Any]]) -> dict[str, object]:
    """Test AUROC of each finding; empty where the question is another."""
    tests = [run["scores"].get("by_finding", {}).get("test", {}) for run in runs]
    return {name: summary([test[name]["auroc"]["value"] for test in tests]) for name in tests[0]}


if __name__ == "__main__":
    main()
