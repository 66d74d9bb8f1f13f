"""Tensors put into an encoder: exact, and looked at for NaN and infinity while they are copied."""

from __future__ import annotations

import pytest
import torch

from medxfer.encoders.filling import fill

SHAPES = {"small": (3,), "large": (1000, 300), "turned": (700, 400), "counter": ()}


def tensors(*, zero: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        name: torch.zeros(shape) if zero else torch.randn(shape, generator=generator)
        for name, shape in SHAPES.items()
    }
    made["counter"] = torch.tensor(0 if zero else 7)
    return made


def test_every_number_arrives() -> None:
    targets, values = tensors(zero=True), tensors()
    values["turned"] = values["turned"].T.contiguous().T

    assert fill(targets, values) == []

    for name, value in values.items():
        assert torch.equal(targets[name], value)


def test_types_are_converted() -> None:
    targets, values = tensors(zero=True), {name: v.bfloat16() for name, v in tensors().items() if v.ndim}

    assert fill(targets, values) == []

    assert targets["large"].dtype == torch.float32
    assert torch.equal(targets["large"], values["large"].float())
    assert int(targets["counter"]) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 150_000, 299_999])
def test_what_is_not_finite_is_named(bad: float, place: int) -> None:
    values = tensors()
    values["large"].view(-1)[place] = bad

    assert fill(tensors(zero=True), values) == ["large"]


def test_infinities_that_cancel_are_named() -> None:
    values = tensors()
    values["small"][:2] = torch.tensor([float("inf"), -float("inf")])

    assert fill(tensors(zero=True), values) == ["small"]


def test_finite_numbers_whose_sum_overflows_are_not() -> None:
    values = tensors()
    values["large"].fill_(3e38)

    assert fill(tensors(zero=True), values) == []


def test_numbers_too_large_for_the_encoder_are_named() -> None:
    values = {"small": torch.tensor([1.0, 1e300, 2.0], dtype=torch.float64)}

    assert fill(tensors(zero=True), values) == ["small"]


def test_nothing_to_fill_is_no_fault() -> None:
    assert fill(tensors(zero=True), {}) == []
