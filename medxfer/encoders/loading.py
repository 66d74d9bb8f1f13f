"""Load weights into an encoder exactly: every tensor accounted for, too little of it refused."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..bundle.schema import EncoderSpec
from ..cards import EncoderCard, WeightsCard
from ..errors import WeightsError
from ..plugin import Encoder, Normalise
from .adapt import cycled, inflate_centre, place_normalise, spread_channels
from .keymaps import KeyMap, read_key_map
from .receipt import Receipt, Row, State
from .registry import build, card_of
from .weights import read_tensors, remembered_sha256, require, weights_card

__all__ = ["Receipt", "Row", "create_encoder"]

_NORMALISE = re.compile(r"normalise(?:\.\d+)?\.(mean|std)")
_ABSENT = "not in the file"
_FILE_ENDINGS = {".safetensors", ".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl", ".tar", ".ts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A weights file, read, and what is known of it."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    card: WeightsCard | None  # None: somebody's own file
    maps: tuple[tuple[KeyMap, WeightsCard | None], ...]  # how its names may be meant, and which card says so
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """Which tensor of the file is meant by which of the encoder."""

    keys: Mapping[str, str]  # our name -> the file's
    prefix: str
    size: int  # numbers in those that fit
    card: WeightsCard | None  # whose key map it was


def create_encoder(spec: EncoderSpec, *, spatial_dims: int = 2) -> tuple[Encoder, Receipt]:
    """Build an encoder and load its weights.

    Random weights come from torch's global generator, whose state is as before afterwards.

    Args:
        spec: Which encoder, from which weights, for how many image channels.
        spatial_dims: 2 or 3.

    Returns:
        The encoder, taking images of `spec.in_channels` channels in [0, 1], and the receipt of its tensors.

    Raises:
        PluginError: The encoder is unknown, broken, ambiguous or not made for this.
        WeightsError: The weights are unknown, absent, damaged, not finite, or fill less than
            `spec.min_coverage`.
    """
    if spec.weights == "none":
        encoder = build(
            spec.id, spatial_dims=spatial_dims, in_channels=spec.in_channels, options=spec.options
        )
        return encoder, _random_receipt(encoder, spec)
    file = _open(spec, card_of(spec.id))
    channels = file.card.in_channels if file.card else spec.in_channels
    encoder, match, channels = _built_to_fit(spec, spatial_dims, file, channels)
    rows, fitted = _fit(encoder, file, match, channels)
    coverage = _coverage(rows)
    if coverage < spec.min_coverage:
        raise _too_little(spec, file, rows, coverage)
    _require_finite(file.path, fitted)
    with torch.no_grad():
        for name, target in _stage_tensors(encoder).items():
            if name in fitted:
                target.copy_(fitted[name])
    constants = _place_constants(encoder, spec, file, match)
    notes = [*file.notes, *_notes(match, rows), *constants]
    receipt = Receipt(
        encoder=spec.id,
        weights=file.card.tag if file.card else str(file.path),
        rows=(*rows, *_normalise_rows(encoder, constants)),
        coverage=coverage,
        file=str(file.path),
        sha256=file.sha256,
        licence=file.card.licence if file.card else None,
        trained_on=file.card.trained_on if file.card else None,
        notes=tuple(notes),
    )
    return encoder, receipt


def _open(spec: EncoderSpec, card: EncoderCard) -> _File:
    """Find, verify and read what `spec.weights` names: a tag of the card, or a file."""
    named = card.weights_tagged(spec.weights)
    path = Path(spec.weights).expanduser()
    if named is None and not path.is_file():
        if len(path.parts) > 1 or path.suffix in _FILE_ENDINGS:
            todo = "check the path; it starts in the working folder"
            raise WeightsError(
                f"encoder.weights: {spec.weights}", "no such file", "a weights file, or a tag", todo
            )
        named = weights_card(card, spec.weights)
    notes: tuple[str, ...] = ()
    if named is not None:
        path = require(named, card.id)
        sha256 = named.sha256
    else:
        sha256 = remembered_sha256(path)
        named = next((weights for weights in card.weights if weights.sha256 == sha256), None)
        if named:
            notes = (f"the file is {card.id}.{named.tag}, by its hash",)
    tensors, opened = read_tensors(path)
    tagged = (named,) if named else card.weights
    maps = [(read_key_map(weights.key_map, card.folder), weights) for weights in tagged if weights.key_map]
    return _File(
        path=path,
        sha256=sha256,
        tensors=tensors,
        card=named,
        maps=((KeyMap(), None), *maps),
        notes=(*notes, *opened),
    )


def _built_to_fit(
    spec: EncoderSpec, spatial_dims: int, file: _File, channels: int
) -> tuple[Encoder, _Match, int]:
    """Build with enough channels for images and weights; a file without a card tells its by its shapes."""
    while True:
        wanted = max(spec.in_channels, channels)
        encoder = build(spec.id, spatial_dims=spatial_dims, in_channels=wanted, options=spec.options)
        match = _matched(file, _stage_tensors(encoder))
        seen = _channels_seen(file, match, encoder)
        if file.card or seen <= wanted:
            return encoder, match, (channels if file.card else seen)
        channels = seen


def _stage_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """Parameters and buffers by name, the normalisation apart: its constants come from the card."""
    return {name: value for name, value in encoder.state_dict().items() if not name.startswith("normalise.")}


def _matched(file: _File, wanted: Mapping[str, Tensor]) -> _Match:
    """The reading of the file's names (key map, prefix taken off) under which most numbers fit."""
    found: list[_Match] = []
    for key_map, card in file.maps:
        by_prefix: dict[str, dict[str, str]] = defaultdict(dict)
        for key in file.tensors:
            parts = key.split(".")
            for start in range(len(parts)):
                ours = key_map(".".join(parts[start:]))
                if ours in wanted:
                    by_prefix["".join(f"{part}." for part in parts[:start])][ours] = key
        for prefix, keys in by_prefix.items():
            size = sum(
                wanted[ours].numel() for ours, key in keys.items() if _alike(file.tensors[key], wanted[ours])
            )
            found.append(_Match(keys=keys, prefix=prefix, size=size, card=card))
    nothing = _Match(keys={}, prefix="", size=0, card=None)
    return max(found, key=lambda match: (match.size, -len(match.prefix)), default=nothing)


