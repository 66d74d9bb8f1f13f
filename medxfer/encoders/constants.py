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
    if not key.startswith(match.prefix):
        return None
    found = _NORMALISE.fullmatch(key.removeprefix(match.prefix))
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
            card = _speaking_for(match, channels)
            note = (
                f"mean and std are those of {spec.id}.{card.tag}, whose key names the file has"
                if card
                else ""
            )
        if card is None:
            place_normalise(encoder, spec.in_channels, encoder.normalise)
            return ("mean and std are not in the file: the encoder's own defaults are used",)
        mean, std = list(card.mean), list(card.std)
    place_normalise(encoder, spec.in_channels, Normalise(cycled(mean, wanted), cycled(std, wanted)))
    return (note,) if note else ()


def _speaking_for(match: Match, channels: int) -> WeightsCard | None:
    """The tag whose constants somebody's own file has: of those with its names and channels, where they agree."""
    cards = [card for card in match.reading.cards if card.in_channels == channels]
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
