"""Refuse weights that fill too little of an encoder, or of which too much is left, and say what to do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bundle.schema import EncoderSpec
from ..cards import EncoderCard, WeightsCard
from ..errors import WeightsError
from ..plugin import Encoder
from .fitting import ABSENT, coverage_of
from .matching import Match, WeightsFile
from .receipt import Row
from .registry import OTHER_DIMENSIONS, card_of

_SHOWN = 3
_STAGE = re.compile(r"stages\.(\d+)\.")
# Names that tell the library. Its EfficientNets pad and normalise otherwise: their weights fit no other network.
_LIBRARIES = (
    (
        re.compile(r"(^|\.)blocks\.\d+\.\d+\.conv_dw\."),
        "these are timm's names, of a network that pads otherwise: take the encoder `timm:NAME`, such as {timm}",
    ),
    (
        re.compile(r"(^|\.)features\.\d+\.\d+\.block\.\d"),
        "these are the names of torchvision's EfficientNet, which pads otherwise: take {timm}, with a tag of its own",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An encoder built for a file, not yet filled."""

    encoder: Encoder
    tensors: Mapping[str, Tensor]  # of its stages, to be filled
    parameters: frozenset[str]  # which of those are parameters
    match: Match
    channels: int  # of images, in the file
    options: Mapping[str, Any]


def require_dimensions(card: EncoderCard, weights: WeightsCard, spatial_dims: int) -> None:
    """Refuse weights whose card names other dimensions.

    Raises:
        WeightsError: Of volumes for pictures, mostly.
    """
    if spatial_dims in weights.spatial_dims or spatial_dims not in card.spatial_dims:
        return  # what the encoder cannot be built in is refused when it is built
    others = [one.tag for one in card.weights if spatial_dims in one.spatial_dims]
    accepted = " or ".join(f"{dims}D" for dims in weights.spatial_dims)
    todo = f"choose {' or '.join(others)}" if others else "choose another encoder"
    todo += f"; {OTHER_DIMENSIONS[spatial_dims]}"
    where = f"weights {card.id}.{weights.tag}"
    raise WeightsError(where, f"asked for in {spatial_dims}D", accepted, todo)


def require_coverage(
    spec: EncoderSpec, file: WeightsFile, built: Built, rows: Sequence[Row], coverage: float
) -> None:
    """Refuse a file that fills less than `spec.min_coverage` of the encoder, or of one of its stages.

    A stage alone matters: the stem is a thousandth of a network, and without it nothing behind it is worth much.

    Raises:
        WeightsError: With what is missing, and what in the file looks like it.
    """
    if coverage < spec.min_coverage:
        raise _too_little(spec, file, built, rows, coverage)
    stages: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "parameter" and (found := _STAGE.match(row.name)):
            stages[int(found.group(1))].append(row)
    for stage, own in sorted(stages.items()):
        share = coverage_of(own)
        if share < spec.min_coverage:
            seen = f"stage {stage}: {share:.1%} of its parameters found in the file ({coverage:.1%} of the whole)"
            lost = [row for row in own if row.state == "re-initialised"]
            seen += _first(lost) + _alike(lost, rows)
            accepted = f"at least {spec.min_coverage:.0%} of every stage"
            todo = "mend the names in the file, or set encoder.min_coverage to 0 if this part may stay random"
            raise WeightsError(_where(spec, file, built), seen, accepted, todo)


def beyond(file: WeightsFile, match: Match) -> tuple[str, ...]:
    """What the file has inside of our stages that the encoder has not: layers, not a head."""
    known = set(match.keys.values())
    return tuple(
        key
        for key, value in file.tensors.items()
        if key.startswith(match.prefix)
        and key not in known
        and value.numel() > 1  # counters of batches are no layers
        and match.reading.key_map(key.removeprefix(match.prefix)).startswith("stages.")
    )


