"""The recipe: phase after phase, best network by the key metric on val, resumable after every epoch."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..bundle.schema import Bundle, PhaseSpec
from ..data.augment import Augment
from ..data.cache import Arrays
from ..data.loaders import Batches
from ..data.patches import Samples, WholeImages, samples_of
from ..data.splits import Splits
from ..errors import RunError
from ..networks.freezing import prepare_phase
from ..networks.network import Network
from ..progress import Progress
from ..run_folder import RunFolder
from ..tasks.base import Task
from . import checkpoint
from .distributed import World
from .engine import BatchSource, answers_of, optimiser_of, train_epoch
from .features import FeatureBatches, compute_features, fits_in_memory
from .precision import Precision

FEATURE_BATCH = 64  # images at a time whose features are computed, and fewer of large ones:
FEATURE_VOXELS = 2**22
STANDARDISE_ROWS = 1024  # training images whose features give the head its mean and spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that training needs; nothing in it changes but the network's weights."""

    network: Network
    task: Task
    bundle: Bundle
    arrays: Arrays
    targets: Tensor | None  # a label per row of the arrays; None: their maps are the labels
    splits: Splits
    augment: Augment | None
    precision: Precision
    device: torch.device
    world: World
    folder: RunFolder
    say: Progress
    begun: float = field(default_factory=time.monotonic)  # when this part of the run began to train

    def batches(
        self,
        rows: Sequence[int],
        batch: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        shared: bool = False,
    ) -> Batches:
        """Batches of what training sees, images or patches; `shared` gives each process its part."""
        samples = samples_of(self.arrays, self.targets, self.bundle.images)
        return self._batches(
            samples,
            rows,
            batch,
            memory_format=self.precision.torch_format,
            augment=self.augment if augment else None,
            shuffle=shuffle,
            rank=self.world.rank if shared else 0,
            world=self.world.size if shared else 1,
        )

    @property
    def at_once(self) -> int:
        """Images or patches that a frozen encoder is given in one go."""
        return max(1, min(FEATURE_BATCH, FEATURE_VOXELS // math.prod(self.bundle.images.shape)))

    def whole(self, rows: Sequence[int], batch: int) -> Batches:
        """Batches of whole images in their order; one by one where their sizes differ."""
        samples = WholeImages(self.arrays, self.targets)
        # a volume of which the network sees planes has no format of pictures
        is_seen_whole = self.bundle.images.thin is None
        return self._batches(
            samples,
            rows,
            self.arrays.together(batch),
            memory_format=self.precision.torch_format if is_seen_whole else torch.contiguous_format,
            augment=None,
            shuffle=False,
        )

    def _batches(
        self, samples: Samples, rows: Sequence[int], batch: int, *, rank: int = 0, world: int = 1, **how: Any
    ) -> Batches:
        return Batches(
            self.arrays,
            samples,
            rows,
            batch,
            seed=self.bundle.seed,
            device=self.device,
            rank=rank,
            world=world,
            **how,
        )


@dataclass(slots=True, kw_only=True)
class Standing:
    """How far training has come; what a checkpoint holds beside the tensors."""

    phase: int = 0
    epoch: int = 0  # epochs of this phase that are done
    best: float = float("-inf")
    since: int = 0  # epochs of this phase without a better one
    seconds: float = 0.0  # of training in the parts of the run before this one, as far as it was kept
    history: list[dict[str, Any]] = field(default_factory=list)


def train_phases(setup: Setup) -> float:
    """Run every phase and leave the best network's weights in `setup.network`.

    Goes on from `checkpoints/last.pt` where there is one. After every epoch the run folder holds the state that
    the next one starts from, so that a killed run continues bit for bit on a CPU.

    Returns:
        Seconds that a run which was killed had trained before, up to its last checkpoint.

    Raises:
        RunError: A loss that is not finite, or a damaged checkpoint.
    """
    standing, state = Standing(), checkpoint.load_last(setup.folder, setup.say)
    if state is None:
        _standardise_head(setup)
    else:
        setup.network.load_state_dict(state["network"])
        standing = Standing(**state["standing"])
        setup.say(f"resuming in phase {standing.phase + 1}, after {standing.epoch} of its epochs")
    for number in range(standing.phase, len(setup.bundle.phases)):
        if number > standing.phase:
            standing = dataclasses.replace(standing, phase=number, epoch=0, since=0)
            state = None
        _train_phase(setup, setup.bundle.phases[number], standing, state)
    best = checkpoint.load(setup.folder.path("checkpoints/best.pt"))
    setup.network.load_state_dict(best)
    setup.network.eval()
    return standing.seconds


def _standardise_head(setup: Setup) -> None:
    """Give the head the statistics of training features, in the mode in which the first phase runs the encoder."""
    first = setup.bundle.phases[0]
    rows = setup.splits["train"]
    step = max(1, len(rows) // STANDARDISE_ROWS)
    prepare_phase(setup.network, first)
    network = copy.deepcopy(setup.network).train(
        first.train != "head"
    )  # batch-norm must not move in the original

    def features() -> Iterator[Any]:
        for batch in setup.batches(rows[::step], setup.at_once).epoch(0):
            with setup.precision.autocast():
                yield network.features(batch.images)

    with torch.no_grad():
        setup.network.head.standardise(features())  # type: ignore[operator]  # a Head


def _train_phase(setup: Setup, phase: PhaseSpec, standing: Standing, state: dict[str, Any] | None) -> None:
    """Train one phase from where `standing` says, writing a checkpoint after each epoch."""
    network, world = setup.network, setup.world
    groups = prepare_phase(network, phase)
    setup.precision.place(network)
    for module in network.head.modules():
        if isinstance(module, nn.Dropout) and phase.dropout is not None:
            module.p = phase.dropout
    optimiser = optimiser_of(groups)
    if state is not None and state["optimiser"] is not None:
        optimiser.load_state_dict(state["optimiser"])
        setup.precision.scaler.load_state_dict(state["scaler"])
    if standing.epoch >= phase.epochs or _is_patient_no_more(phase, standing):
        return
    train, val = _sources(setup, phase)
    model = world.spread(network.head if isinstance(train, FeatureBatches) else network)
    total = (phase.epochs - standing.epoch) * len(train)
    with setup.say.bar(f"phase {phase.name}", total) as advance:
        while standing.epoch < phase.epochs and not _is_patient_no_more(phase, standing):
            network.train()
            loss = train_epoch(
                model,
                train,
                setup.task.loss,
                optimiser,
                setup.precision,
                phase,
                epoch=standing.epoch,
                seed=setup.bundle.seed * 100 + standing.phase,
                advance=advance,
            )
            network.eval()
            val_loss, value = world.agree(_validate(setup, val))
            _record(setup, phase, standing, world.mean(loss), val_loss, value)
            if world.first:
                _keep(setup, standing, optimiser)


def _is_patient_no_more(phase: PhaseSpec, standing: Standing) -> bool:
    return bool(phase.patience) and standing.since >= (phase.patience or 0)


def _sources(setup: Setup, phase: PhaseSpec) -> tuple[BatchSource, BatchSource]:
    """Training and validation batches: of cached features where the whole encoder is frozen and they fit."""
    batch = phase.batch or setup.bundle.training.batch
    train_rows, val_rows = setup.splits["train"], setup.splits["val"]
    whole_val = setup.whole(val_rows, 2 * batch)
    if len(setup.network.frozen) == len(setup.network.encoder.stages):
        seen = setup.batches(train_rows, setup.at_once)
        if fits_in_memory(setup.network, seen, setup.precision, views=phase.views):
            cached = _cached(setup, phase, train_rows, batch)
            is_whole = setup.bundle.images.patches is None
            return cached, _cached_val(setup, val_rows, 2 * batch) if is_whole else whole_val
        setup.say(
            f"phase {phase.name}: features of the frozen encoder exceed the memory for them, not cached"
        )
    return setup.batches(train_rows, batch, augment=True, shuffle=True, shared=True), whole_val


def _cached(setup: Setup, phase: PhaseSpec, rows: Sequence[int], batch: int) -> FeatureBatches:
    """Features of the training rows; all views but the first are augmented."""
    sources = [setup.batches(rows, setup.at_once, augment=view > 0) for view in range(phase.views)]
    views = [
        compute_features(setup.network, one, setup.precision, setup.say, view=view)
        for view, one in enumerate(sources)
    ]
    world, seen = setup.world, sources[0].rows
    return FeatureBatches(
        views,
        seen,
        [setup.arrays.cases[row].id for row in seen],
        batch,
        seed=setup.bundle.seed,
        device=setup.device,
        rank=world.rank,
        world=world.size,
    )


def _cached_val(setup: Setup, rows: Sequence[int], batch: int) -> FeatureBatches:
    """Features of whole validation images."""
    view = compute_features(
        setup.network, setup.whole(rows, setup.at_once), setup.precision, setup.say, view=0
    )
    ids = [setup.arrays.cases[row].id for row in rows]
    return FeatureBatches([view], rows, ids, batch, seed=setup.bundle.seed, device=setup.device)


def _validate(setup: Setup, val: BatchSource) -> tuple[float, float]:
    """Loss and key metric on val, in training's precision."""
    network = setup.network

    def predict(images: Any) -> Tensor:
        # without flips: features have none, and each epoch would cost as often as many passes
        with setup.precision.autocast(), network.without_flips():
            if isinstance(val, FeatureBatches):
                output: Tensor = network.head(images)
                return output
            return setup.task.predict(network, images)

    return setup.task.validate(answers_of(predict, val))


def _record(
    setup: Setup, phase: PhaseSpec, standing: Standing, loss: float, val_loss: float, value: float
) -> None:
    """One more epoch is done: history, best, patience."""
    standing.epoch += 1
    better = value > standing.best
    standing.best = max(value, standing.best)
    standing.since = 0 if better else standing.since + 1
    metric = setup.task.key_metric
    standing.history.append(
        {
            "phase": phase.name,
            "epoch": standing.epoch,
            "rate": phase.lr,
            "train_loss": loss,
            "val_loss": val_loss,
            f"val_{metric}": value,
            "best": int(better),
        }
    )
    setup.say(
        f"{phase.name} {standing.epoch}/{phase.epochs}: loss {loss:.4f}, val loss {val_loss:.4f}, "
        f"val {metric} {value:.4f}{' (best so far)' if better else ''}"
    )


def _keep(setup: Setup, standing: Standing, optimiser: torch.optim.Optimizer) -> None:
    """Write best, then last: a kill between them repeats the epoch and writes the same best again."""
    weights = setup.network.state_dict()
    if standing.history[-1]["best"]:
        checkpoint.save(setup.folder.path("checkpoints/best.pt"), weights)
    elif not setup.folder.has("checkpoints/best.pt"):
        raise RunError(
            "validation",
            f"{setup.task.key_metric} is {standing.history[-1][f'val_{setup.task.key_metric}']}",
            "a number",
            "give val cases of every class: raise data.split.val",
        )
    state = {
        "network": weights,
        "optimiser": optimiser.state_dict(),
        "scaler": setup.precision.scaler.state_dict(),
        "standing": dataclasses.asdict(standing)
        | {"seconds": standing.seconds + time.monotonic() - setup.begun},
    }
    checkpoint.save_last(setup.folder, state)
    setup.folder.write("history.csv", standing.history)
    _write_tensorboard(setup.folder, standing.history)


def _write_tensorboard(folder: RunFolder, history: list[dict[str, Any]]) -> None:
    """The last row of the history as scalars; the step counts epochs over all phases."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    row, step = history[-1], len(history)
    values = [
        Summary.Value(tag=k, simple_value=float(v)) for k, v in row.items() if k not in ("phase", "epoch")
    ]
    writer = EventFileWriter(str(folder.root / "tensorboard"))
    writer.add_event(Event(step=step, summary=Summary(value=values)))
    writer.close()
