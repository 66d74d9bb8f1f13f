"""What `medxfer init` writes from `images` on, for each task: a recipe that fits the data that were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .schema import DataFacts
from .source import printable, write_text

_PATCH = 64  # voxels a side at most: two of a case fit a laptop's memory
_FINEST = 1.5  # mm: large volumes are brought to this or coarser, so that a patch sees something of the organ
_LARGE = 128  # voxels a side from which on that is done
_DIVISOR = 8  # of sides, for the encoder's three halvings


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Part of a train.yaml.

    Attributes:
        question: What is asked of one image.
        shape: Pixels or voxels that the network sees.
        lines: From `images:` to the end.
        aim: The same as a sentence, for the bundle's page.
        counted: What the classes are in its table.
    """

    question: str
    shape: tuple[int, ...]
    lines: tuple[str, ...]
    aim: str
    counted: str


def of_classes(facts: DataFacts, classes: Sequence[str], channels: int, modality: str) -> Recipe:
    """One class an image."""
    order = "the second is the finding" if len(classes) == 2 else "in this order in every table"
    task = [
        "  _target_: Classification",
        f"  classes: {_text(list(classes))}  # {order}",
        "  balance: weights  # a rare class counts as much as a frequent one",
    ]
    return Recipe(
        question=printable(" or ".join(classes)) if len(classes) == 2 else f"One of {len(classes)} classes",
        shape=(_side_of(facts),) * facts.dims,
        lines=_whole_images(facts, channels, modality, task),
        aim=f"Tells {printable(', '.join(classes[:-1]))} and {printable(classes[-1])} apart in one {_what(facts)}.",
        counted="class",
    )


def of_findings(facts: DataFacts, classes: Sequence[str], channels: int, modality: str) -> Recipe:
    """Several findings an image."""
    names = printable(", ".join(classes))
    return Recipe(
        question=f"Which of {len(classes)} findings are there",
        shape=(_side_of(facts),) * facts.dims,
        lines=_whole_images(
            facts, channels, modality, ["  _target_: Findings", f"  classes: {_text(list(classes))}"]
        ),
        aim=f"Finds {names} in one {_what(facts)}; several may be there at once.",
        counted="finding",
    )


def of_masks(facts: DataFacts, classes: Sequence[str], channels: int, modality: str) -> Recipe:
    """A class for each pixel or voxel."""
    names = printable(", ".join(classes))
    in_patches = facts.dims == 3
    shape = _patch_of(facts) if in_patches else (_picture_side(facts),) * 2
    values: Any = facts.values
    if isinstance(values, Mapping):
        values = {name: list(own) for name, own in values.items()}
    lines = [
        *_images_of_masks(facts, shape, modality),
        *(_UNET if in_patches else _IMAGENET),
        f"  in_channels: {channels}",
        "task:",
        "  _target_: Segmentation",
        f"  classes: {_text(list(classes))}  # in this order in every table; 0 is the background",
        f"  values: {_text(values)}  # {_MEANINGS.get(str(facts.values), 'values of the mask files')}",
        *(
            [f"  ignore: {facts.ignore}  # in the masks: counts on neither side"]
            if facts.ignore is not None
            else []
        ),
        "  loss: dice_ce  # or dice_focal, tversky",
        "phases:",
        *(_FROM_NOTHING if in_patches else _WITH_WARM_UP),
        "training:",
        f"  batch: {4 if in_patches else 8}",
    ]
    return Recipe(
        question=f"Where {'is' if len(classes) == 1 else 'are'} {names}",
        shape=shape,
        lines=tuple(lines),
        aim=f"Outlines {names} in one {_what(facts)}.",
        counted=f"structure ({facts.masks} masks looked at)",
    )


_MEANINGS = {
    "number": "the value is the class's place, from 1",
    "nonzero": "all above 0, numbered objects among it",
}
_IMAGENET = (
    "encoder:",
    "  id: efficientnet_lite0  # `medxfer encoders` lists what is installed",
    "  weights: imagenet",
)
_UNET = (
    "encoder:",
    "  id: unet  # `medxfer encoders` lists what is installed",
    "  weights: none",
)
_WITH_WARM_UP = (
    "  - {name: decoder, train: head, lr: 1.0e-3, epochs: 5}  # the encoder as it came",
    "  - {name: all, train: all, lr: 5.0e-4, epochs: 30}",
)
_FROM_NOTHING = (
    "  - {name: train, train: all, lr: 2.0e-3, epochs: 40}  # no pretrained weights: all at once",
)


