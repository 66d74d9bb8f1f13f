"""The path of a run, from a bundle to a measured, explained, portable model."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from . import surroundings
from .bundle.components import build, check_components
from .bundle.parser import load_bundle, to_yaml
from .bundle.schema import Bundle
from .data import presets, sources
from .data.advice import advice_on_grids, advice_on_parts
from .data.augment import Augment
from .data.cache import Arrays, cache_arrays
from .data.cases import Found, find_cases
from .data.leaks import find_duplicates
from .data.patches import samples_of
from .data.sampling import reading_of
from .data.splits import Splits, read_split_file, split_by_patient
from .data.usual import usual_of
from .encoders.first_batch import check_first_batch
from .encoders.loading import create_encoder
from .errors import ConfigError, DataError, MedxferError, RunError
from .export.trained_export import export_run
from .files import require_space
from .networks.network import Network
from .networks.starting import Started, start_from
from .plugin import Encoder
from .progress import Progress, log_to
from .reports.html import write_report
from .reports.model_card import write_model_card
from .reports.pictures import save_pictures
from .run_folder import RunFolder
from .tasks.base import Predictions, Task, labels_of, named, require_fitting
from .trained import Trained, open_run, predict_rows
from .training.distributed import World, world_of_environment
from .training.phases import Setup, train_phases
from .training.precision import Chosen, Precision, choose_precision

FIRST_BATCH = 64  # training images looked at before training, and fewer of large ones:
FIRST_VOXELS = 2**23
PICTURES = 6  # best and worst cases shown in the report, of each


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks of a run beside the bundle."""

    out: Path | None = None
    device: str = "auto"
    split_file: Path | None = None
    command: Sequence[str] = ()


def run_bundle(
    bundle: Bundle | Path | str,
    request: Request | None = None,
    say: Progress | None = None,
) -> RunFolder:
    """Train and measure what a bundle describes.

    Args:
        bundle: Loaded, or the path of its folder or YAML file.
        request: Run folder, device, a given split.
        say: Where progress goes.

    Returns:
        The finished run's folder; `read("scores.json")` has the scores.

    Raises:
        MedxferError: As its kinds say; refused before training, nothing is left behind.
    """
    request, say = request or Request(), say or Progress()
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    with world_of_environment(request.device) as world:
        say = say if world.first else Progress(quiet=True)
        device = surroundings.pick_device(request.device, world.local_rank)
        own = request.out is not None and request.out.is_dir()  # a folder of the user's, never removed
        root = RunFolder.create(request.out, loaded.name).root if world.first else None
        folder = RunFolder(Path(world.agree(root) or "."))
        with _owned(folder, world), _removed_if_refused(folder, world, keep=own):
            setup, facts = _prepare(loaded, folder, device, world, request, say)
        with _owned(folder, world), _told(folder, world, say):
            _train_and_tell(setup, facts, say)
    return folder


def resume_run(
    root: Path, *, device: str = "auto", accept_changes: bool = False, say: Progress | None = None
) -> RunFolder:
    """Go on with a run that was killed or interrupted.

    Raises:
        RunError: Versions, configuration or data changed since; data never may, the rest with `accept_changes`.
    """
    say = say or Progress()
    folder = RunFolder.open(root)
    if folder.read("run.json").get("status") == "done":
        say(f"{root} is finished already")
        return folder
    surroundings.refuse_changes(folder, accept_changes=accept_changes, say=say)
    bundle = load_bundle(folder.path("config.yaml"), trust=bool(folder.read("run.json").get("trusted")))
    with world_of_environment(device) as world:
        say = say if world.first else Progress(quiet=True)
        place = surroundings.pick_device(device, world.local_rank)
        split_file = folder.path("split.csv") if folder.has("split.csv") else None
        with _owned(folder, world), _told(folder, world, say):
            if world.first:
                folder.update(resumed=int(folder.read("run.json").get("resumed", 0)) + 1)
            setup, facts = _prepare(bundle, folder, place, world, Request(split_file=split_file), say)
            _train_and_tell(setup, facts, say)
    return folder


