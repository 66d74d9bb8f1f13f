"""A linear probe: how well a logistic regression tells classes apart from a frozen encoder's pooled features.

    python benchmarks/linear_probe.py DATA [--sizes 128 224] [--encoder ID] [--weights TAG_OR_FILE] [--c 1e-3]

DATA: a folder that `bundles/pneumonia_cls` can read, with a test part. Features are the means of all stages' maps,
standardised by the training part. Writes benchmarks/results/linear_probe-*.json. Timings are of this machine.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medxfer import surroundings
from medxfer.bundle.components import build
from medxfer.bundle.parser import load_bundle
from medxfer.data import presets
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.cases import find_cases
from medxfer.encoders.loading import create_encoder
from medxfer.evaluation.classification import scores_of
from medxfer.plugin import Encoder
from medxfer.progress import Progress

ROOT = Path(__file__).parents[1]
BATCH = 64


def main() -> None:
    """Probe at every size and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet", help="a tag of its card, or a file")
    parser.add_argument("--c", type=float, default=1e-3, help="inverse strength of the regularisation")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    runs = [probe(arguments, size) for size in arguments.sizes]
    device = surroundings.pick_device("cpu")
    result = {
        "command": "python benchmarks/linear_probe.py " + " ".join(sys.argv[1:]),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "data": arguments.data.name,
        "encoder": arguments.encoder,
        "weights": arguments.weights,
        "c": arguments.c,
        "precision": arguments.precision,
        "hardware": surroundings.hardware(device, 1),
        "versions": surroundings.versions(),
        "runs": runs,
    }
    encoder = re.sub(r"\W+", "-", arguments.encoder)
    path = ROOT / "benchmarks" / "results" / f"linear_probe-{encoder}-{arguments.data.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for run in runs:
        test = run["test"]["auroc"]
        print(
            f"{run['size']} px: test AUROC {test['value']:.4f} ({test['low']:.4f} to {test['high']:.4f}), "
            f"{run['features']} features, {run['cases']}, {run['seconds']:.0f} s"
        )
    print(path)


def probe(arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    """One size: features of every case, regression on the training part, scores of the test part."""
    bundle = load_bundle(
        ROOT / "bundles" / "pneumonia_cls",
        overrides=[f"images.size={size}", f"encoder.id={arguments.encoder}"],
        data=str(arguments.data),
        weights=arguments.weights,
    )
    task = build(bundle.task, kind="task")
    bundle = presets.fill_in(bundle)
    found = find_cases(bundle.data, Path(bundle.data.source))
    steps = presets.steps_of(bundle.images, bundle.encoder.in_channels)
    arrays = cache_arrays(found.cases, steps, bundle.images.store, Progress())
    encoder, receipt = create_encoder(bundle.encoder, spatial_dims=bundle.images.dims)
    print(receipt.table())
    begun = time.monotonic()
    features = pooled(encoder.eval(), arrays, bf16=arguments.precision == "bf16")
    seconds = time.monotonic() - begun
    labels = np.array([task.read_label(case) for case in arrays.cases])
    test = np.array([case.split == "test" for case in arrays.cases])
    if not test.any() or test.all():
        sys.exit(f"{arguments.data}: no test part, or nothing else")
    scaler = StandardScaler().fit(features[~test])
    model = LogisticRegression(C=arguments.c, max_iter=2000)
    model.fit(scaler.transform(features[~test]), labels[~test])
    scores = scores_of(
        labels[test],
        model.predict_proba(scaler.transform(features[test])),
        [case.patient for case, chosen in zip(arrays.cases, test, strict=True) if chosen],
        classes=task.classes,
        threshold=0.5,
    )
    return {
        "size": size,
        "features": features.shape[1],
        "cases": {"train": int((~test).sum()), "test": int(test.sum())},
        "seconds": round(seconds, 1),
        "coverage": receipt.coverage,
        "test": {
            name: {"value": score.value, "low": score.low, "high": score.high}
            for name, score in scores.items()
            if name in ("auroc", "average_precision", "balanced_accuracy")
        },
    }


@torch.no_grad()
def pooled(encoder: Encoder, arrays: Arrays, *, bf16: bool) -> np.ndarray:
    """(N, sum of channels) means of every stage's map."""
    parts = []
    for start in range(0, len(arrays.cases), BATCH):
        images = arrays.batch(range(start, min(start + BATCH, len(arrays.cases))))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            maps = encoder(images.contiguous(memory_format=torch.channels_last))
        parts.append(torch.cat([found.float().mean((2, 3)) for found in maps], 1))
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
