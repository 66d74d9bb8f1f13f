"""What a plugin's own tests may import: the conformance kit for encoders."""

from __future__ import annotations

from .encoder_checks import CHECKS, Check, CheckFailed, Subject, all_checks, encoder_checks

__all__ = ["CHECKS", "Check", "CheckFailed", "Subject", "all_checks", "encoder_checks"]
