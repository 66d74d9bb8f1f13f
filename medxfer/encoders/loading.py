"""Load weights into an encoder exactly: every tensor accounted for, too little of it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bundle.schema import EncoderSpec
from ..cards import EncoderCard, WeightsCard
from ..errors import WeightsError
from ..plugin import Encoder
from ..progress import Progress
from .constants import constant_named, normalise_rows, place_constants
from .filling import fill
from .fitting import ABSENT, coverage_of, fit, left_over
from .matching import Match, WeightsFile, channels_seen, match_names, readings_of
from .receipt import Receipt, Row
from .registry import build, card_of
from .sources import bundle_weights, remembered_sha256
from .weights import read_tensors, require, weights_card

__all__ = ["Receipt", "Row", "create_encoder"]

_FILE_ENDINGS = {".safetensors", ".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl", ".tar", ".ts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """An encoder built for a file, not yet filled."""

    encoder: Encoder
    tensors: Mapping[str, Tensor]  # of its stages, to be filled
    match: Match
    channels: int  # of images, in the file
    options: Mapping[str, Any]


def create_encoder(
    spec: EncoderSpec, *, spatial_dims: int = 2, say: Progress | None = None
) -> tuple[Encoder, Receipt]:
    """Build an encoder and load its weights.

    Random weights come from torch's global generator, whose state is as before afterwards.

    Args:
        spec: Which encoder, from which weights, for how many image channels.
        spatial_dims: 2 or 3.
        say: Shows the progress of weights that are fetched.

    Returns:
        The encoder, taking images of `spec.in_channels` channels in [0, 1], and the receipt of its tensors.

    Raises:
        PluginError: The encoder is unknown, broken, ambiguous or not made for this.
        WeightsError: The weights are unknown, absent, damaged, not finite, need other options than
            `spec.options`, or fill less than `spec.min_coverage`.
    """
    if spec.weights == "none":
        encoder = build(
            spec.id, spatial_dims=spatial_dims, in_channels=spec.in_channels, options=spec.options
        )
        return encoder, _random_receipt(encoder, spec)
    file = _open(spec, card_of(spec.id), say)
    built = _built_to_fit(spec, spatial_dims, file)
    encoder, match = built.encoder, built.match
    wanted = built.tensors
    rows, fitted = fit(
        file.tensors,
        match.keys,
        wanted,
        {name for name, _ in encoder.named_parameters()},
        trained=built.channels,
        built=encoder.in_channels,
    )
    unused = left_over(file.tensors, match.keys, _used(file, match, fitted))
    rows += unused
    coverage = coverage_of(rows)
    if coverage < spec.min_coverage:
        raise _too_little(spec, file, built, rows, coverage)
    beyond = _beyond(unused, match)
    _require_no_more(spec, file, beyond, rows)
    _require_finite(file.path, fill(wanted, fitted))
    constants = place_constants(encoder, spec, file, match, built.channels)
    receipt = Receipt(
        encoder=spec.id,
        weights=file.card.tag if file.card else str(file.path),
        options=built.options,
        rows=(*rows, *normalise_rows(encoder, constants)),
        coverage=coverage,
        file=str(file.path),
        sha256=file.sha256,
        licence=file.card.licence if file.card else None,
        trained_on=file.card.trained_on if file.card else None,
        notes=(*file.notes, *_notes(spec, built, rows, beyond), *constants),
    )
    return encoder, receipt


def _open(spec: EncoderSpec, card: EncoderCard, say: Progress | None) -> WeightsFile:
    """Find, verify and read what `spec.weights` names: a tag of the card, a file, or a MONAI bundle's folder."""
    named = card.weights_tagged(spec.weights)
    path = Path(spec.weights).expanduser()
    notes: tuple[str, ...] = ()
    if named is None and path.is_dir():
        path, note = bundle_weights(path)
        notes = (note,)
    elif named is None and not path.is_file():
        if len(path.parts) > 1 or path.suffix in _FILE_ENDINGS:
            todo = "check the path; it starts in the working folder"
            raise WeightsError(
                f"encoder.weights: {spec.weights}", "no such file", "a weights file, or a tag", todo
            )
        named = weights_card(card, spec.weights)
    if named is not None:
        _option_sets(spec, card, named)  # refused before anything is fetched
        path = require(named, card.id, say)
    sha256 = remembered_sha256(path)
    if named is None:
        named = next((weights for weights in card.weights if weights.sha256 == sha256), None)
        if named:
            notes = (*notes, f"the file is {card.id}.{named.tag}, by its hash")
    tensors, opened = read_tensors(path)
    return WeightsFile(
        path=path,
        sha256=sha256,
        tensors=tensors,
        card=named,
        readings=readings_of(card, [named] if named else card.weights),
        option_sets=_option_sets(spec, card, named),
        notes=(*notes, *opened),
    )


def _option_sets(
    spec: EncoderSpec, card: EncoderCard, named: WeightsCard | None
) -> tuple[Mapping[str, Any], ...]:
    """What the encoder may have to be built with: a tag says it, for somebody's own file any tag's may be right.

    Raises:
        WeightsError: The tag needs other options than the user's.
    """
    if named is None:
        found: list[Mapping[str, Any]] = [dict(spec.options)]
        for tag in card.weights:
            merged = {**tag.options, **spec.options}
            if merged not in found and not _contradictions(tag, spec):
                found.append(merged)
        return tuple(found)
    for name in _contradictions(named, spec):
        raise WeightsError(
            f"encoder.options.{name}",
            repr(spec.options[name]),
            f"{named.options[name]!r}, which {card.id}.{named.tag} was trained with",
            "remove the option, or choose other weights",
        )
    return ({**spec.options, **named.options},)


