"""What the registry and the receipt add to an encoder's own construction, in processor seconds, interleaved.

python benchmarks/encoder_creation.py [ID ...] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import list_encoders
from medxfer.surroundings import versions

GOAL = 1.0


def main() -> int:
    """Measure, print, keep as JSON; 1 when one encoder costs a second more than its library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cards = {one.id: one.card for one in list_encoders() if one.distribution == "medxfer" and one.card}
    builders = {one.name: one.load() for one in entry_points(group="medxfer.encoders") if one.name in cards}
    found = {}
    for encoder_id in arguments.ids or sorted(cards):
        for dims in sorted(cards[encoder_id].spatial_dims):
            own, whole = [], []
            for _ in range(arguments.rounds):
                start = time.process_time()
                builders[encoder_id](spatial_dims=dims, in_channels=1)
                middle = time.process_time()
                create_encoder(EncoderSpec(id=encoder_id), spatial_dims=dims)[1].to_json()
                own.append(middle - start)
                whole.append(time.process_time() - middle)
            added = [b - a for a, b in zip(own, whole, strict=True)]
            found[f"{encoder_id} {dims}D"] = {
                "own": statistics.median(own),
                "added": statistics.median(added),
                "low": min(added),
                "high": max(added),
                "n": arguments.rounds,
            }
            print(
                f"{encoder_id} {dims}D: {statistics.median(own):.2f} s, {statistics.median(added):+.3f} s added"
            )
    worst = max(one["added"] for one in found.values())
    print(f"at most {worst:.3f} s added, over {len(found)} encoders")
    command = "python benchmarks/encoder_creation.py " + " ".join(sys.argv[1:])
    result = {"command": command.strip(), "versions": versions(), "processor_seconds": found, "goal": GOAL}
    place = Path(__file__).parent / "results" / "encoder_creation.json"
    place.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(worst > GOAL)


if __name__ == "__main__":
    sys.exit(main())
