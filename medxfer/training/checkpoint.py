"""Resumable training state: written whole, the previous one kept, read as tensors and plain values only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from ..files import explained, write_atomic
from ..progress import Progress
from ..run_folder import RunFolder


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state dict or a training state atomically."""
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def save_last(folder: RunFolder, state: dict[str, Any]) -> None:
    """Keep the last training state as previous, then write the new one; at every moment one of them is whole."""
    last, previous = folder.path("checkpoints/last.pt"), folder.path("checkpoints/previous.pt")
    if last.exists():
        link = previous.with_name(f".previous.tmp-{os.getpid()}")
        with explained(previous):
            link.unlink(missing_ok=True)
            link.hardlink_to(last)
            link.replace(previous)
    save(last, state)


def load(path: Path) -> dict[str, Any]:
    """Read tensors and plain values.

    Raises:
        RunError: The file is absent, damaged, or holds more than that.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged files, the unpickler's own among them
        cause = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RunError(
            str(path), f"not readable: {cause}", "a checkpoint written by medxfer", "run again"
        ) from error
    if not isinstance(state, dict):
        raise RunError(
            str(path), f"holds a {type(state).__name__}", "a checkpoint written by medxfer", "run again"
        )
    return state


def load_last(folder: RunFolder, say: Progress) -> dict[str, Any] | None:
    """The newest whole training state, or None before the first epoch ended.

    Raises:
        RunError: Both files are damaged.
    """
    last, previous = folder.path("checkpoints/last.pt"), folder.path("checkpoints/previous.pt")
    if not last.exists() and not previous.exists():
        return None
    try:
        return load(last)
    except RunError:
        if not previous.exists():
            raise
        state = load(previous)
        say.warn(f"{last} is damaged; going on from {previous.name}, one epoch earlier")
        return state
