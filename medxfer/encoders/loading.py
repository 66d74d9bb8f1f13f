"""Load weights into an encoder exactly: every tensor accounted for, too little of it refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bundle.schema import EncoderSpec
from ..cards import EncoderCard, WeightsCard
from ..errors import ConfigError, WeightsError
from ..plugin import Encoder
from ..progress import Progress
from .constants import constant_named, normalise_rows, place_constants
from .coverage import Built, beyond, require_coverage, require_dimensions, require_finite, require_no_more
from .filling import fill
from .fitting import ABSENT, coverage_of, fit, left_over
from .matching import Match, WeightsFile, channels_seen, match_names, readings_of
from .receipt import Receipt, Row
from .registry import build, card_of
from .sources import bundle_weights, remembered_sha256
from .weights import Opened, read_dictionaries, require, weights_card

__all__ = ["Receipt", "Row", "create_encoder"]

_FILE_ENDINGS = {".safetensors", ".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl", ".tar", ".ts"}


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
        ConfigError: No image channel, or a minimum that is no share.
        PluginError: The encoder is unknown, broken, ambiguous or not made for this.
        WeightsError: The weights are unknown, absent, damaged, not finite, for other dimensions, need other
            options than `spec.options`, or fill less than `spec.min_coverage` of the encoder or of a stage.
    """
    _require_sense(spec)
    if spec.weights == "none":
        encoder = build(
            spec.id, spatial_dims=spatial_dims, in_channels=spec.in_channels, options=spec.options
        )
        return encoder, _random_receipt(encoder, spec)
    file, dictionaries = _open(spec, spatial_dims, card_of(spec.id), say)
    file = _best_dictionary(spec, spatial_dims, file, dictionaries)
    built = _built_to_fit(spec, spatial_dims, file)
    encoder, match = built.encoder, built.match
    wanted = built.tensors
    rows, fitted = fit(
        file.tensors,
        match.keys,
        wanted,
        built.parameters,
        trained=built.channels,
        built=encoder.in_channels,
    )
    unused = left_over(file.tensors, match.keys, _used(file, match, fitted))
    rows += unused
    coverage = coverage_of(rows)
    require_coverage(spec, file, built, rows, coverage)
    extra = beyond(file, match)
    require_no_more(spec, file, extra, rows)
    require_finite(file.path, fill(wanted, fitted))
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
        notes=(*file.notes, *_notes(spec, built, rows, extra), *constants),
    )
    return encoder, receipt


def _require_sense(spec: EncoderSpec) -> None:
    """Refuse what configuration files are checked for and callers from Python are not."""
    if spec.in_channels < 1:
        seen = str(spec.in_channels)
        raise ConfigError("encoder.in_channels", seen, "1 or more", "give the channels of the images")
    if not 0 <= spec.min_coverage <= 1:
        raise ConfigError("encoder.min_coverage", str(spec.min_coverage), "a share, 0 to 1", "correct it")
    if not spec.weights.strip():
        todo = "write `none` for random weights"
        raise WeightsError("encoder.weights", repr(spec.weights), "a tag, a path, or `none`", todo)


def _open(
    spec: EncoderSpec, spatial_dims: int, card: EncoderCard, say: Progress | None
) -> tuple[WeightsFile, tuple[Opened, ...]]:
    """Find, verify and read what `spec.weights` names: a tag of the card, a file, or a MONAI bundle's folder.

    Returns:
        The file with its likeliest tensors, and every dictionary of tensors in it.
    """
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
        require_dimensions(card, named, spatial_dims)  # refused before anything is fetched
        _option_sets(spec, card, named)
        path = require(named, card.id, say)
    sha256 = remembered_sha256(path)
    if named is None:
        named = next((weights for weights in card.weights if weights.sha256 == sha256), None)
        if named:
            notes = (*notes, f"the file is {card.id}.{named.tag}, by its hash")
    dictionaries = read_dictionaries(path)
    file = WeightsFile(
        path=path,
        sha256=sha256,
        tensors=dictionaries[0].tensors,
        card=named,
        readings=readings_of(card, [named] if named else card.weights),
        option_sets=_option_sets(spec, card, named),
        notes=notes,
    )
    return file, dictionaries


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