def _prepare(
    bundle: Bundle, folder: RunFolder, device: torch.device, world: World, request: Request, say: Progress
) -> tuple[Setup, Facts]:
    """From the bundle to a network that is ready to train, each decision written down before the next."""
    facts = Facts(started=time.monotonic())
    check_components(bundle)
    task: Task = build(bundle.task, kind="task", trusted=bundle.trusted)
    require_fitting(task, bundle)
    bundle = presets.fill_in(bundle)
    torch.manual_seed(bundle.seed)
    # Before the data: a misspelt encoder or a wrong file is told in seconds.
    encoder, receipt = create_encoder(bundle.encoder, spatial_dims=bundle.images.network_dims, say=say)
    facts.seconds["encoder"] = facts.lap()
    material = _gather(bundle, task, request.split_file, say)
    arrays, train = material.arrays, list(material.splits["train"])
    facts.seconds["read"] = facts.lap()
    pretrained = bundle.encoder.weights != "none" or bundle.start is not None
    first = _first_images(material, bundle)
    advice = check_first_batch(first, encoder, pretrained=pretrained, preset=bundle.images.preset)
    network, started = _network_of(bundle, encoder, task)
    network.to(device)
    require_space(folder.root, 5 * sum(p.numel() * 4 for p in network.parameters()) + 20_000_000)
    task.prepare(material.targets[train] if material.targets is not None else _maps_of(arrays, train))
    chosen = world.agree(
        choose_precision(
            network,
            first[: min(8, bundle.training.batch)].to(device),
            precision=bundle.training.precision,
            memory_format=bundle.training.memory_format,
            backward=any(phase.train != "head" for phase in bundle.phases),
        )
    )
    bundle = _resolved(bundle, receipt.options, chosen, statistics="keep" if pretrained else "update")
    material.notes.extend(advice)
    for note in material.notes:
        say(f"note: {note}")
    if world.first and not folder.has("config.yaml"):
        folder.write("split.csv", material.splits.rows(arrays, material.namer(folder)))
        folder.write(
            "receipt.json", receipt.to_json() | ({} if started is None else {"start": started.to_json()})
        )
        folder.write("run.json", surroundings.describe_run(bundle, request.command, device, world.size))
        folder.update(
            chosen={"precision": {"value": chosen.precision, "why": chosen.why},
                    "memory_format": {"value": chosen.memory_format, "why": chosen.why}},
            data=material.describe(bundle, task),
            refused=[dataclasses.asdict(one) for one in arrays.refused],
        )  # fmt: skip
        folder.write("config.yaml", to_yaml(bundle))
        surroundings.seal_config(folder)
    say(receipt.table() if started is None else started.table())
    facts.seconds["prepare"] = facts.lap()
    precision = Precision(chosen.precision, chosen.memory_format, device, bundle.images.network_dims)
    precision.place(network)
    augment = Augment(bundle.images.augment, trusted=bundle.trusted) if bundle.images.augment else None
    setup = Setup(
        network=network, task=task, bundle=bundle, arrays=arrays, targets=material.targets, splits=material.splits,
        augment=augment, precision=precision, device=device, world=world, folder=folder, say=say,
    )  # fmt: skip
    return setup, facts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """What training has to work with."""

    found: Found
    arrays: Arrays
    splits: Splits
    targets: torch.Tensor | None  # None: the arrays' maps are the labels
    notes: list[str]  # what a reader of the report should know, as sentences

    def namer(self, folder: RunFolder) -> Callable[[str, str], str]:
        """What a case or patient is called in files that people read: pseudonyms for DICOM, else paths and keys."""
        return folder.pseudonym if self.found.has_dicom else lambda _prefix, text: text

    def describe(self, bundle: Bundle, task: Task) -> dict[str, object]:
        """The data's part of run.json."""
        return {
            "source": bundle.data.source,
            "kind": sources.kind_of(bundle.data.source),
            "patient_key": self.found.patient_key,
            "notes": self.notes,
            "classes": dict(Counter(task.class_of(case) for case in self.arrays.cases)),
            "accept_leak": bundle.data.accept_leak,
        }


