"""A finished run or an exported bundle, opened again: predict and evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .bundle.components import build
from .bundle.parser import load_bundle
from .bundle.schema import Bundle, DataSpec
from .data.cache import Arrays, cache_arrays
from .data.cases import existing_folder, find_cases
from .data.inputs import inputs_of, inputs_of_table
from .data.loaders import Batches
from .data.masks import Origin
from .data.patches import WholeImages
from .data.policy import ReadPolicy
from .data.presets import Step, steps_of
from .data.sampling import reading_of
from .data.usual import Usual, unlike_rows, usual_from
from .encoders.rebuild import rebuild_encoder
from .errors import ConfigError, DataError, WeightsError
from .networks.network import Network
from .progress import Progress
from .run_folder import RunFolder
from .tasks.answer_files import file_names, require_elsewhere, require_free
from .tasks.asking import Asking
from .tasks.base import MaskAnswer, Predictions, Scores, Task, joined, labels_of
from .training.checkpoint import load

_FEW_UNLIKE = 0.05  # share of images that is not worth an alarm: of like ones it is 0.02 and less


def predict_rows(
    network: Network,
    task: Task,
    batches: Batches,
    arrays: Arrays,
    policy: ReadPolicy,
    say: Progress,
    title: str,
) -> Predictions:
    """Outputs for some rows of the arrays, in fp32 whatever the training used.

    Args:
        network: In evaluation mode.
        task: Runs the network, and says what is kept of each case.
        batches: Whole images, unshuffled and not augmented.
        arrays: Where the rows come from.
        policy: As the files were read.
        say: Shows a bar.
        title: Of the bar.
    """
    network.eval()
    kept: list[Sequence[Any]] = []
    labels: list[Tensor] = []
    with torch.no_grad(), say.bar(f"predictions, {title}", len(batches)) as advance:
        for batch in batches.epoch(0):
            origins = [
                Origin(case=arrays.cases[row], affine=arrays.affines[row], policy=policy)
                for row in batch.index.tolist()
            ]
            kept.append(task.keep(task.predict(network, batch.images), batch.targets, origins))
            if task.masks is None:
                labels.append(batch.targets.cpu())
            advance()
    cases = [arrays.cases[row] for row in batches.rows]
    return Predictions(
        ids=tuple(case.id for case in cases),
        files=tuple(str(case.images[0]) for case in cases),
        patients=tuple(case.patient for case in cases),
        labels=torch.cat(labels).numpy() if labels else None,
        outputs=joined(kept),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained network with everything that its predictions need."""

    bundle: Bundle
    task: Task
    network: Network
    steps: tuple[Step, ...]
    calibration: Mapping[str, Any]
    usual: Usual | None = None  # how training images look; None: not known

    @property
    def writes_files(self) -> bool:
        """Whether an answer is more than a row of a table."""
        return isinstance(self.task.answer(), MaskAnswer)

    def predict(
        self,
        paths: Sequence[Path | str] = (),
        *,
        table: Path | str | None = None,
        folder: Path | str | None = None,
        probabilities: bool = False,
        overwrite: bool = True,
        batch: int = 32,
        say: Progress | None = None,
    ) -> list[dict[str, object]]:
        """The answer for image files, folders of them, or the rows of a table.

        Args:
            paths: Files, or folders that are walked as `inspect` walks them: each DICOM series is one volume.
            table: CSV file with the columns of files that the training table had (`data.images`), labels or none; its
                paths are relative to it. Where cases are several files, each row joins its own as channels.
            folder: Where files of the answer go (masks), on the input's own grid; None: none are written.
            probabilities: Write those of each class too, on the same grid, into the folder `probabilities` there, as
                float32 and without the background: of volumes a NIfTI file with a volume a class, of pictures a TIFF
                file with a page a class.
            overwrite: Whether files of an earlier answer in that folder are replaced.
            batch: Files at a time; of volumes an eighth, and those of which only windows are looked at one by one.
            say: Shows a bar, and what was set aside in folders.

        Returns:
            One row a case (a slice, where the bundle cuts volumes), in order: `file` (escaped where it would break a
            line), what the task tells (`p_CLASS`..., `predicted`; of masks `ml_CLASS`..., `mask`, `probabilities`),
            `status` (`ok`, `warned` or `refused`) and `reason`. An image that is unlike the training images is warned
            of. A bad file is a row with its reason; the others go on.

        Raises:
            DataError: No such table, or one without these columns.
            ConfigError: The folder holds the images themselves, or a file of the answer is there already and not to be
                replaced; or probabilities have no folder, or are in the rows already. Nothing was read then.
            RunError: Out of memory.
        """
        volumes = self.bundle.images.dims == 3 or self.bundle.data.slices is not None
        say, notes = say or Progress(quiet=True), list[str]()
        folder = None if folder is None else Path(folder)
        if probabilities:
            self._require_files(folder)
        inputs = inputs_of([Path(path) for path in paths], self.bundle.data, volumes=volumes, notes=notes)
        if table is not None:
            inputs += inputs_of_table(Path(table), self.bundle.data, notes)
        for note in notes:
            say(note)
        names = file_names([one.name for one in inputs])
        if folder is not None:
            require_elsewhere(folder, inputs)
            if not overwrite:
                require_free(folder, names, self.task.answer(), probabilities=probabilities)
        rows: list[dict[str, object]] = []
        asking = Asking(
            bundle=self.bundle,
            task=self.task,
            network=self.network,
            steps=self.steps,
            calibration=self.calibration,
            usual=self.usual,
        )
        if volumes:
            batch = max(1, batch // 8) if self.bundle.images.patches is None else 1
        with say.bar("predict", len(inputs)) as advance:
            for begin in range(0, len(inputs), batch):
                piece = slice(begin, begin + batch)
                rows += asking.rows(inputs[piece], names[piece], folder, probabilities=probabilities)
                advance(len(inputs[piece]))
        columns = list(
            dict.fromkeys(name for row in rows for name in row if name not in ("status", "reason"))
        )
        return [{name: row.get(name) for name in (*columns, "status", "reason")} for row in rows]

    def _require_files(self, folder: Path | None) -> None:
        """Refuse to write probabilities where the rows hold them, or to nowhere."""
        if not self.writes_files:
            seen, accepted = "a network that answers in rows", "a network that segments"
            raise ConfigError("probabilities", seen, accepted, "leave it out: the columns p_CLASS hold them")
        if folder is None:
            todo = "name one: -o FOLDER, or folder=... in Python"
            raise ConfigError("probabilities", "no folder for the files", "a folder", todo)


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
        figures = root / "configs" / "training_images.json"
    else:
        folder = RunFolder.open(root)
        scores = folder.read("scores.json")
        calibration = {name: scores[name] for name in ("temperature", "threshold") if name in scores}
        weights = load(folder.path("checkpoints/best.pt"))
        figures = folder.path("training_images.json")
    bundle = load_bundle(_config_of(root))
    task: Task = build(bundle.task, kind="task", trusted=False)
    own = {
        name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")
    }
    encoder = rebuild_encoder(bundle.encoder, own, spatial_dims=bundle.images.network_dims)
    network = Network(encoder, task.head(encoder), window=bundle.images.shape, flips=task.flips)
    _load_exactly(network, weights, root)
    steps = steps_of(bundle.images, bundle.encoder.in_channels)
    return Trained(
        bundle=bundle,
        task=task,
        network=network.eval(),
        steps=steps,
        calibration=calibration,
        # runs of earlier versions have no such file
        usual=usual_from(_read_json(figures), str(figures)) if figures.is_file() else None,
    )


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
    found = find_cases(spec, existing_folder(data), masks=trained.task.masks is not None)
    cases = [case for case in found.cases if part == "all" or case.split == part]
    if not cases:
        raise DataError(
            str(data), f"no case in the part `{part}`", "data that bring this part", "use --part all"
        )
    task, images = trained.task, trained.bundle.images
    arrays = cache_arrays(
        cases,
        trained.steps,
        images.store,
        say,
        on_bad_image=spec.on_bad_image,
        reading=reading_of(spec),
        masks=task.masks,
        one_size=images.patches is None,
        dims=images.dims,
    )
    batches = Batches(
        arrays, WholeImages(arrays, labels_of(task, arrays)), range(len(arrays.cases)),
        arrays.together(64), seed=0, augment=None, device=torch.device("cpu"),
        memory_format=torch.contiguous_format, shuffle=False,
    )  # fmt: skip
    predictions = predict_rows(trained.network, task, batches, arrays, reading_of(spec).policy, say, part)
    finished = trained.task.finish(predictions, trained.calibration)
    scores = trained.task.score({part: finished}, trained.calibration, seed=trained.bundle.seed)
    seen = _seen_in_training(Path(run), arrays)
    if seen:
        alarm = f"{seen} of {len(arrays.cases)} images were trained or tuned on in this run: no external validation"
        scores["alarms"] = [alarm, *scores["alarms"]]
    elif seen is None:
        scores["notes"] = ["an exported bundle does not say what it was trained on: overlap was not checked"]
    if trained.usual is not None:
        _tell_unlike(scores, len(unlike_rows(trained.usual, arrays)), len(arrays.cases))
    for alarm in scores["alarms"]:
        say.warn(alarm)
    return scores


def _tell_unlike(scores: Scores, unlike: int, count: int) -> None:
    """How many images are unlike the training images; an alarm where they are more than chance would bring."""
    scores["unlike_training_images"] = {"images": unlike, "of": count}
    if unlike > _FEW_UNLIKE * count:
        alarm = (
            f"{unlike} of {count} images are unlike the training images: another modality, an inverted or small image? "
            "`medxfer predict` says of each what is unlike"
        )
        scores["alarms"] = [alarm, *scores["alarms"]]


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


def _seen_in_training(run: Path, arrays: Arrays) -> int | None:
    """How many images were in the run's train or val part, by content; None where that is not known."""
    if not (run / "split.csv").is_file():
        return None
    rows = [row for row in RunFolder(run).read("split.csv") if row["split"] != "test"]
    used = {row["sha256"] for row in rows} | {row.get("image_sha256", "") for row in rows}
    pairs = zip(arrays.sha256, arrays.image_sha256, strict=True)
    return sum(
        not used.isdisjoint(pair) for pair in pairs
    )  # the first where a run of an earlier version wrote it


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
