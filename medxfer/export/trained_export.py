"""A trained network, with all that its predictions need, into a MONAI bundle or a single file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bundle.parser import to_yaml
from ..errors import ConfigError
from ..run_folder import RunFolder
from ..trained import Trained, open_run
from .answering import answering_for
from .formats import write_program
from .monai_bundle import export_bundle
from .reading import reading_for

SUFFIX = {"pt2": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}


def export_as_bundle(trained: Trained, target: Path, documents: Path) -> Path:
    """Write the MONAI bundle of a trained network into a new folder.

    Args:
        trained: The network and what its predictions need.
        target: The folder.
        documents: The bundle whose metadata, licence and README go with it.

    Raises:
        RunError: The network cannot be exported, or the folder cannot be written.
    """
    bundle = trained.bundle
    return export_bundle(
        target,
        network=trained.network,
        activate=trained.task.activate,
        answer=trained.task.answer(),
        calibration=trained.calibration,
        reading=reading_for(bundle.data, bundle.images.dims),
        steps=trained.steps,
        in_channels=bundle.encoder.in_channels,
        shape=bundle.images.shape,
        task=bundle.task.target.rpartition(".")[2],
        config_yaml=to_yaml(bundle),
        metadata=_own_metadata(documents),
        licence_text=_text_of(documents / "LICENSE"),
        docs=_text_of(documents / "docs" / "README.md") or "",
        training_images=None if trained.usual is None else trained.usual.to_plain(),
    )


def export_trained(run: Path, form: str, out: Path | None, warn: Callable[[str], None]) -> Path:
    """Export a run folder or an exported bundle.

    Args:
        run: What to open.
        form: `bundle`, `pt2`, `onnx` or `torchscript`.
        out: Where to; default `exported` or `model` with the format's suffix, in the run folder.
        warn: Told what the user should know of the format.

    Raises:
        ConfigError: The target exists, an extra is missing, or the answer cannot be given outside of medxfer.
    """
    trained = open_run(run)
    target = out or run / ("exported" if form == "bundle" else f"model{SUFFIX[form]}")
    if target.exists():
        raise ConfigError(f"export --out {target}", "exists already", "a new path", "name another with --out")
    if form == "bundle":
        return export_as_bundle(trained, target, run / "bundle" if (run / "bundle").is_dir() else run)
    bundle = trained.bundle
    reading = reading_for(bundle.data, bundle.images.dims)
    return write_program(
        target,
        form,
        network=trained.network,
        activate=trained.task.activate,
        answering=answering_for(trained.task.answer(), reading, bundle.images.shape, trained.calibration),
        temperature=float(trained.calibration.get("temperature", 1.0)),
        in_channels=bundle.encoder.in_channels,
        shape=bundle.images.shape,
        warn=warn,
    )


def export_run(folder: RunFolder, trained: Trained) -> Path:
    """The run's own exported bundle, `bundle/` in its folder; one that an earlier try left is replaced."""
    return export_as_bundle(trained, folder.root / "bundle", trained.bundle.folder)


def _own_metadata(folder: Path) -> dict[str, Any]:
    text = _text_of(folder / "configs" / "metadata.json")
    return dict(json.loads(text)) if text else {}


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