def _gather(bundle: Bundle, task: Task, split_file: Path | None, say: Progress) -> _Material:
    """Cases, their pixels, their splits."""
    found = find_cases(bundle.data, sources.folder_of(bundle.data.source, say), masks=task.masks is not None)
    steps = presets.steps_of(bundle.images, bundle.encoder.in_channels, trusted=bundle.trusted)
    reading, on_bad_image = reading_of(bundle.data), bundle.data.on_bad_image
    arrays = cache_arrays(
        found.cases, steps, bundle.images.store, say, on_bad_image, reading,
        masks=task.masks, one_size=bundle.images.patches is None, dims=bundle.images.dims,
    )  # fmt: skip
    splits = _split(bundle, arrays, task, split_file)
    say(f"{len(arrays.cases)} images ({found.layout}); patients told apart by {found.patient_key}")
    targets = labels_of(task, arrays)
    advice = advice_on_grids(arrays, bundle.images, has_dicom=found.has_dicom)
    advice += advice_on_parts(arrays, splits.rows_of)
    notes = [*found.notes, *splits.notes, *arrays.warnings, *advice]
    return _Material(found=found, arrays=arrays, splits=splits, targets=targets, notes=notes)


def _network_of(bundle: Bundle, encoder: Encoder, task: Task) -> tuple[Network, Started | None]:
    """Encoder and head, from another trained network where the bundle names one."""
    network = Network(encoder, task.head(encoder), window=bundle.images.shape, flips=task.flips)
    if bundle.start is None:
        return network, None
    return network, start_from(network, open_run(bundle.start).network, bundle.start)