def _alike(value: Tensor, wanted: Tensor) -> bool:
    """Equal in shape, or but for what can be converted: input channels, a third dimension."""
    if value.ndim < 3:
        return value.shape == wanted.shape
    return value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2 : value.ndim]


def _channels_seen(file: _File, match: _Match, encoder: Encoder) -> int:
    """Image channels that the file was trained with, by its first convolution."""
    wanted, seen = _stage_tensors(encoder), set()
    for ours, key in match.keys.items():
        value, target = file.tensors[key], wanted[ours]
        # Equal shapes say nothing: depthwise convolutions have one input channel whatever the image has.
        if value.ndim > 2 and _alike(value, target) and target.shape[1] == encoder.in_channels:
            seen.add(value.shape[1])
    seen.discard(encoder.in_channels)
    return seen.pop() if len(seen) == 1 else encoder.in_channels


def _fit(encoder: Encoder, file: _File, match: _Match, channels: int) -> tuple[list[Row], dict[str, Tensor]]:
    """Turn each tensor of the file into one of the encoder's, and write down what was done with it."""
    rows: list[Row] = []
    fitted: dict[str, Tensor] = {}
    parameters = {name for name, _ in encoder.named_parameters()}
    for name, target in _stage_tensors(encoder).items():
        kind: Literal["parameter", "buffer"] = "parameter" if name in parameters else "buffer"
        state: State = "re-initialised"
        key = match.keys.get(name)
        how = _ABSENT
        if key is not None:
            value, steps = _converted(file.tensors[key], target, channels, encoder.in_channels)
            if value is None:
                how = f"`{key}` has {tuple(file.tensors[key].shape)}, the encoder wants {tuple(target.shape)}"
            else:
                fitted[name] = value
                state = "converted" if steps else "loaded"
                how = f"from `{key}`" + "".join(f"; {step}" for step in steps)
        rows.append(Row(name=name, shape=tuple(target.shape), state=state, how=how, kind=kind))
    used = {match.keys[name] for name in fitted}
    for key, value in file.tensors.items():
        constant = key.startswith(match.prefix) and _NORMALISE.fullmatch(key.removeprefix(match.prefix))
        if key not in used and not constant:
            known = key in match.keys.values()
            how = "of another shape" if known else "no tensor of this encoder has this name"
            rows.append(Row(name=key, shape=tuple(value.shape), state="unused", how=how, kind="file"))
    return rows, fitted


def _converted(value: Tensor, target: Tensor, trained: int, built: int) -> tuple[Tensor | None, list[str]]:
    """`value` in the shape and type of `target`, and the steps; None where no exact rule leads there."""
    steps: list[str] = []
    if value.ndim == 4 and target.ndim == 5 and value.shape[2:] == target.shape[2:4]:
        value = inflate_centre(value, target.shape[4])
        steps.append(f"2D kernel put into the middle of {target.shape[4]}")
    is_first = value.ndim > 2 and value.shape[1] == trained and target.shape[1] == built and trained < built
    if is_first and _alike(value, target):
        value = spread_channels(value, built)
        steps.append(f"{trained} input channels spread over {built}")
    if value.shape != target.shape:
        return None, []
    if value.dtype != target.dtype:
        steps.append(f"{_plain(value.dtype)} to {_plain(target.dtype)}")
    return value, steps


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _coverage(rows: Sequence[Row]) -> float:
    """Share of the encoder's parameters that came from the file."""
    parameters = [row for row in rows if row.kind == "parameter"]
    came = sum(row.size for row in parameters if row.state in ("loaded", "converted"))
    return came / max(sum(row.size for row in parameters), 1)