def require_no_more(spec: EncoderSpec, file: WeightsFile, extra: Sequence[str], rows: Sequence[Row]) -> None:
    """Refuse the file of a deeper network: every tensor found, but the layers between them are not there.

    Raises:
        WeightsError: More than `1 - spec.min_coverage` would be left out.
    """
    left = sum(file.tensors[key].numel() for key in extra)
    used = sum(row.size for row in rows if row.state in ("loaded", "converted"))
    if left <= (1 - spec.min_coverage) * (left + used):
        return
    seen = f"{left / (left + used):.1%} of what the file has in these stages finds no place: {extra[0]}"
    accepted = f"at most {1 - spec.min_coverage:.0%} left out"
    todo = (
        "a deeper or another architecture? name the encoder that the file belongs to, or lower min_coverage"
    )
    raise WeightsError(f"{file.path} for {spec.id}", seen, accepted, todo)


def require_finite(path: Path, bad: Sequence[str]) -> None:
    """Refuse weights with NaN or infinity: the first batch would fail far from the cause.

    Raises:
        WeightsError: `bad`, names of such tensors, is not empty.
    """
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        seen = f"NaN or infinity in {', '.join(bad[:_SHOWN])}{more}"
        raise WeightsError(str(path), seen, "finite numbers", "use an earlier checkpoint")


def _too_little(
    spec: EncoderSpec, file: WeightsFile, built: Built, rows: Sequence[Row], coverage: float
) -> WeightsError:
    """What did not fit: other dimensions, other names, or other shapes, with the first ones."""
    where = _where(spec, file, built)
    ranks = [
        (file.tensors[key].ndim - 2, target.ndim - 2)
        for ours, key in built.match.keys.items()
        if (target := built.tensors[ours]).ndim > 3 and file.tensors[key].ndim > 3
    ]
    if ranks and all(theirs > ours for theirs, ours in ranks):
        seen = f"kernels of {ranks[0][0]} dimensions: these weights are for volumes"
        return WeightsError(
            where, seen, f"kernels of {ranks[0][1]} dimensions", "choose weights for pictures"
        )
    lost = [row for row in rows if row.state == "re-initialised" and row.kind == "parameter"]
    seen = (
        f"{coverage:.1%} of the parameters found in the file; {len(lost)} tensors missing or of another shape"
    )
    if coverage == 0 and not built.match.keys:
        theirs = ", ".join(list(file.tensors)[:_SHOWN])
        ours = ", ".join(row.name for row in lost[:_SHOWN])
        seen += f"; the file has {theirs}, ... the encoder wants {ours}, ..."
    else:
        seen += _first(lost) + _alike(lost, rows)
    return WeightsError(where, seen, f"at least {spec.min_coverage:.0%}", _advice(spec, file, built))


def _advice(spec: EncoderSpec, file: WeightsFile, built: Built) -> str:
    """What to try: another library's network, another size of this one, or another architecture."""
    name = spec.id if spec.id.startswith("efficientnet_b") else "efficientnet_b0"
    for pattern, words in _LIBRARIES:
        if any(pattern.search(key) for key in file.tensors):
            return words.format(timm=f"timm:{name} or timm:tf_{name}")
    options = {**card_of(spec.id).options, **built.options}
    if options and built.parameters <= built.match.keys.keys():
        told = ", ".join(f"{key}: {value}" for key, value in options.items())
        return f"the names fit, the shapes do not: another size of this network? its options were {told}"
    return "another architecture? name the encoder that the file belongs to, or lower encoder.min_coverage"


def _where(spec: EncoderSpec, file: WeightsFile, built: Built) -> str:
    return f"{file.path} for {spec.id} in {built.encoder.spatial_dims}D"


def _first(lost: Sequence[Row]) -> str:
    return "".join(f"; {row.name}: {row.how}" for row in lost[:_SHOWN])


def _alike(lost: Sequence[Row], rows: Sequence[Row]) -> str:
    """Tensors of the file whose names say nothing here and that have the shapes of those that are missing."""
    shapes = {row.shape for row in lost if row.how == ABSENT and len(row.shape) > 1}
    names = [row.name for row in rows if row.state == "unused" and row.shape in shapes]
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"; not used and of the same shapes: {', '.join(names[:_SHOWN])}{more}" if names else ""
