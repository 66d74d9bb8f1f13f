"""The recipe: phase after phase, best network by the key metric on val, resumable after every epoch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..bundle.schema import Bundle, PhaseSpec
from ..data.augment import Augment
from ..data.cache import Arrays
from ..data.loaders import Batches
from ..data.splits import Splits
from ..errors import RunError
from ..networks.freezing import prepare_phase
from ..networks.network import Network
from ..progress import Progress
from ..run_folder import RunFolder
from ..tasks.base import Predictions, Task
from . import checkpoint
from .distributed import World
from .engine import BatchSource, optimiser_of, outputs_of, train_epoch
from .features import FeatureBatches, compute_features
from .precision import Precision

STANDARDISE_ROWS = 1024  # training images whose features give the head its mean and spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that training needs; nothing in it changes but the network's weights."""

    network: Network
    task: Task
    bundle: Bundle
    arrays: Arrays
    targets: Tensor  # per row of the arrays
    splits: Splits
    augment: Augment | None
    precision: Precision
    device: torch.device
    world: World
    folder: RunFolder
    say: Progress

    def batches(
        self,
        rows: Sequence[int],
        batch: int,
        *,
        augment: bool = False,
        shuffle: bool = False,
        shared: bool = False,
    ) -> Batches:
        """Batches of images; `shared` gives each process its part."""
        return Batches(
            self.arrays,
            self.targets,
            rows,
            batch,
            seed=self.bundle.seed,
            augment=self.augment if augment else None,
            device=self.device,
            memory_format=self.precision.torch_format,
            shuffle=shuffle,
            rank=self.world.rank if shared else 0,
            world=self.world.size if shared else 1,
        )


@dataclass(slots=True, kw_only=True)
class Standing:
    """How far training has come; what a checkpoint holds beside the tensors."""

    phase: int = 0
    epoch: int = 0  # epochs of this phase that are done
    best: float = float("-inf")
    since: int = 0  # epochs of this phase without a better one
    history: list[dict[str, Any]] = field(default_factory=list)


def train_phases(setup: Setup) -> None:
    """Run every phase and leave the best network's weights in `setup.network`.

    Goes on from `checkpoints/last.pt` where there is one. After every epoch the run folder holds the state that
    the next one starts from, so that a killed run continues bit for bit on a CPU.

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


def _standardise_head(setup: Setup) -> None:
    """Give the head the statistics of training features, in the mode in which the first phase runs the encoder."""
    first = setup.bundle.phases[0]
    rows = setup.splits["train"]
    step = max(1, len(rows) // STANDARDISE_ROWS)
    prepare_phase(setup.network, first)
    network = copy.deepcopy(setup.network).train(
        first.train != "head"
    )  # batch-norm must not move in the original
    with torch.no_grad():
        parts = []
        for batch in setup.batches(rows[::step], 64).epoch(0):
            with setup.precision.autocast():
                parts.append(network.features(batch.images).float())
    setup.network.head.standardise(torch.cat(parts))  # type: ignore[operator]  # a Head


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
    frozen = len(network.frozen) == len(network.encoder.stages)
    train, val = _sources(setup, phase, frozen)
    trained: nn.Module = network.head if frozen else network
    model = world.spread(trained)
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
            val_loss, value = world.agree(_validate(setup, trained, val))
            _record(setup, phase, standing, world.mean(loss), val_loss, value)
            if world.first:
                _keep(setup, standing, optimiser)


def _is_patient_no_more(phase: PhaseSpec, standing: Standing) -> bool:
    return bool(phase.patience) and standing.since >= (phase.patience or 0)


def _sources(setup: Setup, phase: PhaseSpec, frozen: bool) -> tuple[BatchSource, BatchSource]:
    """Training and validation batches: of cached features where the whole encoder is frozen."""
    batch = phase.batch or setup.bundle.training.batch
    train_rows, val_rows = setup.splits["train"], setup.splits["val"]
    if not frozen:
        train = setup.batches(train_rows, batch, augment=True, shuffle=True, shared=True)
        return train, setup.batches(val_rows, 2 * batch)
    views = [
        compute_features(
            setup.network,
            setup.batches(train_rows, 64, augment=view > 0),
            setup.precision,
            setup.say,
            view=view,
        )
        for view in range(phase.views)
    ]
    of_val = compute_features(setup.network, setup.batches(val_rows, 64), setup.precision, setup.say, view=0)

    def ids(rows: Sequence[int]) -> list[str]:
        return [setup.arrays.cases[row].id for row in rows]

    seed, world, device = setup.bundle.seed, setup.world, setup.device
    cached = FeatureBatches(
        views,
        setup.targets[list(train_rows)],
        train_rows,
        ids(train_rows),
        batch,
        seed=seed,
        device=device,
        rank=world.rank,
        world=world.size,
    )
    return cached, FeatureBatches(
        [of_val],
        setup.targets[list(val_rows)],
        val_rows,
        ids(val_rows),
        len(val_rows),
        seed=seed,
        device=device,
    )


def _validate(setup: Setup, model: nn.Module, val: BatchSource) -> tuple[float, float]:
    """Loss and key metric on val, in training's precision."""

    def predict(images: Tensor) -> Tensor:
        with setup.precision.autocast():
            output: Tensor = model(images)
        return output

    outputs, targets = outputs_of(predict, val, _nothing)
    predictions = Predictions(ids=(), files=(), patients=(), labels=targets.numpy(), outputs=outputs)
    loss = setup.task.loss(torch.from_numpy(outputs).to(setup.device), targets.to(setup.device))
    return float(loss), setup.task.measure(predictions)


def _nothing(steps: int = 1, note: str = "") -> None:
    """Validation shows no bar of its own."""


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
        "standing": dataclasses.asdict(standing),
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
