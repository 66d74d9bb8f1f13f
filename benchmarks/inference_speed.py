"""From a CT file to a mask file: medxfer against the chain that MONAI bundles run, with one trained network.

    python benchmarks/inference_speed.py [--profile cpu|full] [--quick] [--rounds 3] [--run DIR]

The image is 512 x 512 x 120 voxels of 0.8 x 0.8 x 2.5 mm, a synthetic trunk whose liver is looked for. A small U-Net
is trained first on ten volumes of other patients by `medxfer run` and kept in MEDXFER_HOME; `--run` is such a run made
before. Its bundle crops CTs to the body, so that no window runs over the air around it; MONAI's chain looks at all.
Each reading is a fresh process, so that its peak memory is its own; the sides take turns. MONAI's chain is LoadImaged,
Orientationd, Spacingd, ScaleIntensityRanged, SlidingWindowInferer (overlap 0.5, Gaussian), then softmax, Invertd,
AsDiscreted (argmax), SaveImaged, as model-zoo bundles write it; `monai_argmax_first` inverts one channel of class
numbers instead. `--profile full` adds other settings of both sides.
Writes benchmarks/results/inference_speed.json; exit code 1 where a goal of issue 13 is missed.
Timings are of this machine and hold for it alone; processor seconds say more where others use the machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).parents[1]
SIDES = {
    "cpu": ("medxfer", "monai", "monai_argmax_first"),
    "full": (
        "medxfer", "monai", "monai_argmax_first", "monai_channels_last", "medxfer_overlap_0.25", "medxfer_bf16",
    ),
}  # fmt: skip
SPACING = (1.5, 1.5, 2.0)  # mm, of what the network sees
WINDOW_HU = (-175.0, 250.0)
CLASSES = ("liver",)
MARGIN = 36  # voxels of air about the body that the trained network is shown, in training and prediction
_LIVER = 4  # among the phantom's organs
CONTRAST = 120  # HU that a contrast medium adds to the liver
SPEED, MEMORY, DICE = (
    3.0,
    2.0,
    0.995,
)  # what issue 13 wants: times as fast, times less memory, Dice to its mask


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=list(SIDES), default="cpu")
    parser.add_argument(
        "--quick", action="store_true", help="a small image, a network that is hardly trained, one round"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a run of this script's training, to be used again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)  # what a process of its own measures
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measured(arguments.side, arguments.run, arguments.image, arguments.out)))
        return
    result = compare(arguments)
    show(result)
    path = ROOT / "benchmarks" / "results" / f"inference_speed{'-quick' if arguments.quick else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path)
    found = result["against_monai"]["monai"]
    missed = [
        name for name, goal in GOALS.items() if not arguments.quick and not found[name]["median"] >= goal
    ]
    if missed:
        sys.exit(f"below the goal: {', '.join(missed)}")


GOALS = {"times_as_fast": SPEED, "times_less_memory": MEMORY, "dice_to_its_mask": DICE}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides, in turn, each in a process of its own."""
    import torch

    from medxfer.files import home
    from medxfer.surroundings import hardware, pick_device, versions

    kept = home() / "benchmarks" / f"inference_speed{'-quick' if arguments.quick else ''}"
    run = arguments.run or trained_run(kept, arguments.quick)
    image, truth = written_ct(kept, arguments.quick)
    sides = SIDES[arguments.profile]
    readings: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    masks: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if arguments.quick else arguments.rounds):
            first = turn % len(sides)
            for name in sides[first:] + sides[:first]:
                out = Path(folder) / f"{name}-{turn}"
                readings[name].append(in_own_process(name, run, image, out, arguments.threads))
                masks[name] = mask_in(out)
                shutil.rmtree(out)
                print(
                    name,
                    {key: round(value, 2) for key, value in readings[name][-1].items() if key != "parts"},
                )
    words = [word for word in sys.argv[1:] if not arguments.run or word != str(arguments.run)]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "command": "python benchmarks/inference_speed.py " + " ".join(words),
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "threads": arguments.threads,
        "load": [round(one, 1) for one in os.getloadavg()],
        "hardware": hardware(pick_device("cpu"), arguments.threads),
        "versions": {**versions(), "torch_threads": torch.get_num_threads()},
        "shape": list(truth.shape),
        "readings": readings,
        "summary": {name: summary(found) for name, found in readings.items()},
        "dice_to_truth": {name: dice_of(mask, truth) for name, mask in masks.items()},
        "against_monai": {
            other: {
                "times_as_fast": ratios(readings[other], readings["medxfer"], "wall_s"),
                "times_less_processor": ratios(readings[other], readings["medxfer"], "cpu_s"),
                "times_less_memory": ratios(readings[other], readings["medxfer"], "peak_mb"),
                "times_less_memory_above_imports": ratios(
                    readings[other], readings["medxfer"], "peak_above_imports_mb"
                ),
                "dice_to_its_mask": spread([dice_of(masks["medxfer"], masks[other])["mean"]]),
            }
            for other in sides
            if other.startswith("monai")
        },
        "dice_to_mask_of_monai": {name: dice_of(mask, masks["monai"]) for name, mask in masks.items()},
    }