def _best_dictionary(
    spec: EncoderSpec, spatial_dims: int, file: WeightsFile, dictionaries: Sequence[Opened]
) -> WeightsFile:
    """The file with those of its tensors that fit most of the encoder, and a note of others that fit as well."""
    chosen, others = dictionaries[0], []
    if len(dictionaries) > 1:
        encoder = build(
            spec.id,
            spatial_dims=spatial_dims,
            in_channels=spec.in_channels,
            options=file.option_sets[0],
        )
        tensors, parameters = _stage_tensors(encoder), _stage_parameters(encoder)
        sizes = [
            match_names(replace(file, tensors=one.tensors), tensors, parameters).size for one in dictionaries
        ]
        best = sizes.index(max(sizes))
        chosen = dictionaries[best]
        others = [
            one.wrapper
            for one, size in zip(dictionaries, sizes, strict=True)
            if size == sizes[best] > 0 and one is not chosen
        ]
    notes = [f"opened the wrapper `{chosen.wrapper}`"] if chosen.wrapper else []
    if others:
        notes.append(f"`{'`, `'.join(others)}` fits as well: to have that, save it alone")
    return replace(file, tensors=chosen.tensors, notes=(*file.notes, *notes))


def _built_to_fit(spec: EncoderSpec, spatial_dims: int, file: WeightsFile) -> Built:
    """Built with the options under which file and encoder leave least of each other out; of equals the first."""
    best: Built | None = None
    for options in file.option_sets:
        built = _built_with(options, spec, spatial_dims, file)
        if best is None or _agreement(built, file) > _agreement(best, file):
            best = built
        if len(file.option_sets) == 1 or _agreement(best, file) == 1:
            break
    assert best is not None  # there is always one set of options
    return best


def _built_with(options: Mapping[str, Any], spec: EncoderSpec, spatial_dims: int, file: WeightsFile) -> Built:
    """Build with enough channels for images and weights; a file without a card tells its by its shapes."""
    channels = file.card.in_channels if file.card else spec.in_channels
    while True:
        wanted = max(spec.in_channels, channels)
        encoder = build(spec.id, spatial_dims=spatial_dims, in_channels=wanted, options=options)
        tensors, parameters = _stage_tensors(encoder), _stage_parameters(encoder)
        match = match_names(file, tensors, parameters)
        seen = channels if file.card else channels_seen(file, match, encoder, tensors)
        if seen <= wanted:
            return Built(
                encoder=encoder,
                tensors=tensors,
                parameters=parameters,
                match=match,
                channels=seen,
                options=options,
            )
        channels = seen


def _agreement(built: Built, file: WeightsFile) -> float:
    """Numbers of the parameters that fit, as a share of all that encoder and file have inside the stages.

    Buffers do not count: files of older libraries have no counters of batches, some have no statistics.
    """
    wanted = sum(built.tensors[name].numel() for name in built.parameters)
    left = sum(file.tensors[key].numel() for key in beyond(file, built.match))
    return built.match.size / max(wanted + left, 1)


def _stage_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """Parameters and buffers by name, the normalisation apart: its constants come from the card."""
    return {name: value for name, value in encoder.state_dict().items() if not name.startswith("normalise.")}


def _stage_parameters(encoder: Encoder) -> frozenset[str]:
    return frozenset(name for name, _ in encoder.named_parameters() if not name.startswith("normalise."))


def _used(file: WeightsFile, match: Match, fitted: Mapping[str, Tensor]) -> set[str]:
    """Names in the file that found a place, normalisation constants among them."""
    constants = {key for key in file.tensors if constant_named(key, match)}
    return {match.keys[name] for name in fitted} | constants


def _notes(spec: EncoderSpec, built: Built, rows: Sequence[Row], extra: Sequence[str]) -> list[str]:
    """What a reader should know beyond the table."""
    match, notes = built.match, []
    if match.prefix:
        notes.append(f"the prefix `{match.prefix}` was taken off the file's names")
    if match.others:
        notes.append(f"the prefix `{'`, `'.join(match.others)}` fits as well: to have that, save it alone")
    known = {card.key_map or spec.id for card in match.reading.cards}
    if match.reading.name and match.reading.name not in known:
        notes.append(f"the file's names are those of the key map {match.reading.name}")
    added = {name: value for name, value in built.options.items() if name not in spec.options}
    if added:
        notes.append(f"built with what the weights need: {', '.join(f'{k}={v}' for k, v in added.items())}")
    if extra:
        notes.append(f"{len(extra)} tensors of layers that the encoder has not are left out: {extra[0]}")
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