def _contradictions(tag: WeightsCard, spec: EncoderSpec) -> list[str]:
    return [name for name, value in tag.options.items() if spec.options.get(name, value) != value]


def _built_to_fit(spec: EncoderSpec, spatial_dims: int, file: WeightsFile) -> _Built:
    """Built with the options under which most of the file fits; mostly there is one choice."""
    best: _Built | None = None
    for options in file.option_sets:
        built = _built_with(options, spec, spatial_dims, file)
        if best is None or _share(built) > _share(best):
            best = built
        if _share(best) == 1:
            break
    assert best is not None  # there is always one set of options
    return best


def _built_with(
    options: Mapping[str, Any], spec: EncoderSpec, spatial_dims: int, file: WeightsFile
) -> _Built:
    """Build with enough channels for images and weights; a file without a card tells its by its shapes."""
    channels = file.card.in_channels if file.card else spec.in_channels
    while True:
        wanted = max(spec.in_channels, channels)
        encoder = build(spec.id, spatial_dims=spatial_dims, in_channels=wanted, options=options)
        tensors = _stage_tensors(encoder)
        match = match_names(file, tensors)
        seen = channels if file.card else channels_seen(file, match, encoder, tensors)
        if seen <= wanted:
            return _Built(encoder=encoder, tensors=tensors, match=match, channels=seen, options=options)
        channels = seen


def _share(built: _Built) -> float:
    """How much of an encoder's tensors a file fits, buffers included."""
    return built.match.size / max(sum(value.numel() for value in built.tensors.values()), 1)


def _stage_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """Parameters and buffers by name, the normalisation apart: its constants come from the card."""
    return {name: value for name, value in encoder.state_dict().items() if not name.startswith("normalise.")}


def _used(file: WeightsFile, match: Match, fitted: Mapping[str, Tensor]) -> set[str]:
    """Names in the file that found a place, normalisation constants among them."""
    constants = {key for key in file.tensors if constant_named(key, match)}
    return {match.keys[name] for name in fitted} | constants


def _too_little(
    spec: EncoderSpec, file: WeightsFile, built: _Built, rows: Sequence[Row], coverage: float
) -> WeightsError:
    """What did not fit: other dimensions, other names, or other shapes, with the first ones."""
    where = f"{file.path} for {spec.id} in {built.encoder.spatial_dims}D"
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
        theirs = ", ".join(list(file.tensors)[:3])
        seen += (
            f"; the file has {theirs}, ... the encoder wants {', '.join(row.name for row in lost[:3])}, ..."
        )
    else:
        seen += "; " + "; ".join(f"{row.name}: {row.how}" for row in lost[:3])
    todo = "another architecture? name the encoder that the file belongs to, or lower encoder.min_coverage"
    return WeightsError(where, seen, f"at least {spec.min_coverage:.0%}", todo)


def _beyond(unused: Sequence[Row], match: Match) -> list[Row]:
    """What the file has inside of our stages that the encoder has not: layers, not a head."""
    names = {
        row.name: row.name.removeprefix(match.prefix) for row in unused if row.name.startswith(match.prefix)
    }
    return [
        row
        for row in unused
        if row.name in names
        and row.name not in match.keys.values()
        and match.reading.key_map(names[row.name]).startswith("stages.")
        and row.size > 1  # counters of batches are no layers
    ]


def _require_no_more(
    spec: EncoderSpec, file: WeightsFile, beyond: Sequence[Row], rows: Sequence[Row]
) -> None:
    """Refuse the file of a deeper network: every tensor found, but the layers between them are not there."""
    left = sum(row.size for row in beyond)
    used = sum(row.size for row in rows if row.state in ("loaded", "converted"))
    if left <= (1 - spec.min_coverage) * (left + used):
        return
    seen = f"{left / (left + used):.1%} of what the file has in these stages finds no place: {beyond[0].name}"
    accepted = f"at most {1 - spec.min_coverage:.0%} left out"
    todo = (
        "a deeper or another architecture? name the encoder that the file belongs to, or lower min_coverage"
    )
    raise WeightsError(f"{file.path} for {spec.id}", seen, accepted, todo)


def _require_finite(path: Path, bad: Sequence[str]) -> None:
    """Refuse weights with NaN or infinity: the first batch would fail far from the cause."""
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise WeightsError(
            str(path), f"NaN or infinity in {names}", "finite numbers", "use an earlier checkpoint"
        )


def _notes(spec: EncoderSpec, built: _Built, rows: Sequence[Row], beyond: Sequence[Row]) -> list[str]:
    """What a reader should know beyond the table."""
    match, notes = built.match, []
    if match.prefix:
        notes.append(f"the prefix `{match.prefix}` was taken off the file's names")
    if match.reading.name and not match.reading.cards:
        notes.append(f"the file's names are those of the key map {match.reading.name}")
    added = {name: value for name, value in built.options.items() if name not in spec.options}
    if added:
        notes.append(f"built with what the weights need: {', '.join(f'{k}={v}' for k, v in added.items())}")
    if beyond:
        notes.append(
            f"{len(beyond)} tensors of layers that the encoder has not are left out: {beyond[0].name}"
        )
    misfits = [row for row in rows if row.state == "re-initialised" and row.how != ABSENT]
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
    return Receipt(encoder=spec.id, weights="none", options=spec.options, rows=rows, coverage=0.0)
