"""Normalisation constants of the weights: found in the file or on a card, put into the encoder."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..bundle.schema import EncoderSpec
from ..cards import WeightsCard
from ..plugin import Encoder, Normalise
from .adapt import cycled, place_normalise
from .matching import Match, WeightsFile
from .receipt import Row, State

_NORMALISE = re.compile(r"normalise(?:\.\d+)?\.(mean|std)")


def constant_named(key: str, match: Match) -> str | None:
    """`mean` or `std` where a file's tensor is a normalisation constant of one of our networks."""
    return constant_of(key.removeprefix(match.prefix)) if key.startswith(match.prefix) else None


def constant_of(name: str) -> str | None:
    """`mean` or `std` where a tensor of that name is a normalisation constant of an encoder."""
    found = _NORMALISE.fullmatch(name)
    return found.group(1) if found else None


def place_constants(
    encoder: Encoder, spec: EncoderSpec, file: WeightsFile, match: Match, channels: int
) -> tuple[str, ...]:
    """Put mean and std where they belong; returns where they came from when it was not the tag's own card."""
    wanted = encoder.in_channels
    own = {
        name: value.float().tolist()
        for key, value in file.tensors.items()
        if (name := constant_named(key, match))
    }
    card, note = file.card, ""
    if card is None and own.keys() == {"mean", "std"}:
        mean, std = own["mean"], own["std"]
        note = "mean and std are those in the file"
    else:
        if card is None:
            card = _speaking_for(file, match, channels)
            if card:
                same_names = card.key_map in (None, match.reading.name)
                why = "whose key names the file has" if same_names else "a file of the same network"
                note = f"assumed: mean and std are those of {spec.id}.{card.tag}, {why}"
        if card is None:
            place_normalise(encoder, spec.in_channels, encoder.normalise)
            return ("assumed: mean and std are the encoder's own defaults, for the file has none",)
        mean, std = list(card.mean), list(card.std)
    place_normalise(encoder, spec.in_channels, Normalise(cycled(mean, wanted), cycled(std, wanted)))
    return (note,) if note else ()


def _speaking_for(file: WeightsFile, match: Match, channels: int) -> WeightsCard | None:
    """The tag whose constants somebody's own file may have.

    Of those with its names, its channels and kernels of its dimensions, where they agree.
    """
    dims = max((file.tensors[key].ndim - 2 for key in match.keys.values()), default=0)
    cards = [
        card
        for card in match.reading.cards
        # 2D weights can be used in 3D too: their first dimensions are those they were trained in.
        if card.in_channels == channels and (dims < 2 or min(card.spatial_dims) == dims)
    ]
    agree = len({(card.mean, card.std) for card in cards}) == 1
    return cards[0] if agree else None


def normalise_rows(encoder: Encoder, constants: Iterable[str]) -> list[Row]:
    """The normalisation's buffers: from the card, or as the note says."""
    how = next(iter(constants), "from the weights card")
    state: State = "re-initialised" if "defaults" in how else "loaded"
    buffers = encoder.normalise.state_dict(prefix="normalise.")
    return [
        Row(name=n, shape=tuple(v.shape), state=state, how=how, kind="buffer") for n, v in buffers.items()
    ]
