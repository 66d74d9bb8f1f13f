"""Gradients under bf16 on a CPU are those of fp32, whatever the sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medxfer.training.convolution import ExactBackward
from medxfer.training.precision import Precision

BF16 = Precision("bf16", "contiguous", torch.device("cpu"))


def gradients(x: Tensor, weight: Tensor, bias: Tensor | None, low: bool, **options: int) -> list[Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    bias = None if bias is None else bias.clone().requires_grad_()
    convolve = functional.conv2d if weight.ndim == 4 else functional.conv3d
    if low:
        # What was freed holds large numbers, so that a kernel that reads it shows.
        junk = [torch.full((weight.numel() // 2 + 7,), 3e38).bfloat16() for _ in range(2)]
        del junk
        with BF16.autocast():
            y = convolve(x, weight, bias, **options)
        assert y.dtype == torch.bfloat16
    else:
        y = convolve(x, weight, bias, **options)
    y.float().square().sum().backward()
    return [one.grad for one in (x, weight, bias) if one is not None and one.grad is not None]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (2, 2)])
def test_volume_gradients_are_right_at_every_small_size(kernel: int, stride: int) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 32, *[kernel] * 3, generator=random) * 0.05
    for size in itertools.product((2, 3, 4, 7), repeat=3):
        x = torch.randn(2, 32, *size, generator=random)
        options = {"stride": stride, "padding": kernel // 2 if kernel % 2 else 0}

        ours, true = (gradients(x, weight, None, low, **options) for low in (True, False))

        for one, other in zip(ours, true, strict=True):
            assert float((one - other).norm() / other.norm()) < 0.05, size


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_gradients_are_right(kernel: int, stride: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, 19, 16, generator=random)
    weight, bias = torch.randn(24, 1, kernel, kernel, generator=random), torch.randn(24, generator=random)
    options = {"stride": stride, "padding": kernel // 2, "groups": 24}

    ours, true = (gradients(x, weight, bias, low, **options) for low in (True, False))

    assert [one.dtype for one in ours] == [torch.float32] * 3
    for one, other in zip(ours, true, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.05


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (4, 1)])
def test_volume_gradients_are_right_where_the_kernel_is_as_long_as_its_output(
    kernel: int, stride: int, groups: int, layout: torch.memory_format
) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 16 // groups, *[kernel] * 3, generator=random).contiguous(memory_format=layout)
    options = {"stride": stride, "padding": kernel // 2, "groups": groups}
    for size in ((2, 2, 2), (4, 4, 4), (4, 9, 9), (9, 4, 9), (6, 6, 6), (7, 7, 7), (8, 8, 8)):
        x = torch.randn(1, 16, *size, generator=random).contiguous(memory_format=layout)

        ours, true = (gradients(x, weight, None, low, **options) for low in (True, False))

        for one, other in zip(ours, true, strict=True):
            assert float((one - other).norm() / other.norm()) < 0.05, size


def test_nothing_is_taken_over_without_gradients() -> None:
    x, weight = torch.randn(1, 8, 2, 2, 2), torch.randn(8, 8, 3, 3, 3)

    with torch.no_grad(), BF16.autocast():
        y = functional.conv3d(x, weight, padding=1)

    assert y.dtype == torch.bfloat16
    assert y.grad_fn is None


def test_group_norm_in_channels_last_is_that_of_contiguous_memory_and_keeps_the_layout() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 16)
    x = torch.randn(2, 16, 6, 5, 4).to(torch.bfloat16)
    turned = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    plain = x.clone().requires_grad_()

    with torch.autocast("cpu", torch.bfloat16), ExactBackward():
        found, expected = norm(turned), norm(plain)
        (found.float() ** 3).sum().backward()
        (expected.float() ** 3).sum().backward()

    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(found, expected)
    assert turned.grad is not None
    assert plain.grad is not None
    assert torch.allclose(turned.grad.float(), plain.grad.float(), atol=1e-2)
