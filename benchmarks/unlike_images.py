"""How often `predict` warns of images: held-out ones of the same data set, changed ones, and other data sets.

    python benchmarks/unlike_images.py --data FOLDER [--seeds 0 1 2]

FOLDER holds the data sets under the names below, each laid out as its bundle reads it. Nothing is trained: the figures
depend on the preprocessing of the bundle alone. Of each data set a fifth of the patients (or its own test part) is held
out. `inverted` turns black and white of the file, `thumbnail` makes the picture 40 pixels wide, `turned` lays it on its
side, `offset` adds 1,024 to Hounsfield units. Writes benchmarks/results/unlike_images.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Bundle
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.cases import find_cases
from medxfer.data.placed import Placed
from medxfer.data.presets import Step, prepared, steps_of
from medxfer.data.sampling import digest_of, read_case, reading_of
from medxfer.data.usual import LEAST, Usual, seen_of, seen_row, usual_of
from medxfer.progress import Progress

ROOT = Path(__file__).parents[1]
CHANGED = 200  # held-out images that are changed, at most
OTHERS = 300  # images of another data set
FEW = 30  # training images, to see how few do


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A network that is asked, by the bundle that reads its data."""

    bundle: str
    data: str
    changes: tuple[str, ...]
    others: tuple[tuple[str, str], ...] = ()  # bundle that reads them, data set
    own_test: bool = False


XRAYS = (("brain_mri_cls", "brain_mri"), ("abdomen_chest_cls", "abdomen_chest"))
QUESTIONS = (
    Question(
        bundle="pneumonia_cls", data="pneumonia", changes=("inverted", "thumbnail", "turned"), own_test=True,
        others=(*XRAYS, ("chest_xray_findings_cls", "chest_xray_findings"), ("pathology_cls", "pathology_cls")),
    ),
    Question(
        bundle="chest_xray_findings_cls", data="chest_xray_findings", changes=("inverted", "turned"), others=XRAYS
    ),
    Question(
        bundle="brain_mri_cls", data="brain_mri", changes=("inverted",), others=(("pneumonia_cls", "pneumonia"),)
    ),
    Question(
        bundle="pathology_cls", data="pathology_cls", changes=("inverted", "thumbnail"),
        others=(("pneumonia_cls", "pneumonia"),),
    ),
    Question(bundle="lung_nodule_ct_cls", data="lung_nodule_ct", changes=("inverted",)),
    Question(
        bundle="lung_xray_seg", data="lung_xray_seg", changes=("inverted", "thumbnail", "turned"), others=XRAYS
    ),
    Question(
        bundle="hippocampus_mri_seg", data="hippocampus_mri", changes=("inverted",),
        others=(("sarcoma_ct_seg", "sarcoma_ct"),),
    ),
    Question(
        bundle="sarcoma_ct_seg", data="sarcoma_ct", changes=("inverted", "offset"),
        others=(("hippocampus_mri_seg", "hippocampus_mri"),),
    ),
)  # fmt: skip


def inverted(image: Placed) -> Placed:
    """Black and white turned."""
    return image.with_values(image.values.max() + image.values.min() - image.values)


def thumbnail(image: Placed) -> Placed:
    """40 pixels wide, as a page of search results shows it."""
    rows, columns = image.shape
    size = (max(1, round(40 * rows / columns)), 40)
    small = functional.interpolate(image.values[None], size=size, mode="bilinear", antialias=True)[0]
    return Placed(small, image.affine)


def turned(image: Placed) -> Placed:
    """By a quarter."""
    return image.with_values(torch.rot90(image.values, 1, (1, 2)).contiguous())


def offset(image: Placed) -> Placed:
    """As stored, before the rescale intercept."""
    return image.with_values(image.values + 1024)


CHANGES: dict[str, Callable[[Placed], Placed]] = {
    "inverted": inverted, "thumbnail": thumbnail, "turned": turned, "offset": offset,
}  # fmt: skip


