"""The whole conformance kit over every installed encoder, in each number of dimensions on its card.

    python benchmarks/encoder_conformance.py [ID]... [--dims 2 3] [--without ID]... [--name NAME]

An adapter takes part by full ids (`timm:resnet50`), its bare name does not. Each pair runs in a fresh process.
Writes benchmarks/results/encoder_conformance.json after every pair. Timings are of this machine and hold for it alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAIR = """
import json, resource, sys, time
begun = time.monotonic()
from medxfer.encoders.loading import create_encoder
from medxfer.bundle.schema import EncoderSpec
from medxfer.testing import CheckFailed, all_checks
import monai.networks.nets
encoder_id, dims = sys.argv[1], int(sys.argv[2])
imported = time.monotonic()
encoder, receipt = create_encoder(EncoderSpec(id=encoder_id, weights="none", in_channels=3), spatial_dims=dims)
created = time.monotonic()
failed, slowest = {}, ("", 0.0)
checks = all_checks(encoder_id, spatial_dims=(dims,))
for check in checks:
    started = time.monotonic()
    try:
        check()
    except CheckFailed as error:
        failed[check.name] = str(error)
    slowest = max(slowest, (check.name, time.monotonic() - started), key=lambda pair: pair[1])
print(json.dumps({
    "parameters": sum(p.numel() for p in encoder.parameters()),
    "import_s": round(imported - begun, 2),
    "create_s": round(created - imported, 2),
    "checks": len(checks),
    "checks_s": round(time.monotonic() - created, 1),
    "slowest": [slowest[0], round(slowest[1], 1)],
    "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    "failed": failed,
}))
"""


def main() -> None:
    """Check every pair of encoder and dimensions, and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="default: every installed one but adapters")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--without", action="append", default=[], metavar="ID")
    parser.add_argument("--name", default="", help="added to the name of the result file")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"command": "python benchmarks/encoder_conformance.py " + " ".join(sys.argv[1:])}
    result |= surroundings()
    path = ROOT / "benchmarks" / "results" / f"encoder_conformance{arguments.name}.json"
    path.parent.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"{'encoder':<24}{'dims':>5}{'parameters':>13}{'create':>9}{'checks':>9}{'peak':>9}  failed")
    for encoder_id, dims in pairs(arguments.ids, arguments.dims, arguments.without):
        row = check_pair(encoder_id, dims)
        rows.append(row)
        if "error" in row:
            print(f"{encoder_id:<24}{dims:>5}  {row['error']}", flush=True)
        else:
            line = f"{encoder_id:<24}{dims:>5}{row['parameters']:>13,}{row['create_s']:>7.2f} s"
            failed = " ".join(row["failed"]) or "none"
            print(f"{line}{row['checks_s']:>7.1f} s{row['peak_gb']:>6.2f} GB  {failed}", flush=True)
        path.write_text(json.dumps({**result, "encoders": rows}, indent=1) + "\n", encoding="utf-8")
    bad = sum(1 for row in rows if row.get("error") or row["failed"])
    print(f"{len(rows)} pairs, {bad} with failures\n{path}")


def pairs(ids: list[str], dims: list[int], without: list[str]) -> list[tuple[str, int]]:
    """What to check: named ids, or every one with a card; in the dimensions that it can be built in."""
    from medxfer.encoders.registry import card_of, list_encoders

    listed = ids or [one.id for one in list_encoders() if one.card is not None]
    return [(i, d) for i in listed if i not in without for d in sorted(card_of(i).spatial_dims) if d in dims]


def check_pair(encoder_id: str, dims: int) -> dict[str, Any]:
    """The kit in a process of its own: its peak memory is that encoder's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PAIR, encoder_id, str(dims)], capture_output=True, text=True
    )
    seen: dict[str, Any] = {"id": encoder_id, "dims": dims}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {**seen, "error": f"exit code {done.returncode}: {last}"}
    return {**seen, **json.loads(done.stdout.splitlines()[-1])}


def surroundings() -> dict[str, Any]:
    """Commit, date, machine and versions that the figures hold for."""
    import torch

    from medxfer.surroundings import hardware, versions

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(torch.device("cpu"), 1),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
