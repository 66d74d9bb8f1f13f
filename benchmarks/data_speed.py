"""Reading and cached epochs against MONAI, and whether memory grows with the number of cases.

    python benchmarks/data_speed.py [--data FOLDER] [--quick] [--rounds 5] [--only epochs reading series memory]

`--data` is a folder of pictures, read as `medxfer run` reads it; without it 2,000 JPEGs of 224 x 224 are written first.
The sides take turns in one process, each with two threads or two workers. MONAI runs as its manual describes it
(CacheDataset, DataLoader with persistent workers, MetaTensor) and, as its fastest way, with set_track_meta(False).
Writes benchmarks/results/data_speed.json: medians with the lowest and the highest, ratios of the same round.
Timings are of this machine and hold for it alone; processor seconds say more where others use the machine too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A thread that waits sleeps: where others use the machine too, spinning takes the time that it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

ROOT = Path(__file__).parents[1]
WORKERS = 2
SIZE = 128
BATCH = 32
GOALS = {"epochs": 5.0, "reading": 4.0, "series": 5.0}  # times MONAI as its manual describes it
_FASTEST = "no meta"  # in the names of MONAI's sides without MetaTensor
Timed = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every part is given: pictures, a folder to write to, rounds, whether to be brief."""

    pictures: Path
    folder: Path
    rounds: int
    quick: bool


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a folder of pictures")
    parser.add_argument("--quick", action="store_true", help="few pictures, a short series, two rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # of MONAI, about its own parts
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDXFER_HOME"] = str(Path(folder) / "home")
        pictures = arguments.data or write_pictures(
            Path(folder) / "pictures", 200 if arguments.quick else 2000
        )
        rounds = 2 if arguments.quick else arguments.rounds
        found = {}
        for name in arguments.only:
            found[name] = PARTS[name](Setting(pictures.resolve(), Path(folder), rounds, arguments.quick))
            show(name, found[name])
    path = ROOT / "benchmarks" / "results" / f"data_speed{'-quick' if arguments.quick else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**about(arguments.data), **found}, indent=1) + "\n", encoding="utf-8")
    print(path)


def about(data: Path | None) -> dict[str, Any]:
    """What was run, on what."""
    import torch

    from medxfer.data.formats import pictures
    from medxfer.surroundings import hardware, pick_device, versions

    words = [data.name if data and word == str(data) else word for word in sys.argv[1:]]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "command": "python benchmarks/data_speed.py " + " ".join(words),
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "data": "written by this script" if data is None else data.name,
        "workers": WORKERS,
        "grey JPEG by": "Pillow"
        if pictures.simplejpeg is None
        else f"simplejpeg {pictures.simplejpeg.__version__}",
        "load": [round(one, 1) for one in os.getloadavg()],
        "hardware": hardware(pick_device("cpu"), torch.get_num_threads()),
        "versions": versions(),
    }


def interleaved(sides: Mapping[str, Timed], rounds: int, count: int, *, warm: bool) -> dict[str, Any]:
    """Time every side once a round, the first of each round in turn; `count` images or volumes a call."""
    names = list(sides)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begun = time.perf_counter(), processor_seconds()
            result = sides[name]()
            ended = time.perf_counter(), processor_seconds()
            del result
            if turn >= 0:
                wall[name].append(ended[0] - begun[0])
                cpu[name].append(ended[1] - begun[1])
    others = [name for name in names if name != "medxfer"]
    return {
        "count": count,
        "per_second": {name: spread([count / one for one in wall[name]]) for name in names},
        "cpu_ms_each": {name: spread([1000 * one / count for one in cpu[name]]) for name in names},
        "ratio": {name: ratios(wall[name], wall["medxfer"]) for name in others},
        "cpu_ratio": {name: ratios(cpu[name], cpu["medxfer"]) for name in others},
    }