def in_own_process(side: str, run: Path, image: Path, out: Path, threads: int) -> dict[str, Any]:
    """One reading."""
    command = [sys.executable, __file__, "--side", side, "--run", run, "--image", image, "--out", out]
    # A thread that waits sleeps: where others use the machine too, spinning takes the time that it waits for.
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(list(map(str, command)), env=surroundings, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}:\n{done.stderr}")
    reading: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reading


class Clock:
    """Seconds of named parts of a process."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time spent within."""
        begun = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - begun

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return call


def measured(side: str, run: Path, image: Path, out: Path) -> dict[str, Any]:
    """What one side takes from the file to the written mask; imports and the network's own loading come before."""
    clock = Clock()
    begun = time.perf_counter()
    work = medxfer_side(side, run, clock) if side.startswith("medxfer") else monai_side(side, run, clock)
    ready, before = time.perf_counter() - begun, peak_mb()
    started = time.perf_counter(), time.process_time()
    work(image, out)
    return {
        "wall_s": time.perf_counter() - started[0],
        "cpu_s": time.process_time() - started[1],
        "ready_s": ready,
        "imports_mb": before,
        "peak_mb": peak_mb(),
        "peak_above_imports_mb": peak_mb() - before,
        "parts": clock.parts,
    }


def peak_mb() -> float:
    """By the operating system's account; of this program alone, where `ru_maxrss` begins with its parent's."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def medxfer_side(side: str, run: Path, clock: Clock) -> Callable[[Path, Path], None]:
    """What `medxfer predict RUN FILE -o FOLDER` does."""
    import torch

    from medxfer.tasks import asking, segmentation
    from medxfer.trained import open_run

    trained = open_run(run)
    if side == "medxfer_overlap_0.25":
        options = {**trained.bundle.task.arguments, "overlap": 0.25}
        trained = dataclasses.replace(trained, task=segmentation.Segmentation(**options))

    def work(image: Path, out: Path) -> None:
        with contextlib.ExitStack() as stack:
            for name, module, function in (
                ("read", asking, "read_input"),
                ("prepare", asking, "prepared"),
                ("windows", segmentation, "predict_windows"),
                ("invert", segmentation, "decided_on_grid"),
                ("write", segmentation, "write_mask"),
            ):
                timed = clock.timed(name, getattr(module, function))
                stack.enter_context(mock.patch.object(module, function, timed))
            if side == "medxfer_bf16":
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            (row,) = trained.predict([image], folder=out)
        assert row["status"] != "refused", row["reason"]

    return work


def monai_side(side: str, run: Path, clock: Clock) -> Callable[[Path, Path], None]:
    """The chain as model-zoo bundles write it, with the network of the run."""
    import torch
    from monai import transforms
    from monai.inferers.inferer import SlidingWindowInferer

    from medxfer.trained import open_run

    last = side == "monai_channels_last"
    trained = open_run(run)
    network = trained.network.to(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
    before = [
        transforms.LoadImaged(keys="image", ensure_channel_first=True),
        transforms.Orientationd(keys="image", axcodes="RAS"),
        transforms.Spacingd(keys="image", pixdim=SPACING, mode="bilinear"),
        transforms.ScaleIntensityRanged(
            keys="image", a_min=WINDOW_HU[0], a_max=WINDOW_HU[1], b_min=0.0, b_max=1.0, clip=True
        ),
    ]
    windows = SlidingWindowInferer(
        roi_size=trained.bundle.images.shape, sw_batch_size=4, overlap=0.5, mode="gaussian"
    )
    inverted: dict[str, Any] = {"keys": "pred", "orig_keys": "image", "transform": transforms.Compose(before)}
    argmax = transforms.AsDiscreted(keys="pred", argmax=True)

    def work(image: Path, out: Path) -> None:
        save = transforms.SaveImaged(
            keys="pred", output_dir=out, output_postfix="", separate_folder=False, resample=False,
            output_dtype=np.uint8, print_log=False,
        )  # fmt: skip
        if side == "monai_argmax_first":
            after = [argmax, transforms.Invertd(**inverted, nearest_interp=True), save]
        else:
            softmax = transforms.Activationsd(keys="pred", softmax=True)
            after = [softmax, transforms.Invertd(**inverted, nearest_interp=False), argmax, save]
        data: Any = {"image": image}
        with clock.part("read_and_prepare"):
            data = inverted["transform"](data)
        with clock.part("windows"), torch.no_grad():
            data["pred"] = windows(data["image"][None], network)[0]
        for step in after:
            with clock.part(type(step).__name__):
                data = step(data)

    return work


def mask_in(folder: Path) -> np.ndarray:
    """Class numbers of the one mask of a folder."""
    import nibabel

    (path,) = folder.rglob("*.nii.gz")
    found: np.ndarray = np.asarray(nibabel.nifti1.load(path).dataobj).astype(np.uint8)
    return found.reshape(found.shape[:3])


def dice_of(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Of each class, and their mean."""
    found = {
        name: float(
            2
            * ((one == number) & (other == number)).sum()
            / ((one == number).sum() + (other == number).sum())
        )
        for number, name in enumerate(CLASSES, start=1)
    }
    return {**found, "mean": statistics.mean(found.values())}


