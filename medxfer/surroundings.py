"""The machine and versions that a run met, and whether they are still the same."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import __version__
from .bundle.schema import Bundle
from .errors import ConfigError, RunError
from .progress import Progress
from .run_folder import RunFolder

PACKAGES = ("torch", "monai", "numpy", "pydicom", "scikit-learn", "pillow")


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device asked for; `auto`: CUDA where there is one.

    Raises:
        ConfigError: It is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("--device", name, "auto, cpu, cuda or cuda:N", "name one of them") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index if device.index is not None else local_rank
        if index >= count:
            todo = "leave --device out, or use --device cpu"
            raise ConfigError(
                "--device", f"{name} asked for, {count} CUDA devices here", "a device that is here", todo
            )
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise ConfigError("--device", name, "auto, cpu, cuda or cuda:N", "name one of them")
    return device


def versions() -> dict[str, str]:
    """Of medxfer, Python and the packages that decide numbers."""
    return {
        "medxfer": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def hardware(device: torch.device, processes: int) -> dict[str, Any]:
    """What computed."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "system": platform.platform(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  # a pseudo file
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_run(
    bundle: Bundle, command: Sequence[str], device: torch.device, processes: int
) -> dict[str, Any]:
    """The first content of run.json."""
    return {
        "medxfer": __version__,
        "command": list(command or sys.argv),
        "status": "running",
        "bundle": bundle.name,
        "seed": bundle.seed,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": str(device),
        "hardware": hardware(device, processes),
        "versions": versions(),
        "trusted": bundle.trusted,
    }


AS_BUNDLE = "as the bundle says"  # why of what was not chosen by this machine


def settings_for_again(run: Mapping[str, Any]) -> str:
    """What a timing or this machine chose, as options that give it again; '' where the bundle said all.

    Args:
        run: run.json.
    """
    chosen: Mapping[str, Any] = run.get("chosen") or {}
    if all(one.get("why") == AS_BUNDLE for one in chosen.values()):
        return ""
    return " ".join(f"--set training.{name}={one.get('value')}" for name, one in chosen.items())


def seal_config(folder: RunFolder) -> None:
    """Remember the configuration's hash, so that a changed one is noticed at resume."""
    folder.update(config_sha256=_config_hash(folder))


def refuse_changes(folder: RunFolder, *, accept_changes: bool, say: Progress) -> None:
    """Compare versions and configuration with those the run began with.

    Raises:
        RunError: They differ and `accept_changes` is not given.
    """
    begun = folder.read("run.json")
    now = versions()
    changed = [
        f"{name} {old} -> {now.get(name, 'absent')}"
        for name, old in begun.get("versions", {}).items()
        if now.get(name) != old
    ]
    if begun.get("config_sha256") and begun["config_sha256"] != _config_hash(folder):
        changed.append("config.yaml was edited")
    if not changed:
        return
    if not accept_changes:
        todo = (
            "bring the old state back, or go on with --accept-changes: the result is then not bit-identical"
        )
        raise RunError(
            str(folder.root), "changed since the run began: " + ", ".join(changed), "no change", todo
        )
    folder.update(accepted_changes=changed)
    say.warn("going on although changed since the run began: " + ", ".join(changed))


def _config_hash(folder: RunFolder) -> str:
    return hashlib.sha256(folder.path("config.yaml").read_bytes()).hexdigest()
