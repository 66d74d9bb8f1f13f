"""Pretrained beside random weights of the same encoder, for segmentation with few volumes.

    python benchmarks/segmentation_transfer.py sarcoma [--data PATH] [--train-cases N ...] [--starts ARM ...]
        [--folds K | --test-cases N] [--seeds 0 1 ...] [--set KEY=VALUE]... [--quick] [--name TEXT] [--out DIR]

The set is `sarcoma` (bundles/sarcoma_ct_seg) or `hippocampus` (bundles/hippocampus_mri_seg); without --data
the bundle's synthetic stand-in. Every arm is one `medxfer run` a split, on the same cases: a pretrained encoder, the
same encoder with random weights by the same recipe, and a plain U-Net for reference. `lite0-slices-...` is a 2D network
that sees volumes one axial plane at a time. Both kinds of weights keep their batch-norm statistics, so random ones are
given those of the training images.

A seed deals the cases: test, validation, and of the others the first `--train-cases`. With --folds each case is tested
once a seed. Dice of a case tested by several seeds is averaged; intervals are by patient, over those cases, and do not
hold the luck of the draw of training cases. Writes benchmarks/results/segmentation_transfer-SET-SOURCE.json. Timings
are of this machine and hold for it alone.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from medxfer.bundle.components import build as build_part
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Bundle
from medxfer.data import presets, sources
from medxfer.data.cache import cache_arrays
from medxfer.data.cases import find_cases
from medxfer.data.patches import samples_of
from medxfer.encoders.registry import build, card_of
from medxfer.evaluation.segmentation import difference_of_tables, score_of_table
from medxfer.progress import Progress

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One start of training.

    Attributes:
        encoder: Its id.
        pretrained: Tag of its card; None: random weights.
        recipe: `frozen`, `tuned`, `slices` or `plain`, see `phases_of`; `slices` are axial planes for a 2D encoder.
        window: HU that these weights were trained on, in place of the bundle's.
        options: Of the encoder.
    """

    encoder: str
    pretrained: str | None
    recipe: str
    window: tuple[int, int] | None = None
    options: str = "{}"