def summary(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians and ranges."""
    parts = {name for one in readings for name in one["parts"]}
    return {
        **{key: spread([one[key] for one in readings]) for key in readings[0] if key != "parts"},
        "parts": {name: spread([one["parts"].get(name, 0.0) for one in readings]) for name in sorted(parts)},
    }


def ratios(
    theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], key: str
) -> dict[str, float]:
    """How many times as much they took, round by round."""
    return spread([their[key] / our[key] for their, our in zip(theirs, ours, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, range and number."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def show(result: Mapping[str, Any]) -> None:
    """Print medians."""
    for name, found in result["summary"].items():
        parts = ", ".join(f"{part} {one['median']:.2f}" for part, one in found["parts"].items())
        print(f"{name:<20} {found['wall_s']['median']:6.1f} s, processors {found['cpu_s']['median']:6.1f} s, "
              f"peak {found['peak_mb']['median']:5.0f} MB ({parts})")  # fmt: skip
    for other, found in result["against_monai"].items():
        said = ", ".join(
            f"{name} {one['median']:.4g} ({one['low']:.4g} to {one['high']:.4g})"
            for name, one in found.items()
        )
        print(f"to {other}: {said}")
    print(
        "Dice to the truth:",
        {name: round(found["mean"], 4) for name, found in result["dice_to_truth"].items()},
    )


# The image and the training data.


def phantom_of(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and a mask uint8 of the liver of a trunk, axes to the left, back and head."""
    from medxfer.data.synthetic.ct_series import phantom

    hu, organs = phantom(shape, spacing, np.random.default_rng([seed, 150]))
    mask = (organs == _LIVER).astype(np.uint8)
    return (hu + np.int16(CONTRAST) * mask).astype(np.int16), mask


def affine_of(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Indices that run to the left, back and head (LPS) to mm in RAS, the middle at 0."""
    signs = np.array([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs * spacing)
    affine[:3, 3] = -signs * spacing * (np.array(shape) - 1) / 2
    return affine


def written_ct(folder: Path, quick: bool) -> tuple[Path, np.ndarray]:
    """The image to predict, and its true mask."""
    from medxfer.data.synthetic.writing import put_volume

    shape, spacing = ((128, 128, 60), (1.6, 1.6, 2.5)) if quick else ((512, 512, 120), (0.8, 0.8, 2.5))
    image, truth = folder / "ct.nii.gz", folder / "truth.npy"
    if not truth.is_file():
        hu, mask = phantom_of(99, shape, spacing)
        put_volume(image, hu, affine_of(shape, spacing))
        np.save(truth, mask)
    return image, np.load(truth)


def trained_run(folder: Path, quick: bool) -> Path:
    """A run of a small U-Net on ten volumes, trained where there is none yet: first with little air about the body."""
    run, data = folder / "run", folder / "data"
    if (run / "scores.json").is_file():
        return run
    write_training_data(data, quick)
    for number, place in enumerate((folder / "first", run)):
        if (place / "scores.json").is_file():
            continue
        shutil.rmtree(place, ignore_errors=True)
        config = folder / f"{place.name}.json"  # JSON is YAML
        plain = bundle_of(data, quick, start=folder / "first" if number else None)
        config.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "medxfer", "run", config, "--out", place], check=True)
    return run


def write_training_data(data: Path, quick: bool) -> None:
    """Ten trunks of other patients, each a random part, in the layout of the Medical Segmentation Decathlon."""
    from medxfer.data.synthetic.writing import put_decathlon, put_volume

    cases = [f"trunk_{number:02d}" for number in range(10)]
    for number, name in enumerate(cases):
        rng = np.random.default_rng([number, 151])
        side, slices = (60, 40) if quick else (200, 110)
        step = rng.uniform(1.7, 2.4)
        spacing = (step, step, rng.uniform(2.2, 3.2))
        hu, mask = phantom_of(number, (side + side // 7, side + side // 7, slices + slices // 6), spacing)
        x, y, z = rng.integers(0, (side // 7 + 1, side // 7 + 1, slices // 6 + 1))
        cut = (slice(x, x + side), slice(y, y + side), slice(z, z + slices))
        for part, voxels in (("imagesTr", hu[cut]), ("labelsTr", mask[cut])):
            put_volume(data / part / f"{name}.nii.gz", voxels, affine_of(voxels.shape, spacing))
    put_decathlon(data, "Synthetic trunk", "CT", dict(enumerate(("background", *CLASSES))), cases)


def bundle_of(data: Path, quick: bool, *, start: Path | None) -> dict[str, Any]:
    """What is trained, from random weights or from an earlier run with less air about the body."""
    steps = [
        {"_target_": "CropBody", "margin": 8 if start is None else MARGIN},
        {"_target_": "HUWindow", "windows": [list(WINDOW_HU)]},
        {"_target_": "Channels", "count": 1},
        {"_target_": "Resample", "spacing": list(SPACING)},
        {"_target_": "Quantise", "store": "float16"},
    ]
    phase = {"lr": 0.005, "epochs": 6} if start is None else {"lr": 0.002, "epochs": 2}
    return {
        "seed": 0,
        "data": {"source": str(data), "split": {"test": 0.1, "val": 0.1}},
        "images": {
            "preset": "ct", "dims": 3, "size": [96, 96, 96], "spacing": list(SPACING), "augment": [],
            "patches": {"count": 1 if quick else 20, "foreground": 0.33}, "transforms": steps, "store": "float16",
        },
        "encoder": {"id": "unet", "weights": "none", "in_channels": 1, "options": {"width": 8}},
        "task": {"_target_": "Segmentation", "classes": list(CLASSES), "overlap": 0.5, "decoder": {"width": 8}},
        "training": {"batch": 2, "clip_norm": 12.0},
        "phases": [{"name": "all", "train": "all", **phase, **({"epochs": 1} if quick else {})}],
        **({} if start is None else {"start": str(start)}),
    }  # fmt: skip


if __name__ == "__main__":
    main()
