"""The kit finds what it is there to find."""

from __future__ import annotations

import pytest
import torch

from medxfer.cards import EncoderCard
from medxfer.testing import CHECKS, Check, CheckFailed, Subject, all_checks

from . import broken

BY_NAME = {check.__name__: check for check in CHECKS}
OF_A_PACKAGE = {"check_entry_point", "check_import", "check_card_file", "check_weights"}


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


def check_of(kind: type, name: str, *, expected: str | None = None) -> Check:
    return Check(subject=subject_of(kind), function=BY_NAME[name], expected=expected, name=f"toy-2D-{name}")


def test_every_check_has_its_broken_encoder() -> None:
    proved = {name for name, _, _ in broken.FAULTS}

    assert proved == set(BY_NAME) - OF_A_PACKAGE


@pytest.fixture(scope="module")
def sound() -> Subject:
    return subject_of(broken.Sound)


@pytest.mark.parametrize("name", BY_NAME)
def test_sound_encoder_passes(sound: Subject, name: str) -> None:
    BY_NAME[name](sound)


@pytest.mark.parametrize(
    ("name", "kind", "words"), broken.FAULTS, ids=[kind.__name__ for _, kind, _ in broken.FAULTS]
)
def test_broken_encoder_is_caught(name: str, kind: type, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        check_of(kind, name)()


@pytest.mark.parametrize("name", ["check_odd_sizes", "check_chain"])
def test_consequence_is_folded_under_its_cause(name: str) -> None:
    kind = {"check_odd_sizes": broken.WrongStride, "check_chain": broken.DropoutLeftOn}[name]
    if name == "check_chain":
        name = "check_safetensors"

    found = check_of(kind, name).outcome()

    assert found.state == "follows"
    assert found.root == {"check_odd_sizes": "strides", "check_safetensors": "determinism"}[name]


def test_faults_of_their_own_are_not_folded() -> None:
    assert check_of(broken.ReadsNeighbours, "check_batch_independence").outcome().state == "failed"
    assert check_of(broken.WrongStride, "check_strides").outcome().state == "failed"


def test_expected_failure_that_passes_is_a_failure() -> None:
    check = check_of(broken.Sound, "check_attributes", expected="too few stages")

    with pytest.raises(CheckFailed, match="toy-2D-check_attributes: passes, though declared to fail"):
        check()


def test_expected_failure_is_told_with_its_reason_and_random_state_is_kept() -> None:
    check = check_of(broken.FewStrides, "check_attributes", expected="too few stages")
    state = torch.get_rng_state()

    check()

    assert torch.equal(state, torch.get_rng_state())
    assert (check.outcome().state, check.outcome().text) == ("expected", "too few stages")


def test_misspelt_expected_failure_is_refused() -> None:
    with pytest.raises(ValueError, match="check_od_sizes"):
        all_checks("resnet18", expected_failures={"check_od_sizes": "typing error"})


def test_checks_of_the_package_are_run_once() -> None:
    names = [check.function.__name__ for check in all_checks("resnet18", spatial_dims=(2, 3))]

    assert {name for name in names if names.count(name) == 1} == OF_A_PACKAGE
