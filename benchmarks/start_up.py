"""Seconds until `medxfer --help`, `encoders` and `plugin list` have answered, each in a fresh process, interleaved.

python benchmarks/start_up.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (["--help"], ["encoders"], ["plugin", "list"], ["--version"])
GOAL = 0.5


def main() -> int:
    """Measure, print, keep as JSON; 1 when a median is over half a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {" ".join(command): [] for command in COMMANDS}
    for _ in range(rounds):
        for command in COMMANDS:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "medxfer", *command], check=True, stdout=subprocess.DEVNULL)
            times[" ".join(command)].append(time.perf_counter() - start)
    found = {
        name: {"median": statistics.median(all_of), "low": min(all_of), "high": max(all_of), "n": rounds}
        for name, all_of in times.items()
    }
    for name, one in found.items():
        print(
            f"medxfer {name:<12} {one['median']:.2f} s ({one['low']:.2f} to {one['high']:.2f}, {rounds} runs)"
        )
    from medxfer.surroundings import versions

    result = {
        "command": "python benchmarks/start_up.py",
        "versions": versions(),
        "seconds": found,
        "goal": GOAL,
    }
    place = Path(__file__).parent / "results" / "start_up.json"
    place.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(one["median"] > GOAL for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
