"""Training steps a second of a bf16 network on a CPU: plain autocast against medxfer's, interleaved.

python benchmarks/training_step.py [ID ...] [--rounds 5] [--batch 32] [--size 128]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.networks.heads import ClassificationHead
from medxfer.networks.network import Network
from medxfer.surroundings import hardware, versions
from medxfer.training.precision import Precision


def main() -> int:
    """Measure, print, keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    device = torch.device("cpu")
    precision = Precision("bf16", "channels_last", device)
    ways = {
        "plain autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "medxfer": precision.autocast,
    }
    found = {}
    for encoder_id in arguments.ids:
        encoder, _ = create_encoder(EncoderSpec(id=encoder_id, in_channels=1))
        network = Network(encoder, ClassificationHead(encoder.channels, 2)).train()
        precision.place(network)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        images = torch.rand(arguments.batch, 1, arguments.size, arguments.size)
        images = images.contiguous(memory_format=precision.torch_format)
        labels = torch.arange(arguments.batch) % 2
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds + 1):  # the first selects kernels
            for name, context in ways.items():
                start = time.perf_counter()
                with context():
                    output = network(images)
                torch.nn.functional.cross_entropy(output.float(), labels).backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                if number:
                    rates[name].append(arguments.batch / (time.perf_counter() - start))
        ratios = [b / a for a, b in zip(rates["plain autocast"], rates["medxfer"], strict=True)]
        found[encoder_id] = {
            "images_per_second": {name: statistics.median(all_of) for name, all_of in rates.items()},
            "ratio": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
            "n": arguments.rounds,
        }
        one = found[encoder_id]
        print(
            f"{encoder_id}: {one['ratio']:.2f} times ({one['low']:.2f} to {one['high']:.2f}), ",
            one["images_per_second"],
        )
    result = {
        "command": ("python benchmarks/training_step.py " + " ".join(sys.argv[1:])).strip(),
        "hardware": hardware(device, 1),
        "versions": versions(),
        "found": found,
    }
    place = Path(__file__).parent / "results" / "training_step.json"
    place.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
