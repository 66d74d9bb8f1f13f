"""Tinyconv keeps what medxfer relies on."""

from __future__ import annotations

from medxfer.testing import Check, encoder_checks


@encoder_checks("tinyconv", spatial_dims=(2, 3))
def test_conformance(check: Check) -> None:
    check()