def _images_of_masks(facts: DataFacts, shape: Sequence[int], modality: str) -> list[str]:
    if facts.dims == 2:
        note = "pixels a side; answers come on the image's own grid"
        return [
            *_preset_lines(facts, modality),
            f"  size: {shape[0]}  # {note}",
            *_adjust_lines(facts, modality),
        ]
    spacing = _spacing_of(facts)
    told = "voxels of a patch: smaller volumes are padded, larger ones seen through a sliding window"
    lines = [*_preset_lines(facts, modality), f"  size: {list(shape)}  # {told}"]
    if spacing is not None:
        lines.append(
            f"  spacing: {list(spacing)}  # mm; the volumes are resampled to it, answers come on their own grid"
        )
    lines.append(
        "  patches: {count: 2, foreground: 0.5}  # of each volume an epoch; share around a structure"
    )
    return [*lines, *_adjust_lines(facts, modality)]


def _spacing_of(facts: DataFacts) -> tuple[float, ...] | None:
    """Spacing in mm, where volumes differ or are so large that a patch would see little of them."""
    if facts.spacing is None:
        return None
    if max(facts.median_size) > _LARGE:
        return tuple(max(step, _FINEST) for step in facts.spacing)
    return facts.spacing if facts.is_spacing_mixed else None


def _patch_of(facts: DataFacts) -> tuple[int, ...]:
    """Sides that hold the median volume, up to 64 voxels."""
    spacing = _spacing_of(facts)
    scale = [1.0] * 3 if spacing is None or facts.spacing is None else [
        old / new for old, new in zip(facts.spacing, spacing, strict=True)
    ]  # fmt: skip
    sides = [side * factor for side, factor in zip(facts.median_size, scale, strict=True)]
    return tuple(min(_PATCH, max(2, -(-round(side) // _DIVISOR)) * _DIVISOR) for side in sides)


def _picture_side(facts: DataFacts) -> int:
    """256 pixels, or for smaller pictures the next multiple of 32."""
    return min(256, max(32, -(-max(facts.median_size) // 32) * 32))


def _whole_images(facts: DataFacts, channels: int, modality: str, task: Sequence[str]) -> tuple[str, ...]:
    """For tasks that answer one image as a whole."""
    note = (
        "voxels a side; spacing: [1.5, 1.5, 1.5] keeps sizes in mm"
        if facts.dims == 3
        else "pixels a side; 224 is slower"
    )
    return (
        *_preset_lines(facts, modality),
        f"  size: {_side_of(facts)}  # {note}",
        *_adjust_lines(facts, modality),
        *_encoder_lines(facts, channels),
        "task:",
        *task,
        *_phase_lines(facts),
        "training:",
        f"  batch: {8 if facts.dims == 3 else 32}",
        "  threshold: youden  # chosen on val; or f1, half",
    )


def _side_of(facts: DataFacts) -> int:
    """Pixels a side: 128, or less for smaller pictures; 64 voxels, or 32 for small volumes."""
    longest = max(facts.median_size)
    most = 64 if facts.dims == 3 else 128
    return most if longest >= most else max(32, longest // 32 * 32)


def _preset_lines(facts: DataFacts, modality: str) -> list[str]:
    why = (
        ""
        if _preset_of(facts, modality) == modality
        else "  # these files hold grey levels, no Hounsfield units: no CT windows"
    )
    return [
        "images:",
        f"  preset: {_preset_of(facts, modality)}{why}",
        *(["  dims: 3"] if facts.dims == 3 else []),
    ]


def _preset_of(facts: DataFacts, modality: str) -> str:
    return "xray" if modality == "ct" and facts.are_pictures else modality


def _adjust_lines(facts: DataFacts, modality: str) -> list[str]:
    preset = _preset_of(facts, modality)
    if preset == "ct":
        return ["  adjust: {HUWindow: {windows: [soft_tissue]}}  # or lung, bone, brain, liver"]
    if preset == "xray" and facts.is_dominated:
        return [
            "  # One value fills over 90 % of most images: percentiles would clip the little that is to be seen.",
            "  adjust: {PercentileWindow: {lower: 0.0, upper: 100.0}}",
        ]
    return []


def _encoder_lines(facts: DataFacts, channels: int) -> list[str]:
    if facts.dims == 3:
        return [
            "encoder:",
            "  id: cnn  # `medxfer encoders` lists what is installed; resnet18 with medicalnet is pretrained",
            "  weights: none",
            f"  in_channels: {channels}",
        ]
    return [*_IMAGENET, f"  in_channels: {channels}"]


def _phase_lines(facts: DataFacts) -> list[str]:
    if facts.dims == 3:
        return [
            "phases:",
            "  - {name: train, train: all, lr: 1.0e-3, epochs: 20}  # no pretrained weights: all at once",
        ]
    return [
        "phases:",
        "  - {name: probe, train: head, lr: 1.0e-3, epochs: 10}  # the encoder as it came",
        "  - {name: finetune, train: all, lr: 1.0e-4, epochs: 3, layer_decay: 0.8}  # early stages move less",
    ]


def _what(facts: DataFacts) -> str:
    return "volume" if facts.dims == 3 else "image"


def _text(value: Any) -> str:
    """A value inside a line of YAML."""
    return write_text(value, one_line=True)
