"""The kit finds what it is there to find."""

from __future__ import annotations

import pytest
import torch

from medxfer.cards import EncoderCard
from medxfer.testing import CHECKS, Check, CheckFailed, Subject, all_checks

from . import broken


def subject_of(kind: type) -> Subject:
    sound = broken.Sound()
    card = EncoderCard(
        id="toy",
        parameters={2: sum(p.numel() for p in sound.parameters())},
        channels=sound.channels,
        strides=(2, 4, 8),
        licence="Apache-2.0",
        citation="none",
    )
    return Subject("toy", 2, make=kind, card=card)


def test_every_check_has_its_broken_encoder() -> None:
    assert set(broken.FAULTS) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_sound_encoder_passes(check) -> None:
    check(subject_of(broken.Sound))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_broken_encoder_is_caught(check) -> None:
    kind, words = broken.FAULTS[check.__name__]

    with pytest.raises(CheckFailed, match=words):
        check(subject_of(kind))


def test_expected_failure_that_passes_is_a_failure() -> None:
    sound = subject_of(broken.Sound)
    check = Check(subject=sound, function=CHECKS[0], expected="too few stages", name="toy-2D-attributes")

    with pytest.raises(CheckFailed, match="toy-2D-attributes: passes, though declared to fail"):
        check()


def test_expected_failure_is_silent_and_random_state_is_kept() -> None:
    check = Check(subject=subject_of(broken.FewStrides), function=CHECKS[0], expected="too few stages")
    state = torch.get_rng_state()

    check()

    assert torch.equal(state, torch.get_rng_state())


def test_misspelt_expected_failure_is_refused() -> None:
    with pytest.raises(ValueError, match="check_od_sizes"):
        all_checks("resnet18", expected_failures={"check_od_sizes": "typing error"})
