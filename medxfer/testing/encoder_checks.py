"""The conformance kit: what an encoder promises, as small functions that an author's own tests can run.

from medxfer.testing import encoder_checks

@encoder_checks("tinyconv", spatial_dims=(2, 3))
def test_conformance(check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .carrying_checks import check_copies, check_export, check_meta_device, check_safetensors
from .number_checks import (
    check_batch_independence,
    check_bf16,
    check_build_seed,
    check_channels_last,
    check_determinism,
)
from .offline import reaching_out
from .package_checks import (
    check_builds,
    check_card_file,
    check_entry_point,
    check_fetches_nothing,
    check_import,
    check_weights,
)
from .shape_checks import (
    check_attributes,
    check_card,
    check_in_channels,
    check_maps,
    check_normalisation,
    check_odd_sizes,
    check_stages_own_everything,
    check_strides,
)
from .subject import CheckFailed, Subject, explained
from .training_checks import check_chain, check_freezing, check_gradients, check_heads, check_modes

Function = Callable[[Subject], str | None]

# Without these nothing can be looked at.
_GROUND: tuple[Function, ...] = (check_entry_point, check_fetches_nothing, check_builds, check_attributes)
# Run first: a fault here has consequences in others, which are folded under it.
_FIRST: tuple[Function, ...] = (
    check_card,
    check_stages_own_everything,
    check_maps,
    check_strides,
    check_freezing,
    check_determinism,
)
# Of the package, not of its dimensions: run once.
_ONCE: tuple[Function, ...] = (check_entry_point, check_import, check_card_file, check_weights)

CHECKS: tuple[Function, ...] = (
    *_GROUND,
    *_FIRST,
    check_import,
    check_card_file,
    check_odd_sizes,
    check_in_channels,
    check_chain,
    check_modes,
    check_gradients,
    check_heads,
    check_batch_independence,
    check_build_seed,
    check_bf16,
    check_channels_last,
    check_meta_device,
    check_safetensors,
    check_copies,
    check_export,
    check_normalisation,
    check_weights,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a check found. `follows`: it failed, as it would where `root`, run before it, fails."""

    check: str  # odd_sizes
    spatial_dims: int | None  # None: a check of the package
    state: Literal["passed", "failed", "follows", "expected"]
    text: str = ""  # the failure, a remark, or why it is expected to fail
    root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of one encoder in one number of dimensions, to be called."""

    subject: Subject
    function: Function
    expected: str | None = None  # why it is expected to fail
    name: str = ""

    def __call__(self) -> None:
        """Run it.

        Raises:
            CheckFailed: The promise is broken; or an expected failure passed.
        """
        found = self.outcome()
        if found.state == "failed":
            raise CheckFailed(f"{self.name}: {found.text}")
        if found.state == "follows":
            raise CheckFailed(f"{self.name}: {found.text} (may follow from {found.root}: mend that first)")

    def outcome(self) -> Outcome:
        """Run it and say what was found."""
        once = self.function in _ONCE
        about: dict[str, Any] = {
            "check": _word(self.function),
            "spatial_dims": None if once else self.subject.spatial_dims,
        }
        # Where nothing can be built there is nothing else to see.
        if self.function is not check_entry_point and _run(check_entry_point, self.subject)[0] is not None:
            return Outcome(state="follows", text="not looked at", root=_word(check_entry_point), **about)
        expected = self.expected or _expected_by_card(self.subject).get(self.function.__name__)
        failure, remark = _run(self.function, self.subject)
        if failure is None and expected is not None:
            text = f"passes, though declared to fail ({expected}): take it out"
            return Outcome(state="failed", text=text, **about)
        if failure is None:
            return Outcome(state="passed", text=remark, **about)
        if expected is not None:
            return Outcome(state="expected", text=expected, **about)
        root = next((_word(one) for one in self._roots() if _run(one, self.subject)[0] is not None), "")
        return Outcome(state="follows" if root else "failed", text=failure, root=root, **about)

    def _roots(self) -> Iterator[Function]:
        """What may be the cause of a failure here, in order."""
        if self.function in _GROUND:
            yield from _GROUND[: _GROUND.index(self.function)]
        elif self.function not in (check_import, check_card_file):
            yield from _GROUND
            if self.function not in _FIRST and self.function is not check_weights:
                yield from _FIRST


def _run(function: Function, subject: Subject) -> tuple[str | None, str]:
    """Why a check fails, or None, and its remark; run once for a subject."""
    known = subject.found.get(function.__name__)
    if known is not None:
        return known
    state = torch.get_rng_state()
    try:
        with reaching_out(), explained("raised", "run it in Python to see where"):
            remark = function(subject)
    except CheckFailed as error:
        subject.found[function.__name__] = (str(error), "")
    else:
        subject.found[function.__name__] = (None, remark or "")
    finally:
        torch.set_rng_state(state)
    return subject.found[function.__name__]


def _expected_by_card(subject: Subject) -> Mapping[str, str]:
    try:
        return subject.card.expected_failures
    except (Exception, SystemExit):  # a broken card is what check_card_file tells
        return {}


def _word(function: Function) -> str:
    return function.__name__.removeprefix("check_")


def all_checks(
    encoder_id: str, *, spatial_dims: Sequence[int] = (2,), expected_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """Every check of an encoder, in the order in which they are best read.

    Args:
        encoder_id: As listed.
        spatial_dims: The numbers of dimensions to check in.
        expected_failures: Name of a check -> why it cannot pass.
    """
    expected = dict(expected_failures or {})
    unknown = expected.keys() - {function.__name__ for function in CHECKS}
    if unknown:
        raise ValueError(f"expected_failures names unknown checks: {', '.join(sorted(unknown))}")
    checks: list[Check] = []
    for number, dims in enumerate(spatial_dims):
        subject = Subject(encoder_id, dims)
        for function in CHECKS:
            if function in _ONCE and number > 0:
                continue
            name = f"{encoder_id}-{dims}D-{_word(function)}"
            checks.append(
                Check(subject=subject, function=function, expected=expected.get(function.__name__), name=name)
            )
    return checks


def encoder_checks(
    *encoder_ids: str, spatial_dims: Sequence[int] = (2,), expected_failures: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Any]:
    """Turn a test with an argument `check` into one named test a check; needs pytest."""
    import pytest

    checks = [
        check
        for encoder_id in encoder_ids
        for check in all_checks(encoder_id, spatial_dims=spatial_dims, expected_failures=expected_failures)
    ]
    return pytest.mark.parametrize("check", checks, ids=[check.name for check in checks])
