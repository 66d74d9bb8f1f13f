"""Loading a safetensors file with a receipt, against `safetensors.torch.load_file` + `load_state_dict`.

    python benchmarks/weights_loading.py [--encoder resnet50] [--rounds 5]

Both sides fill a network that is built beforehand, from a file that was hashed when it was first seen; they take
turns in one process, the first of each round in turn. Writes benchmarks/results/weights_loading.json; exit code 1
where medxfer takes more than 1.5 times the processor seconds of the plain pair.
Timings are of this machine and hold for it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
LIMIT = 1.5  # times the plain pair


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--dims", type=int, default=2, choices=[2, 3])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDXFER_HOME"] = folder
        result = measure(Path(folder), arguments.encoder, arguments.dims, arguments.rounds)
    for name, found in result["summary"].items():
        print(f"{name:<28} {found['median']:.4f} ({found['low']:.4f} to {found['high']:.4f})")
    path = ROOT / "benchmarks" / "results" / "weights_loading.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path)
    if result["summary"]["cpu_ratio"]["median"] > LIMIT:
        sys.exit(f"more than {LIMIT} times the plain pair")


def measure(folder: Path, encoder_id: str, dims: int, rounds: int) -> dict[str, Any]:
    """All rounds of one encoder."""
    import torch
    from safetensors.torch import load_file, save_file

    from medxfer.bundle.schema import EncoderSpec
    from medxfer.encoders import loading
    from medxfer.encoders.registry import build
    from medxfer.plugin import Encoder
    from medxfer.surroundings import hardware, pick_device, versions

    def built() -> Encoder:
        return build(encoder_id, spatial_dims=dims, in_channels=3)

    path = folder / "weights.safetensors"
    save_file(built().state_dict(), path)
    spec = EncoderSpec(id=encoder_id, weights=str(path), in_channels=3)
    network = built()

    def plain() -> None:
        network.load_state_dict(load_file(path))

    def with_receipt() -> None:
        _, receipt = loading.create_encoder(spec, spatial_dims=dims)
        assert receipt.coverage == 1.0

    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "medxfer": [], "medxfer_first_use": []}
    # Building is not loading: both sides get a network that is there already.
    with mock.patch.object(loading, "build", return_value=network):
        plain()
        seconds["medxfer_first_use"].append(timed(with_receipt))
        with_receipt()
        for turn in range(rounds):
            sides = [("plain", plain), ("medxfer", with_receipt)]
            for name, side in sides if turn % 2 == 0 else sides[::-1]:
                seconds[name].append(timed(side))
    pairs = list(zip(seconds["medxfer"], seconds["plain"], strict=True))
    return {
        "command": "python benchmarks/weights_loading.py " + " ".join(sys.argv[1:]),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "encoder": encoder_id,
        "spatial_dims": dims,
        "megabytes": path.stat().st_size / 1e6,
        "tensors": len(network.state_dict()),
        "threads": torch.get_num_threads(),
        "hardware": hardware(pick_device("cpu"), torch.get_num_threads()),
        "versions": versions(),
        "limit": LIMIT,
        "rounds": {name: [wall for wall, _ in found] for name, found in seconds.items()},
        "summary": {
            **{f"{name}_s": spread([wall for wall, _ in found]) for name, found in seconds.items()},
            **{f"{name}_cpu_s": spread([cpu for _, cpu in found]) for name, found in seconds.items()},
            "ratio": spread([ours[0] / theirs[0] for ours, theirs in pairs]),
            "cpu_ratio": spread([ours[1] / theirs[1] for ours, theirs in pairs]),
        },
    }


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds of one call by the clock, and of processors: those say more where others use the machine too."""
    begun = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