def _first_images(material: _Material, bundle: Bundle) -> torch.Tensor:
    """Some training images, or patches of them, as the network will see them."""
    count = max(1, min(FIRST_BATCH, FIRST_VOXELS // math.prod(bundle.images.shape)))
    rows = np.array(material.splits["train"][:count])
    samples = samples_of(material.arrays, material.targets, bundle.images)
    return samples.take(rows, range(len(rows)))[0]


def _maps_of(arrays: Arrays, rows: Sequence[int]) -> list[np.ndarray]:
    assert arrays.maps is not None
    return [arrays.maps[row] for row in rows]


def _resolved(
    bundle: Bundle, options: Mapping[str, object], chosen: Chosen, statistics: Literal["keep", "update"]
) -> Bundle:
    """The bundle with every `auto` decided, so that its configuration gives this run again."""
    phases = tuple(
        dataclasses.replace(phase, statistics=statistics) if phase.statistics == "auto" else phase
        for phase in bundle.phases
    )
    training = dataclasses.replace(
        bundle.training, precision=chosen.precision, memory_format=chosen.memory_format
    )
    encoder = dataclasses.replace(bundle.encoder, options=dict(options))
    return dataclasses.replace(bundle, phases=phases, training=training, encoder=encoder)


def _split(bundle: Bundle, arrays: Arrays, task: Task, split_file: Path | None) -> Splits:
    """Patients and duplicates apart; a given manifest first."""
    cases, spec = list(arrays.cases), bundle.data.split
    if split_file is not None:
        cases = read_split_file(split_file, cases, arrays.sha256)
        spec = dataclasses.replace(spec, folds=None)  # the file says it all: nothing is dealt anew
    return split_by_patient(
        cases,
        find_duplicates(arrays),
        spec,
        seed=bundle.seed,
        accept_leak=bundle.data.accept_leak,
        label_of=task.class_of,
    )


def _train_and_tell(setup: Setup, facts: Facts, say: Progress) -> None:
    """Train, then measure, explain and export on the first process."""
    before = train_phases(setup)
    facts.seconds["training"] = facts.lap() + before
    facts.started -= before
    if not setup.world.first:
        return
    folder, task = setup.folder, setup.task
    policy = reading_of(setup.bundle.data).policy
    predictions: dict[str, Predictions] = {
        name: predict_rows(
            setup.network, task, setup.whole(setup.splits[name], 64), setup.arrays, policy, say, name
        )
        for name in ("val", "test")
    }
    calibration = task.calibrate(predictions["val"], setup.bundle.training.threshold)
    finished = {name: task.finish(one, calibration) for name, one in predictions.items()}
    for name in ("val", "test"):
        rows = task.rows(finished[name], calibration)
        for number, row in enumerate(rows):
            written = task.write(finished[name], number, folder.root / "predictions" / "masks" / name)
            if written:
                row["mask"] = named(written, folder.root / "predictions")
        folder.write(f"predictions/{name}.csv", rows)  # type: ignore[arg-type]
    facts.seconds["predict"] = facts.lap()
    folder.write("scores.json", task.score(finished, calibration, seed=setup.bundle.seed))
    folder.write("figures.json", [one.to_plain() for one in task.figures(finished, calibration)])
    facts.seconds["score"] = facts.lap()
    _draw_cases(setup, finished["test"], calibration)
    trained = Trained(
        bundle=setup.bundle,
        task=task,
        network=setup.network,
        steps=presets.steps_of(
            setup.bundle.images, setup.bundle.encoder.in_channels, trusted=setup.bundle.trusted
        ),
        calibration=calibration,
        usual=usual_of(setup.arrays, setup.splits["train"]),
    )
    if trained.usual is not None:
        folder.write("training_images.json", trained.usual.to_plain())
    export_run(folder, trained)
    facts.seconds["export"] = facts.lap()
    folder.update(status="done", seconds=facts.rounded())
    write_model_card(folder)
    write_report(folder)


def _draw_cases(setup: Setup, test: Predictions, calibration: dict[str, object]) -> None:
    """Pictures of the best and worst test cases with what explains them."""
    rows, arrays = setup.splits["test"], setup.arrays
    pictures = setup.task.pictures(
        setup.network, lambda index: arrays.batch([rows[index]])[0], test, calibration, PICTURES
    )
    shown = {row["case"]: row["shown"] for row in setup.folder.read("split.csv")}
    save_pictures(setup.folder, pictures, [shown[case] for case in test.ids])


@dataclasses.dataclass(slots=True, kw_only=True)
class Facts:
    """Seconds by part of the run; of a resumed one training is the sum over its parts."""

    started: float
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    _last: float = dataclasses.field(default_factory=time.monotonic)

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return passed

    def rounded(self) -> dict[str, float]:
        """For run.json, the whole included."""
        whole = {**self.seconds, "whole": time.monotonic() - self.started}
        return {name: round(value, 1) for name, value in whole.items()}


@contextlib.contextmanager
def _owned(folder: RunFolder, world: World) -> Iterator[None]:
    """The lock and the log of a run folder, on the process that writes."""
    if not world.first:
        yield
        return
    with folder.lock(), log_to(folder.path("log.txt")):
        yield


@contextlib.contextmanager
def _removed_if_refused(folder: RunFolder, world: World, *, keep: bool) -> Iterator[None]:
    """A run that is refused before training leaves no folder behind, or an empty one that was there before."""
    try:
        yield
    except BaseException:
        if world.first:
            for path in folder.root.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            if not keep:
                folder.root.rmdir()
                if folder.root.parent == Path("runs"):
                    with contextlib.suppress(OSError):  # other runs are in it
                        folder.root.parent.rmdir()
        raise


@contextlib.contextmanager
def _told(folder: RunFolder, world: World, say: Progress) -> Iterator[None]:
    """Write down how a run ended, and how to go on with it."""
    if not world.first:
        yield
        return
    try:
        yield
    except (KeyboardInterrupt, MedxferError) as error:
        with contextlib.suppress(RunError, DataError, ConfigError):
            folder.update(status="interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        say(f"to go on: medxfer run --resume {folder.root}")
        raise