def main() -> None:
    """Ask every question with every seed, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    result: dict[str, Any] = {
        "command": "python benchmarks/unlike_images.py --data FOLDER",
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "seeds": arguments.seeds,
        "what": "share of images that predict warns of as unlike the training images; means over seeds",
        "networks": {},
    }
    for question in QUESTIONS:
        found = asked(question, arguments.data, arguments.seeds)
        result["networks"][question.bundle] = found
        shares = ", ".join(
            f"{name} {one['warned']:.3f} of {one['images']}" for name, one in found["of"].items()
        )
        print(
            f"{question.bundle} ({found['training_images']} training images, {found['ms_each']} ms each): {shares}"
        )
    path = ROOT / "benchmarks" / "results" / "unlike_images.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path)


def asked(question: Question, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Shares warned of, by what was shown."""
    bundle = load_bundle(ROOT / "bundles" / question.bundle, data=str(folder / question.data))
    steps = steps_of(bundle.images, bundle.encoder.in_channels)
    arrays = read(bundle, bundle, folder / question.data)
    others = {
        name: read(bundle, load_bundle(ROOT / "bundles" / reader, data=str(folder / name)), folder / name)
        for reader, name in question.others
    }
    shares: dict[str, list[tuple[float, int]]] = {}
    seconds, counts = [], []

    def add(name: str, warned: Iterable[bool]) -> None:
        listed = list(warned)
        shares.setdefault(name, []).append((float(np.mean(listed)), len(listed)))

    for seed in seeds:
        random = np.random.default_rng(seed)
        train, test = parts(arrays, random, own_test=question.own_test)
        began = time.perf_counter()
        usual = usual_of(arrays, train)
        assert usual is not None
        seconds.append((time.perf_counter() - began) / usual.images)
        counts.append(usual.images)
        add("held out", rows_warned(usual, arrays, test))
        some = random.permutation(test)[:CHANGED].tolist()
        for name in question.changes:
            add(name, changed_warned(usual, bundle, arrays, some, steps, CHANGES[name]))
        for name, other in others.items():
            add(name, rows_warned(usual, other, random.permutation(len(other.cases))[:OTHERS].tolist()))
        fewer = usual_of(arrays, random.permutation(train)[: max(FEW, LEAST)].tolist())
        if fewer is not None:
            add(f"held out, {fewer.images} training images", rows_warned(fewer, arrays, test))
            changed = changed_warned(fewer, bundle, arrays, some, steps, CHANGES["inverted"])
            add(f"inverted, {fewer.images} training images", changed)
    return {
        "training_images": round(float(np.mean(counts))),
        "ms_each": round(1000 * float(np.median(seconds)), 2),
        "of": {
            name: {
                "warned": round(float(np.mean([share for share, _ in found])), 4),
                "by_seed": [round(share, 4) for share, _ in found],
                "images": found[0][1],
            }
            for name, found in shares.items()
        },
    }


def read(bundle: Bundle, reader: Bundle, folder: Path) -> Arrays:
    """Images of a data set that `reader` finds, preprocessed as for `bundle`; what cannot be used is left out."""
    images = bundle.images
    return cache_arrays(
        find_cases(reader.data, folder).cases,
        steps_of(images, bundle.encoder.in_channels),
        images.store,
        Progress(quiet=True),
        "skip",
        reading_of(reader.data),
        one_size=images.patches is None,
        dims=images.dims,
    )


def parts(arrays: Arrays, random: np.random.Generator, *, own_test: bool) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows held out, patients apart."""
    if own_test:
        is_test = np.array([case.split == "test" for case in arrays.cases])
    else:
        patients = np.array([case.patient for case in arrays.cases])
        names = random.permutation(np.unique(patients))
        is_test = np.isin(patients, names[: max(1, len(names) // 5)])
    train = random.permutation(np.flatnonzero(~is_test))
    return train.tolist(), np.flatnonzero(is_test).tolist()


def rows_warned(usual: Usual, arrays: Arrays, rows: Sequence[int]) -> list[bool]:
    """Of each row whether it is warned of."""
    return [bool(usual.remarks(seen_row(arrays, row))) for row in rows]


def changed_warned(
    usual: Usual, bundle: Bundle, arrays: Arrays, rows: Sequence[int], steps: Sequence[Step],
    change: Callable[[Placed], Placed],
) -> list[bool]:  # fmt: skip
    """The same of files that are changed before preprocessing, by the path of `predict`."""
    warned = []
    for row in rows:
        case = arrays.cases[row]
        for part in read_case(case, digest_of(case), reading_of(bundle.data)).images[:1]:
            other = change(part.image)
            warned.append(bool(usual.remarks(seen_of(prepared(other, steps), other))))
    return warned


if __name__ == "__main__":
    main()
