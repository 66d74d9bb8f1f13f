"""The built-in encoders keep what they promise, the smallest of each family; the plugins run the same kit in theirs.

benchmarks/encoder_conformance.py runs it over every installed one.
"""

from __future__ import annotations

from medxfer.testing import Check, encoder_checks


@encoder_checks("resnet10", spatial_dims=(2, 3))
def test_conformance(check: Check) -> None:
    check()


# torch.export, the slowest check, runs in 2D alone.
@encoder_checks("cnn", "efficientnet_b0", "unet")
def test_conformance_in_two_dimensions(check: Check) -> None:
    check()


@encoder_checks("densenet121", "se_resnext50", spatial_dims=(3,))
def test_conformance_in_three_dimensions(check: Check) -> None:
    check()