def processor_seconds() -> float:
    """Of this process, of its children that ended and of those that live."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                ticks += sum(
                    map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:15])
                )
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times as long they took, round by round."""
    return spread([other / max(own, 1e-3) for other, own in zip(theirs, ours, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range, four digits."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def show(name: str, found: Mapping[str, Any]) -> None:
    """Lines for the terminal."""
    print(f"{name} (load {os.getloadavg()[0]:.1f})")
    for title, values in found.items():
        if not isinstance(values, dict):
            print(f"  {title}: {values}")
            continue
        for side, one in values.items():
            text = f"{one['median']:g} ({one['low']:g} to {one['high']:g})" if isinstance(one, dict) else one
            print(f"  {title:<12} {side:<28} {text}")
    if name in GOALS:
        for kind in ("ratio", "cpu_ratio"):
            least = {
                way: min(one["median"] for side, one in found[kind].items() if (_FASTEST in side) <= way)
                for way in (False, True)
            }
            word = "reached" if least[False] >= GOALS[name] else "MISSED"
            print(
                f"  goal {GOALS[name]:g}, {kind}: {word}, least {least[False]:.2f}; {least[True]:.2f} with the "
                "sides without metadata"
            )


def on_monai(function: Timed, *, track_meta: bool) -> Timed:
    """MONAI's side with MetaTensor or without; its workers have one thread each."""

    @functools.wraps(function)
    def run() -> Any:
        from monai.data import set_track_meta

        set_track_meta(track_meta)
        try:
            return function()
        finally:
            set_track_meta(True)

    return run


# Pictures


def write_pictures(folder: Path, count: int) -> Path:
    """Grey JPEGs of 224 x 224 with the detail of a radiograph (about 7 kB each), in two classes."""
    from PIL import Image
    from scipy.ndimage import zoom

    random = np.random.default_rng(0)
    for number in range(count):
        coarse = zoom(random.uniform(40, 210, (9, 9)), 224 / 9, order=3, grid_mode=True, mode="nearest")
        fine = zoom(random.normal(0, 6, (112, 112)), 2, order=1, grid_mode=True, mode="nearest")
        place = folder / f"class{number % 2}" / f"{number:05}.jpeg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((coarse + fine).clip(0, 255).astype(np.uint8)).save(place, quality=75)
    return folder


def cases_of(pictures: Path, *, at_most: int | None = None) -> tuple[Any, ...]:
    """Cases of the folder, evenly thinned to `at_most`."""
    from medxfer.bundle.schema import DataSpec
    from medxfer.data.cases import find_cases

    cases = find_cases(DataSpec(source=str(pictures)), pictures).cases
    return tuple(cases[:: max(1, math.ceil(len(cases) / at_most))] if at_most else cases)


def cached(cases: Sequence[Any]) -> Any:
    """The cases as `medxfer run` reads them with the preset xray."""
    from medxfer.bundle.schema import ImagesSpec
    from medxfer.data.cache import cache_arrays
    from medxfer.data.presets import steps_of
    from medxfer.progress import Progress

    return cache_arrays(cases, steps_of(ImagesSpec(size=SIZE), 1), "uint8", Progress(quiet=True))


def reading_transforms(*, scaled: bool = True) -> list[Any]:
    """MONAI's chain up to the cache; `scaled` to [0, 1] as the preset does, else reading and resizing alone."""
    from monai.transforms import LoadImaged, Resized, ScaleIntensityd

    load = LoadImaged("image", reader="PILReader", ensure_channel_first=True)
    chain = [load, Resized("image", (SIZE, SIZE))]
    return [*chain, ScaleIntensityd("image")] if scaled else chain


def measure_reading(setting: Setting) -> dict[str, Any]:
    """First reading: hashes, decoding, preprocessing and the cache on disk, against MONAI's into memory."""
    import torch
    from monai.data import CacheDataset, DataLoader, Dataset
    from monai.transforms import Compose

    torch.set_num_threads(1)  # a thread of a reader computes on one core; so do MONAI's workers
    cases = cases_of(setting.pictures)
    files = [{"image": str(case.images[0])} for case in cases]
    chain = Compose(reading_transforms())
    unscaled = Compose(reading_transforms(scaled=False))

    def ours() -> Any:
        shutil.rmtree(setting.folder / "home" / "cache", ignore_errors=True)
        return cached(cases)

    def cache_dataset() -> Any:
        return CacheDataset(files, chain, num_workers=WORKERS, progress=False)

    def data_loader(transform: Any) -> Timed:
        def run() -> int:
            loader = DataLoader(Dataset(files, transform), batch_size=BATCH, num_workers=WORKERS)
            return sum(len(batch["image"]) for batch in loader)

        return run

    sides = {
        "medxfer": ours,
        "CacheDataset": on_monai(cache_dataset, track_meta=True),
        "CacheDataset, no meta": on_monai(cache_dataset, track_meta=False),
        "DataLoader": on_monai(data_loader(chain), track_meta=True),
        "DataLoader, not scaled": on_monai(data_loader(unscaled), track_meta=True),
        "DataLoader, no meta": on_monai(data_loader(chain), track_meta=False),
    }
    found = interleaved(sides, setting.rounds, len(cases), warm=False)
    arrays, few = ours(), slice(None, None, max(1, len(cases) // 50))
    # Same pictures? MONAI turns columns before rows and scales from least to largest: compared by correlation.
    theirs = [np.asarray(chain(file)["image"])[0].T for file in files[few]]
    own = [image[0] for image in arrays.images[few]]
    both = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(own, theirs, strict=True)]
    begun = time.perf_counter()
    cached(cases)
    found["found_again_per_second"] = round(len(cases) / (time.perf_counter() - begun))
    found["least_correlation_of_pictures"] = round(float(min(both)), 4)
    return found


# Epochs


def random_transforms() -> list[Any]:
    """The random changes of the preset xray as MONAI's: rotate, shift, scale; brightness, contrast, gamma."""
    from monai.transforms import (
        RandAdjustContrastd,
        RandAffined,
        RandScaleIntensityFixedMeand,
        RandShiftIntensityd,
    )

    return [
        RandAffined(
            "image",
            prob=1.0,
            rotate_range=math.radians(10),
            translate_range=(0.05 * SIZE, 0.05 * SIZE),
            scale_range=(0.1, 0.1),
            mode="bilinear",
            padding_mode="border",
            cache_grid=True,
            spatial_size=(SIZE, SIZE),
        ),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        RandScaleIntensityFixedMeand("image", factors=0.2, prob=1.0),
        RandAdjustContrastd("image", prob=1.0, gamma=(0.9, 1.1)),
    ]


def measure_epochs(setting: Setting) -> dict[str, Any]:
    """Second and later epochs of a cached set with augmentation, batches of 32, shuffled."""
    import torch
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose

    from medxfer.data.augment import Augment
    from medxfer.data.loaders import Batches
    from medxfer.data.patches import WholeImages
    from medxfer.data.presets import default_augment

    torch.set_num_threads(WORKERS)
    cases = cases_of(setting.pictures, at_most=200 if setting.quick else 2000)
    files = [{"image": str(case.images[0])} for case in cases]
    arrays = cached(cases)
    batches = Batches(
        arrays,
        WholeImages(arrays, torch.zeros(len(cases))),
        range(len(cases)),
        BATCH,
        seed=0,
        augment=Augment(default_augment("xray")),
        device=torch.device("cpu"),
        memory_format=torch.contiguous_format,
        shuffle=True,
    )
    numbers = iter(range(10**6))

    def ours() -> int:
        return sum(len(batch.images) for batch in batches.epoch(next(numbers)))

    def monai(track_meta: bool) -> Timed:
        def prepare() -> Any:
            data = CacheDataset(
                files,
                Compose([*reading_transforms(), *random_transforms()]),
                num_workers=WORKERS,
                progress=False,
            )
            return DataLoader(
                data, batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
            )

        loader = on_monai(prepare, track_meta=track_meta)()
        return on_monai(lambda: sum(len(batch["image"]) for batch in loader), track_meta=track_meta)

    sides = {"medxfer": ours, "DataLoader": monai(True), "DataLoader, no meta": monai(False)}
    return interleaved(sides, setting.rounds, len(cases), warm=True)


# Series


def write_series(folder: Path, slices: int, side: int = 512) -> Path:
    """A CT series: 12 bits in uint16, intercept -1024, one file a slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 3000, (side, side)).astype(np.uint16)
    series, frame, study = generate_uid(), generate_uid(), generate_uid()
    for number in range(slices):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = series, study, frame
        image.Modality, image.PatientID, image.PatientName = "CT", "P1", "A^B"
        image.SeriesDescription, image.ImageType = "thorax", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.InstanceNumber, image.SliceThickness, image.StudyDate = number + 1, 1.25, "20200101"
        image.ImagePositionPatient = [-180.5, -190.25, -300 + 1.25 * number]
        image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
        image.Rows = image.Columns = side
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
        image.PixelData = np.roll(pixels, number * 7, 0).tobytes()
        image.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)
    return folder


def measure_series(setting: Setting) -> dict[str, Any]:
    """A DICOM series with every check of the gate to a float32 volume, files in the page cache."""
    import torch
    from monai.data import PydicomReader
    from monai.transforms import LoadImage

    from medxfer.data.readers import read_image

    torch.set_num_threads(WORKERS)
    slices = 20 if setting.quick else 200
    place = write_series(setting.folder / "series", slices)
    load = LoadImage(reader=PydicomReader(), image_only=True)
    sides: dict[str, Timed] = {
        "medxfer": lambda: read_image(place),
        "PydicomReader": lambda: load(str(place)),
    }
    found = interleaved(sides, setting.rounds, 1, warm=True)
    # MONAI keeps DICOM's axes (LPS) in the RAS affine's signs; medxfer turns the array itself.
    theirs = np.asarray(load(str(place)))[::-1, ::-1]
    found["equal_voxels"] = bool(np.array_equal(theirs, read_image(place).array[0]))
    found["slices"] = slices
    return found


# Memory

_CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import data_speed
import numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1e3
cases = data_speed.cases_of(Path(sys.argv[2]))[: int(sys.argv[3])]
data_speed.cached(cases[:8])
found = {"cases": len(cases), "start_mb": status("VmRSS")}
begun = time.perf_counter()
arrays = data_speed.cached(cases)
found |= {"peak_mb": status("VmHWM"), "seconds": time.perf_counter() - begun}
for begin in range(0, len(cases), 32):
    arrays.batch(np.arange(begin, min(begin + 32, len(cases))))
print(json.dumps({**found, "anonymous_after_epoch_mb": status("RssAnon")}))
"""


def measure_memory(setting: Setting) -> dict[str, Any]:
    """Peak resident memory of a fresh process that reads N and 4 N images, and one that finds the 4 N again.

    The peak (VmHWM) is taken before a page of the memory map is touched; after an epoch over all rows only
    anonymous memory counts (RssAnon), since pages of the map belong to the system's page cache.
    """
    many = len(cases_of(setting.pictures))
    found: dict[str, Any] = {}
    shutil.rmtree(setting.folder / "home" / "cache", ignore_errors=True)
    for name, count in (("N", many // 4), ("4N", many), ("4N found again", many)):
        command = [
            sys.executable,
            "-c",
            _CHILD,
            str(Path(__file__).parent),
            str(setting.pictures),
            str(count),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        one = json.loads(said.splitlines()[-1])
        found[name] = ", ".join(f"{key} {value:.4g}" for key, value in one.items())
        found[f"{name} peak_mb"] = one["peak_mb"]
    found["growth_kb_a_case"] = round(
        1e3 * (found["4N peak_mb"] - found["N peak_mb"]) / (many - many // 4), 2
    )
    return found


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "epochs": measure_epochs,
    "reading": measure_reading,
    "series": measure_series,
    "memory": measure_memory,
}


if __name__ == "__main__":
    main()
