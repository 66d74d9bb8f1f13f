"""The typed form of a bundle: frozen dataclasses with defaults and units, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Store = Literal["uint8", "int16", "float16"]
Layout = Literal["auto", "class_folders", "csv", "dicom_csv", "decathlon", "mask_folders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part named in MONAI syntax: `_target_` and its arguments."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(
        default="", compare=False, repr=False
    )  # file, line and key, for messages about the arguments
    places: Mapping[tuple[str | int, ...], str] = field(
        default_factory=dict, compare=False, repr=False
    )  # keys below -> file and line, or the option that set them


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientSpec:
    """How patients are told apart; DICOM PatientID goes before the pattern."""

    column: str | None = None
    pattern: str | None = (
        None  # regular expression on the file name; its first group, or the whole match, is the patient
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Shares of patients held out where the data bring no split of their own."""

    test: float = 0.2
    val: float = 0.15
    by: Literal["patient", "image"] = "patient"
    column: str | None = None  # column of the label table with a given split; default `split`
    folds: int | None = (
        None  # cross-validation: test (or val, where the data bring a test) is one of so many parts
    )
    fold: int = 0  # which one, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSpec:
    """Pictures cut from volumes; those of one volume stay with its patient."""

    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    every: int = 1  # take each k-th slice
    context: int = 0  # neighbours on each side, as further channels (2.5D)
    lesion: bool = False  # the label is whether the case's mask has anything in the slice


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Where the cases are and how they are read."""

    source: str  # a path, or `synthetic.NAME`
    layout: Layout = "auto"
    labels: str | None = None  # label CSV, relative to the source; found by itself when there is one only
    join: tuple[str, ...] = ()  # further tables, joined by the file; what they do not name is unknown
    column: str | None = None  # label column of the CSV; default `label`
    findings: tuple[str, ...] | None = None  # a column each, 0, 1 or blank (unknown); None: found out
    images: tuple[str, ...] | None = (
        None  # columns of files that are one case's channels; default the file column
    )
    patient: PatientSpec = PatientSpec()
    split: SplitSpec = SplitSpec()
    slices: SliceSpec | None = None  # pictures cut from volumes; None: cases as they are
    on_bad_image: Literal["stop", "skip"] = "stop"
    on_geometry: Literal["stop", "resample", "warn"] = "stop"  # tilted or uneven series
    on_nonfinite: Literal["stop", "zero"] = "stop"  # NaN and infinite voxels
    series: Mapping[str, str | int] = field(
        default_factory=dict
    )  # which one of a folder: modality, description, ...
    select: Mapping[str, str | float] = field(
        default_factory=dict
    )  # DICOM tag -> value: one volume of several
    volume: Literal["channels"] | int | None = None  # which one of a 4D file, from 0, or all as channels
    frames: Literal["first", "middle"] | int | None = None  # which one of a film
    accept_leak: str | None = None  # the reason, printed in the report
    exclude: str | None = None  # text file, one relative path or pattern a line, after ` # ` the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSpec:
    """Images keep their own size; training and sliding window look at patches of `images.size`."""

    count: int = 2  # patches of each image an epoch
    foreground: float = 0.5  # share of them that are centred on a labelled voxel, the classes in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSpec:
    """Deterministic preprocessing and augmentation; empty lists mean none, None means the preset's."""

    preset: str = "xray"
    dims: Literal[2, 3] = 2  # pictures or volumes
    # Pixels a side, or one number an axis. Of volumes one side may be 1: a 2D network sees their planes across it.
    size: int | tuple[int, ...] = 128
    spacing: tuple[float, ...] | None = (
        None  # mm along each axis; None: images are resized to `size` as they are
    )
    patches: PatchSpec | None = None  # None: the network sees whole images, all of one size
    store: Store = "uint8"  # how the cache rounds values in [0, 1]
    transforms: tuple[Component, ...] | None = None
    augment: tuple[Component, ...] | None = None
    # Arguments of the preset's parts that are wanted otherwise: {PercentileWindow: {upper: 99.0}}.
    adjust: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of what the network sees."""
        return (self.size,) * self.dims if isinstance(self.size, int) else tuple(self.size)

    @property
    def thin(self) -> int | None:
        """The axis along which patches of volumes are one voxel thick; None: no such."""
        axes = [axis for axis, side in enumerate(self.shape) if side == 1]
        return axes[0] if self.dims == 3 and len(axes) == 1 else None

    @property
    def network_dims(self) -> Literal[2, 3]:
        """Spatial dimensions of encoder and decoder: 2 where volumes are seen plane by plane."""
        return self.dims if self.thin is None else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Which encoder, from which weights."""

    id: str
    weights: str = "none"  # a tag of the card, a path, or `none`
    in_channels: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    min_coverage: float = 0.95  # share of the parameters, of all and of each stage, that the file must fill


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """What all phases share; a phase may override the second half."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    threshold: Literal["youden", "f1", "half"] = "youden"  # rule for the threshold, applied to val
    batch: int = 32
    clip_norm: float = 1.0  # 0: no clipping
    patience: int = 0  # epochs without a better key metric before a phase stops; 0: never
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of a phase's steps with a rising rate
    schedule: Literal["cosine", "constant"] = "cosine"
    dropout: float = 0.0
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec:
    """One entry of the training recipe. None: the value under `training`."""

    name: str
    train: Literal["head", "last_k", "norm", "bias", "all"]
    lr: float
    epochs: int
    k: int = 1  # stages, for `last_k`
    layer_decay: float = 1.0  # rate of a stage / rate of the next
    # Batch-norm statistics of trained stages: `keep` those of the weights, `update` them, or `auto`: keep where weights
    # were loaded. A batch of 32 estimates them badly, and a head probed on the old ones would start again.
    statistics: Literal["auto", "keep", "update"] = "auto"
    views: int = 1  # `head` only: augmented views of each image whose features are cached
    batch: int | None = None
    clip_norm: float | None = None
    patience: int | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    dropout: float | None = None
    label_smoothing: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A whole bundle, every default filled in."""

    name: str
    folder: Path
    seed: int = 0
    data: DataSpec
    images: ImagesSpec = ImagesSpec()
    encoder: EncoderSpec
    # A run or exported bundle whose whole network, encoder and head, is where training starts.
    start: str | None = None
    task: Component
    training: TrainingSpec = TrainingSpec()
    phases: tuple[PhaseSpec, ...]
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What `data.inspect` saw in a folder; `bundle.create` writes a bundle from it."""

    source: Path
    layout: Layout
    classes: Mapping[str, int]  # class name -> images
    images: int
    patients: int
    splits: Mapping[str, int]  # given split -> images
    channels: int
    median_size: tuple[int, ...]  # rows, columns; of volumes three sides
    labels: str | None = None
    column: str | None = None
    findings: tuple[str, ...] = ()  # names; then `classes` counts the images with each of them
    dims: Literal[2, 3] = 2
    are_pictures: bool = False  # PNG, JPEG and the like: grey levels, no Hounsfield units
    patient: PatientSpec = PatientSpec()
    patient_found_by: str = (
        ""  # how its column was found, where the user did not name it and its name is not `patient`
    )
    is_dominated: bool = (
        False  # one value fills most of most images: percentiles would clip what is to be seen
    )
    unreadable: int = 0  # images that could not be read of those looked at: a run would stop
    # Of masks; `classes` counts those looked at that hold each.
    masks: int = 0  # how many were looked at
    values: Literal["number", "nonzero"] | Mapping[str, tuple[int, ...]] = "number"
    ignore: int | None = None  # value that counts on neither side
    spacing: tuple[float, ...] | None = None  # median, mm along each axis; None: not told
    is_spacing_mixed: bool = False
    notes: tuple[str, ...] = ()