def _too_little(spec: EncoderSpec, file: _File, rows: Sequence[Row], coverage: float) -> WeightsError:
    """What did not fit, with the first names of both sides."""
    lost = [row for row in rows if row.state == "re-initialised" and row.kind == "parameter"]
    seen = (
        f"{coverage:.1%} of the parameters found in the file; {len(lost)} tensors missing or of another shape"
    )
    if coverage == 0:
        theirs = ", ".join(list(file.tensors)[:3])
        seen += (
            f"; the file has {theirs}, ... the encoder wants {', '.join(row.name for row in lost[:3])}, ..."
        )
    else:
        seen += "; " + "; ".join(f"{row.name}: {row.how}" for row in lost[:3])
    todo = "another architecture? name the encoder that the file belongs to, or lower encoder.min_coverage"
    return WeightsError(f"{file.path} for {spec.id}", seen, f"at least {spec.min_coverage:.0%}", todo)


def _require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights with NaN or infinity: the first batch would fail far from the cause."""
    bad = [
        name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise WeightsError(
            str(path), f"NaN or infinity in {names}", "finite numbers", "use an earlier checkpoint"
        )


def _place_constants(encoder: Encoder, spec: EncoderSpec, file: _File, match: _Match) -> tuple[str, ...]:
    """Put mean and std where they belong; returns where they came from when it was not the tag's own card."""
    wanted = encoder.in_channels
    own = {
        found.group(1): value.float().tolist()
        for key, value in file.tensors.items()
        if key.startswith(match.prefix) and (found := _NORMALISE.fullmatch(key.removeprefix(match.prefix)))
    }
    card = file.card or match.card
    if file.card is None and own.keys() == {"mean", "std"}:
        mean, std = own["mean"], own["std"]
        note = "mean and std are those in the file"
    elif card is not None:
        mean, std = list(card.mean), list(card.std)
        note = (
            ""
            if file.card
            else f"mean and std are those of {spec.id}.{card.tag}, whose key names the file has"
        )
    else:
        place_normalise(encoder, spec.in_channels, encoder.normalise)
        return ("mean and std are not in the file: the encoder's own defaults are used",)
    place_normalise(encoder, spec.in_channels, Normalise(cycled(mean, wanted), cycled(std, wanted)))
    return (note,) if note else ()


def _normalise_rows(encoder: Encoder, constants: Iterable[str]) -> list[Row]:
    """The normalisation's buffers: from the card, or as the note says."""
    how = next(iter(constants), "from the weights card")
    state: State = "re-initialised" if "defaults" in how else "loaded"
    buffers = encoder.normalise.state_dict(prefix="normalise.")
    return [
        Row(name=n, shape=tuple(v.shape), state=state, how=how, kind="buffer") for n, v in buffers.items()
    ]


def _notes(match: _Match, rows: Sequence[Row]) -> list[str]:
    """What a reader should know beyond the table."""
    notes = [f"the prefix `{match.prefix}` was taken off the file's names"] if match.prefix else []
    misfits = [row for row in rows if row.state == "re-initialised" and row.how != _ABSENT]
    if misfits:
        notes.append(
            f"{len(misfits)} tensors stay random, of another shape: {misfits[0].name}, {misfits[0].how}"
        )
    lost = [row.name for row in rows if row.kind == "buffer" and row.state == "re-initialised"]
    lost = [name for name in lost if not name.endswith("num_batches_tracked")]
    if lost:
        notes.append(
            f"{len(lost)} running statistics, {lost[0]} first, are not in the file: they stay as built"
        )
    return notes


def _random_receipt(encoder: Encoder, spec: EncoderSpec) -> Receipt:
    """Every tensor as built."""
    parameters = {name for name, _ in encoder.named_parameters()}
    rows = tuple(
        Row(
            name=name,
            shape=tuple(value.shape),
            state="re-initialised",
            how="as built: no weights asked for",
            kind="parameter" if name in parameters else "buffer",
        )
        for name, value in encoder.state_dict().items()
    )
    return Receipt(encoder=spec.id, weights="none", rows=rows, coverage=0.0)
