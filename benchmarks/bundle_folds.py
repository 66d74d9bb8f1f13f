"""A bundle cross-validated: every case tested once, as README and the bundles quote it.

    python benchmarks/bundle_folds.py BUNDLE [--data PATH] [--folds 5] [--seed 0] [--set KEY=VALUE]... [--name TEXT]

BUNDLE is the name of a folder in bundles/. One process of `medxfer run bundles/BUNDLE --folds K`. Writes
benchmarks/results/BUNDLE-SOURCE-folds.json: the mean over all test cases with its interval by patient, the spread over
folds, seconds of training and the processor's. Timings are of this machine and hold for it alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run all folds and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="a folder in bundles/")
    parser.add_argument(
        "--data", type=Path, help="real data; without it the bundle's built-in synthetic ones"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, help="keep the runs here; an interrupted call is gone on with")
    parser.add_argument("--name", default="", help="added to the name of the result file")
    arguments = parser.parse_args()
    kind = "synthetic" if arguments.data is None else arguments.data.name
    with tempfile.TemporaryDirectory() as folder:
        found = run_folds(arguments, arguments.out or Path(folder) / "folds")
    result = {
        "command": "python benchmarks/bundle_folds.py " + told(arguments),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "data": kind,
        **found,
    }
    path = ROOT / "benchmarks" / "results" / f"{arguments.bundle}-{kind}{arguments.name}-folds.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, score in result["folds"].get("pooled", {}).items():
        print(
            f"{name}: {score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f}, 95 % by patient), "
            f"{score['n']} cases of {score['patients']} patients"
        )
    for name, score in result["folds"]["test"].items():
        print(
            f"{name}, mean of folds: {score['mean']:.4f} (lowest {score['low']:.4f}, highest {score['high']:.4f})"
        )
    print(
        f"{result['folds']['seconds']}; {result['cpu_s']:.0f} s of processor, peak {result['peak_gb']:.2f} GB"
    )
    print(path)


def told(arguments: argparse.Namespace) -> str:
    """The command as others would type it: where data and runs lie is one machine's matter."""
    words = [arguments.bundle, *(["--data", "PATH"] if arguments.data is not None else [])]
    words += ["--folds", str(arguments.folds), "--seed", str(arguments.seed)]
    for one in arguments.overrides:
        words += ["--set", one]
    return shlex.join(words)


def run_folds(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """All folds in one process."""
    command = [sys.executable, "-m", "medxfer", "run", str(ROOT / "bundles" / arguments.bundle)]
    command += [
        "--out",
        str(out),
        "--folds",
        str(arguments.folds),
        "--quiet",
        "--set",
        f"seed={arguments.seed}",
    ]
    for one in arguments.overrides:
        command += ["--set", one]
    if arguments.data is not None:
        command += ["--data", str(arguments.data)]
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    about = json.loads((out / "fold-0" / "run.json").read_text(encoding="utf-8"))
    return {
        "wall_s": round(time.monotonic() - begun, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": used.ru_maxrss / 1e6,
        "chosen": about["chosen"],
        "hardware": about["hardware"],
        "versions": about["versions"],
        "folds": json.loads((out / "folds.json").read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    main()
