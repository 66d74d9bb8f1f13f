"""A finished run or an exported bundle, opened again: predict and evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .bundle.components import build
from .bundle.parser import load_bundle
from .bundle.schema import Bundle, DataSpec
from .data.cache import Arrays, cache_arrays
from .data.cases import existing_folder, find_cases
from .data.image import shown
from .data.inputs import Input, inputs_of, inputs_of_table, read_input
from .data.loaders import Batches
from .data.placed import Placed
from .data.presets import Step, prepared, steps_of
from .data.sampling import reading_of
from .encoders.rebuild import rebuild_encoder
from .errors import ConfigError, DataError, WeightsError
from .networks.network import Network
from .progress import Progress
from .run_folder import RunFolder
from .tasks.base import Predictions, Scores, Task
from .training.checkpoint import load
from .training.engine import outputs_of

_AT_ONCE = 2**21  # pixels or voxels that the network gets: 32 pictures of 256 x 256, one volume of 128 a side


def predict_rows(
    network: Network, task: Task, batches: Batches, arrays: Arrays, say: Progress, title: str
) -> Predictions:
    """Outputs for some rows of the arrays, in fp32 whatever the training used.

    Args:
        network: In evaluation mode.
        task: Reads the labels, runs the network.
        batches: Unshuffled and not augmented.
        arrays: Where the rows come from.
        say: Shows a bar.
        title: Of the bar.
    """
    network.eval()
    with say.bar(f"predictions, {title}", len(batches)) as advance:
        outputs, targets = outputs_of(lambda images: task.predict(network, images), batches, advance)
    cases = [arrays.cases[row] for row in batches.rows]
    return Predictions(
        ids=tuple(case.id for case in cases),
        files=tuple(str(case.images[0]) for case in cases),
        patients=tuple(case.patient for case in cases),
        labels=targets.numpy(),
        outputs=outputs,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained network with everything that its predictions need."""

    bundle: Bundle
    task: Task
    network: Network
    steps: tuple[Step, ...]
    calibration: Mapping[str, Any]

    def predict(
        self,
        paths: Sequence[Path | str] = (),
        *,
        table: Path | str | None = None,
        batch: int = 32,
        say: Progress | None = None,
    ) -> list[dict[str, object]]:
        """Probabilities and the decision for image files, folders of them, or the rows of a table.

        Args:
            paths: Files, or folders that are walked as `inspect` walks them: each DICOM series is one volume.
            table: CSV file with the columns of files that the training table had (`data.images`), labels or none; its
                paths are relative to it. Where cases are several files, each row joins its own as channels.
            batch: Files at a time; of volumes an eighth.
            say: Shows a bar, and what was set aside in folders.

        Returns:
            One row a case (a slice, where the bundle cuts volumes), in order: `file` (escaped where it would break a
            line), `p_CLASS`..., `predicted`, `status` (`ok`, `warned` or `refused`) and `reason`. A bad file is a row
            with its reason; the others go on.

        Raises:
            DataError: No such table, or one without these columns.
        """
        volumes = self.bundle.images.dims == 3 or self.bundle.data.slices is not None
        say, notes = say or Progress(quiet=True), list[str]()
        inputs = inputs_of([Path(path) for path in paths], self.bundle.data, volumes=volumes, notes=notes)
        if table is not None:
            inputs += inputs_of_table(Path(table), self.bundle.data, notes)
        for note in notes:
            say(note)
        rows: list[dict[str, object]] = []
        batch = max(1, batch // 8) if volumes else batch
        with say.bar("predict", len(inputs)) as advance:
            for begin in range(0, len(inputs), batch):
                rows += self._predict_inputs(inputs[begin : begin + batch])
                advance(len(inputs[begin : begin + batch]))
        return rows

    def _predict_inputs(self, inputs: Sequence[Input]) -> list[dict[str, object]]:
        """A row an image: one a case, or one a slice where the bundle cuts volumes."""
        empty = dict.fromkeys(self._columns())
        names: list[str] = []
        images: list[Tensor | None] = []
        notes: list[tuple[str, str]] = []
        for one in inputs:
            try:
                parts = read_input(one, self.bundle.data)
                prepared_parts = [self._ready(one.name, part.image) for part in parts.images]
            except DataError as error:
                names, images = [*names, one.name], [*images, None]
                notes.append(("refused", "; ".join(part for part in (error.seen, error.todo) if part)))
                continue
            names += [f"{one.name}{part.suffix}" for part in parts.images]
            images += prepared_parts
            told = ("warned", "; ".join(parts.warnings)) if parts.warnings else ("ok", "")
            notes += [told] * len(prepared_parts)
        read = [(name, image) for name, image in zip(names, images, strict=True) if image is not None]
        said = self._rows_of([name for name, _ in read], [image for _, image in read])
        rows: list[dict[str, object]] = []
        for name, image, (status, reason) in zip(names, images, notes, strict=True):
            row = dict(said.pop(0)) if image is not None else {**empty, "file": name}
            row.pop("case", None)
            row.pop("label", None)
            rows.append({**row, "status": status, "reason": shown(reason)})
        return rows

    def _ready(self, name: str, image: Placed) -> Tensor:
        """What the network sees.

        Raises:
            DataError: A picture where the network looks at volumes or the other way round, or one file of several
                that are channels.
        """
        seen, accepted = (
            "picture" if dims == 2 else "volume" for dims in (len(image.shape), self.bundle.images.dims)
        )
        if seen != accepted:
            raise DataError(name, f"a {seen}", f"a {accepted}", f"this network looks at {accepted}s")
        slices, files = self.bundle.data.slices, len(self.bundle.data.images or ())
        count = files * (1 if slices is None else 2 * slices.context + 1)
        if files > 1 and image.values.shape[0] < count:  # one of them would be repeated as all channels
            seen = "1 channel" if image.values.shape[0] == 1 else f"{image.values.shape[0]} channels"
            accepted = f"one file with {files} channels"
            names = ", ".join(self.bundle.data.images or ())
            todo = (
                f"name a table with the columns {names}: --data TABLE.csv; or join them as one 4D NIfTI file"
            )
            raise DataError(name, seen, accepted, todo)
        return prepared(image, self.steps).values

    def _rows_of(self, files: Sequence[str], images: Sequence[Tensor]) -> list[dict[str, object]]:
        if not images:
            return []
        portion = max(1, _AT_ONCE // images[0].numel())
        with torch.inference_mode():
            outputs = torch.cat(
                [
                    self.task.predict(self.network, torch.stack(list(images[begin : begin + portion])))
                    for begin in range(0, len(images), portion)
                ]
            ).numpy()
        names = tuple(files)
        predictions = Predictions(ids=names, files=names, patients=names, labels=None, outputs=outputs)
        return self.task.rows(self.task.finish(predictions, self.calibration), self.calibration)

    def _columns(self) -> list[str]:
        """Column names of a row, asked of the task with outputs for no case's sake."""
        blank = Predictions(
            ids=("",), files=("",), patients=("",), labels=None, outputs=np.zeros((1, len(self.task.classes)))
        )
        row = self.task.rows(self.task.finish(blank, self.calibration), self.calibration)[0]
        return [name for name in row if name not in ("case", "label")]


def open_run(path: Path | str) -> Trained:
    """Open a run folder or an exported bundle.

    Of an exported bundle the resolved configuration and the safetensors file are read, never the `.pt2`, which
    can carry code.

    Raises:
        DataError: It is neither, or what it needs is missing.
        WeightsError: The weights do not fit the configuration.
    """
    root = Path(path)
    if (root / "configs" / "exported.json").is_file():
        calibration = _read_json(root / "configs" / "exported.json")["calibration"]
        weights = _read_safetensors(root / "models" / "model.safetensors")
    else:
        folder = RunFolder.open(root)
        scores = folder.read("scores.json")
        calibration = {name: scores[name] for name in ("temperature", "threshold") if name in scores}
        weights = load(folder.path("checkpoints/best.pt"))
    bundle = load_bundle(_config_of(root))
    task: Task = build(bundle.task, kind="task", trusted=False)
    own = {
        name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")
    }
    encoder = rebuild_encoder(bundle.encoder, own, spatial_dims=bundle.images.dims)
    network = Network(encoder, task.head(encoder))
    _load_exactly(network, weights, root)
    steps = steps_of(bundle.images, bundle.encoder.in_channels)
    return Trained(bundle=bundle, task=task, network=network.eval(), steps=steps, calibration=calibration)


def evaluate_on(
    run: Path | str,
    data: Path,
    *,
    part: str = "all",
    overrides: Sequence[str] = (),
    say: Progress | None = None,
) -> Scores:
    """Measure a trained network on other labelled data; nothing is chosen anew.

    Args:
        run: A run folder or an exported bundle.
        data: Folder of images, laid out and labelled as for training.
        part: `all`, or the `train`, `val` or `test` part of data that bring a split.
        overrides: `data.KEY=VALUE`, where these data are laid out or named otherwise than the training data.
        say: Shows bars.

    Returns:
        Scores with intervals under the name of the part, the majority class beside them.

    Raises:
        ConfigError: An override that is not about `data`.
        DataError: No case in that part, or labels that the network does not know.
    """
    trained, say = open_run(run), say or Progress(quiet=True)
    spec = _spec_for(Path(run), data, overrides)
    found = find_cases(spec, existing_folder(data))
    cases = [case for case in found.cases if part == "all" or case.split == part]
    if not cases:
        raise DataError(
            str(data), f"no case in the part `{part}`", "data that bring this part", "use --part all"
        )
    arrays = cache_arrays(
        cases,
        trained.steps,
        trained.bundle.images.store,
        say,
        on_bad_image=spec.on_bad_image,
        reading=reading_of(spec),
    )
    targets = torch.as_tensor([trained.task.read_label(case) for case in arrays.cases])
    batches = Batches(
        arrays, targets, range(len(arrays.cases)), 64, seed=0, augment=None, device=torch.device("cpu"),
        memory_format=torch.contiguous_format, shuffle=False,
    )  # fmt: skip
    predictions = predict_rows(trained.network, trained.task, batches, arrays, say, part)
    finished = trained.task.finish(predictions, trained.calibration)
    scores = trained.task.score({part: finished}, trained.calibration, seed=trained.bundle.seed)
    seen = _seen_in_training(Path(run), arrays.sha256)
    if seen:
        alarm = f"{seen} of {len(arrays.cases)} images were trained or tuned on in this run: no external validation"
        scores["alarms"] = [alarm, *scores["alarms"]]
    elif seen is None:
        scores["notes"] = ["an exported bundle does not say what it was trained on: overlap was not checked"]
    for alarm in scores["alarms"]:
        say.warn(alarm)
    return scores


def _spec_for(run: Path, data: Path, overrides: Sequence[str]) -> DataSpec:
    """How the training data were read, with another source, without its table and list of exclusions."""
    for one in overrides:
        if not one.startswith("data."):
            raise ConfigError(
                f"--set {one}", "not about `data`", "data.KEY=VALUE", "nothing else can change here"
            )
    own = tuple(
        f"data.{key}"
        for key in (
            "labels=null",
            "exclude=null",
            "layout=auto",
            "join=[]",
            "split.column=null",
            "split.folds=null",
        )
    )
    return load_bundle(_config_of(run), overrides=(*own, *overrides), data=str(data)).data


def _config_of(root: Path) -> Path:
    exported = root / "configs" / "train.yaml"
    return exported if (root / "configs" / "exported.json").is_file() else root / "config.yaml"


def _seen_in_training(run: Path, sha256: Sequence[str]) -> int | None:
    """How many files were in the run's train or val part, by content; None where that is not known."""
    if not (run / "split.csv").is_file():
        return None
    used = {row["sha256"] for row in RunFolder(run).read("split.csv") if row["split"] != "test"}
    return sum(digest in used for digest in sha256)


def _load_exactly(network: nn.Module, weights: Mapping[str, Tensor], root: Path) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        cause = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        todo = "use the run folder as it was written, with the plugin version that wrote it"
        raise WeightsError(str(root), cause, "the tensors that its configuration describes", todo) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), f"not readable: {error}", "the file as exported", "export it again"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            str(path), f"not readable: {error}", "the file as exported", "export it again"
        ) from error
