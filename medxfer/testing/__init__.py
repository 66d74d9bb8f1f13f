"""What a plugin's own tests may import: the conformance kit for encoders."""

from __future__ import annotations

from .encoder_checks import CHECKS, Check, Outcome, all_checks, encoder_checks
from .subject import CheckFailed, Subject

__all__ = ["CHECKS", "Check", "CheckFailed", "Outcome", "Subject", "all_checks", "encoder_checks"]
