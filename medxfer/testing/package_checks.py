"""What a plugin's package promises: entry point, clean import, card, weights."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..bundle.schema import EncoderSpec
from ..cards import EncoderCard, WeightsCard
from ..encoders.loading import create_encoder
from ..encoders.receipt import Row
from ..encoders.registry import Listing, list_encoders
from ..encoders.sources import on_this_machine
from ..encoders.undisturbed import cause_of, undisturbed
from ..errors import MedxferError
from .import_probe import side_effects
from .offline import reaching_out
from .subject import CheckFailed, Subject, require

# An SPDX expression: ids joined by AND, OR, WITH. Which ids exist changes with the list's version; that
# somebody wrote "MIT License" or "unknown" does not.
_SPDX_ID = r"(?!(?:unknown|none|custom|other|proprietary|license|licence)\b)[A-Za-z0-9][A-Za-z0-9.+-]*"
_SPDX = re.compile(rf"\(?{_SPDX_ID}\)?(?: (?:AND|OR|WITH) \(?{_SPDX_ID}\)?)*", re.IGNORECASE)
_URL = re.compile(r"https?://\S+\.\S+")
_ENOUGH = 0.95  # EncoderSpec.min_coverage


def check_entry_point(subject: Subject) -> str | None:
    """1: the entry point loads, and `build` takes the options of the card by name and nothing else."""
    listing = subject.listing
    if listing is None:
        return "made by a function: no entry point to look at"
    require(listing.error is None, str(listing.error))
    function, value = _loaded(listing)
    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    advice = "name its options, so that a misspelt one is refused"
    require(inspect.Parameter.VAR_KEYWORD not in kinds, f"`{value}` takes **kwargs; {advice}")
    wanted = ("spatial_dims", "in_channels")
    missing = [name for name in wanted if name not in parameters]
    require(not missing, f"`{value}` takes no `{'`, `'.join(missing)}`: every build function does")
    if subject.is_adapted:
        return None
    taken = {name: one.default for name, one in parameters.items() if name not in wanted}
    _same_options(value, taken, subject.card)
    return None


def _loaded(listing: Listing) -> tuple[Callable[..., Any], str]:
    assert listing.entry is not None  # a clash has none, and has an error
    try:
        with undisturbed():
            return listing.entry.load(), listing.entry.value
    except (Exception, SystemExit) as error:
        why = cause_of(error) if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        text = f"`{listing.entry.value}` cannot be loaded: {why}"
        raise CheckFailed(f"{text}; import the package in Python to see where") from error


def _same_options(value: str, taken: dict[str, Any], card: EncoderCard) -> None:
    """The arguments of `build` and the options of the card, names and defaults."""
    for name, default in taken.items():
        require(default is not inspect.Parameter.empty, f"`{value}` has no default for `{name}`: give it one")
        require(
            name in card.options, f"`{value}` takes `{name}`, no option of the card: add it to cards.yaml"
        )
        said = card.options[name]
        same = said == (list(default) if isinstance(default, tuple) else default)
        require(same, f"`{name}` is {default!r} in `{value}` and {said!r} on the card: make them equal")
    absent = sorted(set(card.options) - set(taken))
    require(not absent, f"the card has options {absent} that `{value}` does not take: take them out")


def check_fetches_nothing(subject: Subject) -> None:
    """27: building reaches for no network and reads no weights file."""
    advice = "let medxfer find weights by the card"
    with reaching_out() as reached, suppress(Exception, SystemExit):  # why it fails: check_builds
        subject.build_anew()
    require(not reached, f"building reaches for {reached[0] if reached else ''}; {advice}")


def check_builds(subject: Subject) -> None:
    """28: it can be built; the whole cause where it cannot."""
    if subject.is_built:
        return
    try:
        subject.build_anew()
    except (Exception, SystemExit) as error:
        said = [
            f"{error.where}: {error.seen}; {error.todo}"
            if isinstance(error, MedxferError)
            else cause_of(error)
        ]
        for cause in (error, error.__cause__):
            if cause is not None and not isinstance(cause, MedxferError | SystemExit):
                text = f"{type(cause).__name__}: {cause}"
                said = [text] if cause is error else [*said, text]
        raise CheckFailed(f"cannot be built in {subject.spatial_dims}D: " + "\n".join(said)) from error


def check_import(subject: Subject) -> str | None:
    """2: importing it does nothing else; looked at in a fresh process, once a distribution."""
    listing = subject.listing
    if listing is None or listing.entry is None:
        return "made by a function: no module to import"
    modules = tuple(
        sorted(
            {
                one.entry.module
                for one in list_encoders()
                if one.entry is not None and one.distribution == listing.distribution
            }
        )
    )
    module = listing.entry.module
    effects = side_effects(modules, tuple(sys.path))[module]
    require(not effects, f"importing `{module}`: " + "; ".join(effects))
    return None


def check_card_file(subject: Subject) -> str | None:
    """3: the card is there, found without importing the package (see 2), complete and sane."""
    listing = subject.listing
    if listing is not None and not subject.is_adapted:
        entry = 'an entry point in the group "medxfer.cards"'
        require(
            listing.card is not None, f"{listing.distribution} has no card for `{subject.id}`; add {entry}"
        )
    card = subject.card
    _require_stated(f"{card.id}", card.licence, card.citation)
    for weights in card.weights:
        where = f"{card.id}.weights.{weights.tag}"
        _require_stated(where, weights.licence, weights.citation)
        require(bool(weights.trained_on.strip()), f"{where} does not say what it was trained on")
        require(min(weights.std) > 0, f"{where} has std {min(weights.std)}: above 0")
        low, high = min(weights.mean), max(weights.mean)
        text = f"{where} has means {low:g} to {high:g}; of inputs in [0, 1], divide by 255 where they are of bytes"
        require(low >= -1.0 and high <= 2.0, text)
        if _is_packaged(weights):
            stated = weights.sha256 is not None
            require(stated, f"{where} is packaged and has no sha256; add what `sha256sum` says of the file")
    unstated = [weights.tag for weights in card.weights if weights.sha256 is None]
    return f"no hash stated by the publisher: {', '.join(unstated)}" if unstated else None


def _require_stated(where: str, licence: str, citation: str) -> None:
    known = bool(_SPDX.fullmatch(licence) or _URL.search(licence))
    advice = "add an SPDX id, or `see URL` with the publisher's URL"
    require(known, f"cards.yaml: {where} has the licence {licence!r}; {advice}")
    stated = bool(citation.strip()) and not citation.startswith("not stated")
    require(
        stated, f"cards.yaml: {where} has no citation; add the paper or the repository that it comes from"
    )


def _is_packaged(weights: WeightsCard) -> bool:
    source = weights.source if isinstance(weights.source, str) else weights.source[0]
    return source.startswith("package:")


def check_weights(subject: Subject) -> str | None:
    """25 and 27: each weights file on this machine has its hash, no pickle, and fills the encoder."""
    if subject.listing is None:
        return "made by a function: no weights to look at"
    looked: list[str] = []
    absent: list[str] = []
    for weights in subject.card.weights:
        if not on_this_machine(weights):
            absent.append(weights.tag)
            continue
        _require_filled(subject, weights)
        looked.append(weights.tag)
    notes = [f"loaded: {', '.join(looked)}"] if looked else []
    notes += [f"not on this machine: {', '.join(absent)}"] if absent else []
    return "; ".join(notes) or "no weights on the card"


def _require_filled(subject: Subject, weights: WeightsCard) -> None:
    """Load it in the dimensions that it was made for: the first of the card's in which it fits."""
    refusals: list[str] = []
    where = f"{subject.id}.{weights.tag}"
    for dims in sorted(subject.card.spatial_dims):
        spec = EncoderSpec(
            id=subject.id,
            weights=weights.tag,
            in_channels=weights.in_channels,
            options=dict(weights.options),
        )
        try:
            _, receipt = create_encoder(spec, spatial_dims=dims)
        except MedxferError as error:
            refusals.append(f"{dims}D: {error.where}: {error.seen}; {error.todo}")
            continue
        share = receipt.coverage
        require(share >= _ENOUGH, f"{where} fills {share:.1%} of the parameters, not {_ENOUGH:.0%}")
        lost = [row for row in receipt.of("re-initialised") if _matters(row)]
        first = f"`{lost[0].name}`: {lost[0].how}" if lost else ""
        text = f"{where} leaves {len(lost)} tensors as built, {first}; mend the key map or the network"
        require(not lost, text)
        return
    raise CheckFailed(f"{where} does not load: " + "; ".join(refusals))


def _matters(row: Row) -> bool:
    """Parameters and running statistics; a counter or a table of indices is computed anew."""
    return row.kind == "parameter" or row.name.endswith(("running_mean", "running_var"))
