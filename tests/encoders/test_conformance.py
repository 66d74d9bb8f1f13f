"""The built-in encoders keep what they promise; the plugin runs the same kit in its own tests."""

from __future__ import annotations

from medxfer.testing import Check, encoder_checks


@encoder_checks("resnet18", "densenet121", spatial_dims=(2, 3))
def test_conformance(check: Check) -> None:
    check()