ARMS = {
    "i3resnet152-ctrg": Arm(encoder="i3resnet152", pretrained="ctrg", recipe="frozen", window=(-1000, 200)),
    "i3resnet152-random": Arm(encoder="i3resnet152", pretrained=None, recipe="frozen", window=(-1000, 200)),
    "efficientnet_lite0-imagenet": Arm(encoder="efficientnet_lite0", pretrained="imagenet", recipe="tuned"),
    "efficientnet_lite0-random": Arm(encoder="efficientnet_lite0", pretrained=None, recipe="tuned"),
    "lite0-slices-imagenet": Arm(encoder="efficientnet_lite0", pretrained="imagenet", recipe="slices"),
    "lite0-slices-random": Arm(encoder="efficientnet_lite0", pretrained=None, recipe="slices"),
    "unet-random": Arm(encoder="unet", pretrained=None, recipe="plain", options="{width: 8}"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What all arms on a set of images share.

    Attributes:
        bundle: Folder in bundles/.
        starts: Arms by default.
        train, val, test: Cases; `train` may be several numbers, 0 for all that are left.
        epochs: By recipe: of the decoder on the frozen encoder; of warm-up and of everything, of volumes and of planes;
            of the plain U-Net.
        views: Views whose maps are cached, all but the first augmented, for frozen encoders.
        samples: Patches an epoch, however few the training cases; 0: whole volumes, each once.
        planes: The same of planes.
        overrides: Of the bundle, in every arm.
        slices: Of the bundle, in arms that see planes.
    """

    bundle: str
    starts: tuple[str, ...]
    train: tuple[int, ...]
    val: int
    test: int
    epochs: dict[str, tuple[int, ...]]
    views: int
    samples: int
    planes: int
    overrides: tuple[str, ...]
    slices: tuple[str, ...]


TRIALS = {
    "sarcoma": Trial(
        bundle="sarcoma_ct_seg",
        starts=tuple(ARMS),
        train=(0,),
        val=5,
        test=15,
        epochs={"frozen": (30,), "tuned": (6, 18), "slices": (2, 10), "plain": (24,)},
        views=3,
        samples=0,
        planes=400,
        overrides=(
            "training.precision=bf16",
            "training.memory_format=contiguous",
        ),
        slices=(
            "images.size=[96, 96, 1]",
            "images.transforms=[{_target_: HUWindow, windows: [soft_tissue]}, {_target_: Channels, count: 1}, "
            "{_target_: Resize, size: [96, 96, 48]}, {_target_: Quantise, store: uint8}]",
            "training.memory_format=channels_last",
            "training.batch=16",
        ),
    ),
    "hippocampus": Trial(
        bundle="hippocampus_mri_seg",
        starts=tuple(name for name, arm in ARMS.items() if arm.encoder != "i3resnet152"),
        train=(5, 10),
        val=5,
        test=40,
        epochs={"frozen": (16,), "tuned": (3, 13), "slices": (3, 16), "plain": (16,)},
        views=2,
        samples=40,
        planes=400,
        overrides=(
            "training.precision=bf16",
            "training.memory_format=contiguous",
        ),
        slices=(
            "images.size=[36, 52, 1]",
            "training.memory_format=channels_last",
            "training.batch=16",
        ),
    ),
}


def main() -> None:
    """Train every arm on every split and write what was seen."""
    arguments = arguments_of()
    trial = TRIALS[arguments.set]
    if arguments.quick:
        quick = {name: tuple(1 for _ in epochs) for name, epochs in trial.epochs.items()}
        trial = dataclasses.replace(trial, epochs=quick, train=(4,), val=2, test=3, views=1)
    quick_starts = [name for name, arm in ARMS.items() if arm.encoder != "i3resnet152"]
    starts = arguments.starts or (quick_starts if arguments.quick else trial.starts)
    ids = case_ids(trial, arguments.data)
    kind = "synthetic" if arguments.data is None else arguments.data.name
    result: dict[str, Any] = {
        "command": "python benchmarks/segmentation_transfer.py " + as_typed(sys.argv[1:], arguments),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "data": kind,
        "bundle": trial.bundle,
        "overrides": [*trial.overrides, *arguments.overrides],
        "trials": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        for count in arguments.train_cases or trial.train:
            dealt = list(deals(ids, trial, arguments, count))
            runs = {
                start: [
                    run_arm(start, trial, one, folder / f"{one['name']}-{start}", arguments) for one in dealt
                ]
                for start in starts
            }
            told = told_of(runs)
            result["trials"][f"{len(dealt[0]['train'])} training cases"] = {
                "cases": [{name: len(one[name]) for name in ("train", "val", "test")} for one in dealt],
                **told,
            }
            result |= {key: next(iter(runs.values()))[0][key] for key in ("hardware", "versions")}
            show(len(dealt[0]["train"]), told)
    path = (
        ROOT / "benchmarks" / "results" / f"segmentation_transfer-{arguments.set}-{kind}{arguments.name}.json"
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path)


def as_typed(words: list[str], arguments: argparse.Namespace) -> str:
    """The command as others would type it: where data lie and runs go is one machine's matter."""
    places = {str(arguments.data): "PATH", str(arguments.out): "DIR"}
    return shlex.join(places.get(word, word) for word in words)


def arguments_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=TRIALS)
    parser.add_argument("--data", type=Path, help="real data; without it the bundle's synthetic ones")
    parser.add_argument("--train-cases", type=int, nargs="+", help="0: all that are left")
    parser.add_argument("--starts", nargs="+", choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--folds", type=int, help="test every case once, in so many parts")
    parser.add_argument("--test-cases", type=int, help="of each split, without --folds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--quick", action="store_true", help="an epoch on four cases: does it run at all")
    parser.add_argument("--name", default="", help="added to the name of the result file")
    parser.add_argument("--out", type=Path, help="keep the runs here; finished ones are not trained again")
    return parser.parse_args()


def bundle_of(trial: Trial, data: Path | None, overrides: Sequence[str]) -> Bundle:
    """As `medxfer run` would read it."""
    given = None if data is None else str(data)
    return presets.fill_in(load_bundle(ROOT / "bundles" / trial.bundle, overrides=overrides, data=given))


def case_ids(trial: Trial, data: Path | None) -> list[str]:
    """All cases, in the order of their names."""
    bundle = bundle_of(trial, data, ())
    found = find_cases(bundle.data, sources.folder_of(bundle.data.source, Progress(quiet=True)))
    return sorted(case.id for case in found.cases)


def deals(
    ids: Sequence[str], trial: Trial, arguments: argparse.Namespace, train: int
) -> Iterator[dict[str, Any]]:
    """Splits: `train`, `val` and `test` cases and those `left` out; more training cases hold fewer ones."""
    for seed in arguments.seeds:
        order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
        tested = arguments.test_cases or trial.test
        parts = (
            [order[part :: arguments.folds] for part in range(arguments.folds)]
            if arguments.folds
            else [order[:tested]]
        )
        for number, test in enumerate(parts):
            rest = [case for case in order if case not in set(test)]
            val, rest = rest[: trial.val], rest[trial.val :]
            used = rest[:train] if train else rest
            yield {
                "name": f"{len(used)}-seed{seed}" + (f"-fold{number}" if arguments.folds else ""),
                "seed": seed, "train": used, "val": val, "test": test, "left": rest[len(used) :],
            }  # fmt: skip


def phases_of(arm: Arm, trial: Trial) -> str:
    """The recipe as YAML, the same for pretrained and random weights."""
    epochs = trial.epochs[arm.recipe]
    if arm.recipe == "frozen":  # maps of all views are computed once
        return f"[{{name: decoder, train: head, lr: 3.0e-3, epochs: {epochs[0]}, views: {trial.views}}}]"
    if arm.recipe in ("tuned", "slices"):
        return (
            f"[{{name: warmup, train: head, lr: 3.0e-3, epochs: {epochs[0]}, views: {trial.views}}}, "
            f"{{name: all, train: all, lr: 2.0e-3, epochs: {epochs[1]}, layer_decay: 0.8}}]"
        )
    return f"[{{name: all, train: all, lr: 4.0e-3, epochs: {epochs[0]}}}]"


def run_arm(
    start: str, trial: Trial, deal: dict[str, Any], folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One `medxfer run`, and what the benchmark needs of its folder."""
    arm, out = ARMS[start], folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "cost.json"
    if not told.is_file():
        overrides = [*trial.overrides, f"seed={deal['seed']}", f"phases={phases_of(arm, trial)}"]
        samples = trial.samples
        if arm.recipe == "slices":
            samples = trial.planes
            overrides += trial.slices
        if samples:
            overrides.append(f"images.patches.count={max(1, samples // len(deal['train']))}")
        overrides += [f"encoder.id={arm.encoder}", f"encoder.options={arm.options}"]
        if arm.window is not None:
            overrides.append(f"images.adjust={{HUWindow: {{windows: [{list(arm.window)}]}}}}")
        left, split = folder / "left_out.txt", folder / "split.csv"
        left.write_text("".join(f"{case} # few volumes\n" for case in deal["left"]), encoding="utf-8")
        with split.open("w", encoding="utf-8", newline="") as file:
            rows = [(case, name) for name in ("train", "val", "test") for case in deal[name]]
            csv.writer(file).writerows([("case", "split"), *rows])
        overrides += [f"data.exclude={left.resolve()}", *arguments.overrides]
        weights = arm.pretrained or "none"
        if arm.pretrained is None and arm.recipe != "plain":
            weights = str(random_weights(arm, trial, deal, folder, overrides, arguments.data))
        command = [sys.executable, "-m", "medxfer", "run", str(ROOT / "bundles" / trial.bundle), "--quiet"]
        command += ["--out", str(out), "--split", str(split), "--weights", weights]
        command += [part for one in overrides for part in ("--set", one)]
        command += [] if arguments.data is None else ["--data", str(arguments.data)]
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (folder / "random.safetensors").unlink(missing_ok=True)
        cost = {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_gb": round(after.ru_maxrss / 1e6, 2)}
        told.write_text(json.dumps(cost) + "\n", encoding="utf-8")
    cost = json.loads(told.read_text(encoding="utf-8"))
    return {**cost, **read_run(out)}


def random_weights(
    arm: Arm, trial: Trial, deal: dict[str, Any], folder: Path, overrides: Sequence[str], data: Path | None
) -> Path:
    """A file of random weights, as wide as the pretrained ones, with batch-norm statistics of the training images.

    Without those the maps of a frozen random network of 152 layers grow beyond any use.
    """
    bundle = bundle_of(trial, data, overrides)
    task = build_part(bundle.task, kind="task")
    found = find_cases(bundle.data, sources.folder_of(bundle.data.source, Progress(quiet=True)))
    steps = presets.steps_of(bundle.images, bundle.encoder.in_channels)
    arrays = cache_arrays(
        found.cases, steps, bundle.images.store, Progress(quiet=True),
        masks=task.masks, one_size=bundle.images.patches is None,
    )  # fmt: skip
    channels = card_of(arm.encoder).weights[0].in_channels
    torch.manual_seed(deal["seed"])
    options = bundle.encoder.options
    dims = bundle.images.network_dims
    encoder = build(arm.encoder, spatial_dims=dims, in_channels=channels, options=options).train()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all batches
    samples, used = samples_of(arrays, None, bundle.images), set(deal["train"])
    rows = [row for row, case in enumerate(arrays.cases) if case.id in used] * samples.count
    with torch.no_grad():
        for begin in range(0, len(rows), 4):
            part = np.array(rows[begin : begin + 4])
            images, _ = samples.take(part, range(begin, begin + len(part)))
            encoder(images.expand(-1, channels, *images.shape[2:]))
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("normalise.")}
    path = folder / "random.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def read_run(out: Path) -> dict[str, Any]:
    """Dice by test case and class, and what the run says of itself."""
    about, scores = (
        json.loads((out / name).read_text(encoding="utf-8")) for name in ("run.json", "scores.json")
    )
    with (out / "predictions" / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (out / "split.csv").open(encoding="utf-8") as file:
        people = {row["case"]: row["patient"] for row in csv.DictReader(file)}
    with (out / "history.csv").open(encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    receipt = json.loads((out / "receipt.json").read_text(encoding="utf-8"))
    return {
        "epochs": len(history),
        "best_val_dice": max(float(row["val_dice"]) for row in history),
        "coverage": receipt.get("coverage"),
        "seconds": about["seconds"],
        "precision": about["chosen"]["precision"]["value"],
        "hardware": about["hardware"],
        "versions": about["versions"],
        "baseline": scores["baseline"]["test"]["dice"]["value"],
        "dice": {
            row["case"]: {name: float(row[f"dice_{name}"] or "nan") for name in scores["classes"]}
            for row in rows
        },
        "people": {row["case"]: people[row["case"]] for row in rows},
    }


def told_of(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean Dice of each arm, and of each encoder pretrained minus random, over the cases that all arms tested."""
    tables, people = {}, {}
    for start, parts in runs.items():
        cases = sorted({case for part in parts for case in part["dice"]})
        people = {case: name for part in parts for case, name in part["people"].items()}
        tables[start] = np.array(
            [
                np.mean([list(part["dice"][case].values()) for part in parts if case in part["dice"]], axis=0)
                for case in cases
            ]
        )
    patients = [people[case] for case in sorted(people)]
    arms = {
        start: {
            "dice": score_of_table(tables[start], patients).to_plain(),
            "baseline": float(np.mean([part["baseline"] for part in parts])),
            "training_s": round(sum(part["seconds"]["training"] for part in parts), 1),
            **{key: round(sum(part[key] for part in parts), 1) for key in ("wall_s", "cpu_s")},
            "runs": [
                {key: value for key, value in part.items() if key not in ("hardware", "versions", "people")}
                for part in parts
            ],
        }
        for start, parts in runs.items()
    }
    gains = {}
    for start in runs:
        name = start.rpartition("-")[0]  # of the encoder, and of what it sees
        other = f"{name}-random"
        if ARMS[start].pretrained is not None and other in runs:
            gain = difference_of_tables(tables[other], tables[start], patients).to_plain()
            gains[name] = {"pretrained": start, "minus": other, "dice": gain}
    return {"arms": arms, "pretrained_minus_random": gains}


def show(count: int, told: dict[str, Any]) -> None:
    """A line an arm, a line a pair."""
    for start, one in told["arms"].items():
        dice = one["dice"]
        print(
            f"{count} training cases, {start}: Dice {dice['value']:.3f} ({dice['low']:.3f} to {dice['high']:.3f}), "
            f"{dice['n']} cases; mean mask {one['baseline']:.3f}; training {one['training_s']:.0f} s"
        )
    for encoder, one in told["pretrained_minus_random"].items():
        gain = one["dice"]
        print(
            f"{count} training cases, {encoder}, pretrained minus random: {gain['value']:+.3f} "
            f"({gain['low']:+.3f} to {gain['high']:+.3f})"
        )


if __name__ == "__main__":
    main()
