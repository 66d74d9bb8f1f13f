"""A trained network as a MONAI bundle that runs where medxfer is not installed."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import explained, sha256_of, write_atomic, write_json
from .answering import Answer, answering_for
from .answering_part import AnsweringPart
from .guide import readme
from .inference import WritesMonai, inference_yaml, install_line, packages_of
from .program import ExportedProgramModule, export_program, write_pt2
from .reading_part import ReadingPart

SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
# What every `inference.yaml` needs beside torch and MONAI, and jsonschema for `verify_metadata`.
COMMON_PACKAGES = ("fire", "jsonschema", "pytorch-ignite", "pyyaml")
# For packages that are not installed where the bundle is written.
OLDEST = {
    "SimpleITK": "2.3.0",
    "fire": "0.6.0",
    "itk": "5.3.0",
    "jsonschema": "4.0.0",
    "nibabel": "5.0.0",
    "pillow": "10.1.0",
    "pytorch-ignite": "0.5.0",
    "pyyaml": "6.0",
    "scikit-image": "0.22.0",
    "scipy": "1.12.0",
}


def metadata_schema() -> Path:
    """The JSON schema of `metadata.json`; MONAI ships none. Pass it to `verify_metadata` as `filepath`."""
    return Path(__file__).with_name("metadata_schema.json")


def export_bundle(
    target: Path,
    *,
    network: nn.Module,
    activate: Callable[[Tensor], Tensor],
    answer: Answer,
    calibration: Mapping[str, Any],
    reading: ReadingPart,
    steps: Sequence[WritesMonai],
    in_channels: int,
    shape: Sequence[int],
    config_yaml: str,
    metadata: Mapping[str, Any],
    licence_text: str | None,
    docs: str,
    task: str = "Classification",
    training_images: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle folder, whole or not at all.

    Args:
        target: The folder. One that an earlier export wrote is replaced.
        network: Images `(B, C, *shape)` in [0, 1] to logits.
        activate: Logits to probabilities.
        answer: What is said of an image; its classes are in the order of the logits.
        calibration: What was chosen on val, written as it is. The logits are divided by its `temperature` (1 where
            there is none); `threshold` holds the `value` for the last of two classes, or one a finding, `by_finding`.
        reading: How files become images in MONAI.
        steps: The deterministic preprocessing after reading.
        in_channels: Channels of the network's input.
        shape: Pixels or voxels along each axis; where masks are the answer, of the sliding window.
        config_yaml: The resolved `train.yaml`.
        metadata: What the bundle's own `metadata.json` says; versions and data format are filled in.
        licence_text: Goes into `LICENSE`; None: no such file.
        docs: What the model is, as Markdown; goes before how to run it.
        task: Kind of question, for metadata that do not say it.
        training_images: How they look, for `medxfer predict`; None: not known.

    Returns:
        `target`.

    Raises:
        ConfigError: `target` exists and is not an exported bundle, or the answer cannot be given in MONAI.
        RunError: The network cannot be exported, or the disk does not take the files.
    """
    _refuse_foreign(target)
    calibration = {"temperature": 1.0, **calibration}
    answering = answering_for(answer, reading, shape, calibration)
    activate = answering.activate(activate, answering.output["num_channels"])
    module = ExportedProgramModule(network, activate=activate, temperature=float(calibration["temperature"]))
    program = export_program(module, in_channels=in_channels, shape=shape)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with explained(target):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            weights = _write_weights(temporary / "models" / "model.safetensors", module.network)
            write_pt2(temporary / "models" / "model.pt2", program)
            hashes = {f"models/{path.name}": sha256_of(path) for path in sorted(weights.parent.iterdir())}
            configs = temporary / "configs"
            write_json(
                configs / "exported.json",
                {"calibration": calibration, "classes": list(answer.classes), "sha256": hashes},
            )
            if training_images is not None:
                write_json(configs / "training_images.json", training_images)
            ident = hashes[f"models/{weights.name}"][:16]
            write_atomic(configs / "inference.yaml", inference_yaml(reading, answering, steps, ident))
            write_atomic(configs / "train.yaml", config_yaml)
            full = complete_metadata(
                metadata,
                answering,
                in_channels=in_channels,
                shape=shape,
                packages=packages_of(reading, answering, steps),
                task=f"{task}: {', '.join(answer.classes)}",
            )
            write_json(configs / "metadata.json", full)
            install = install_line(reading, answering, steps)
            text = readme(docs, full, reading, answering, install, has_licence=licence_text is not None)
            write_atomic(temporary / "docs" / "README.md", text)
            if licence_text is not None:
                write_atomic(temporary / "LICENSE", licence_text)
            _replace(target, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _refuse_foreign(target: Path) -> None:
    if (
        target.exists()
        and not (target / "configs" / "exported.json").is_file()
        and not _is_empty_folder(target)
    ):
        seen = "it exists and was not written by an export"
        accepted = "a new folder, an empty one, or an exported bundle, which is replaced"
        raise ConfigError(str(target), seen, accepted, "name another folder with --out")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _replace(target: Path, temporary: Path) -> None:
    """Rename the finished folder into place; what stood there goes last."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_weights(path: Path, network: nn.Module) -> Path:
    from safetensors.torch import save

    # clones: safetensors refuses tensors that share memory
    state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    return write_atomic(path, save(state))


def complete_metadata(
    metadata: Mapping[str, Any],
    answering: AnsweringPart,
    *,
    in_channels: int,
    shape: Sequence[int],
    packages: Sequence[str] = (),
    task: str,
) -> dict[str, Any]:
    """The bundle's metadata with the fields that MONAI's specification asks for.

    Texts are the bundle's own; versions and the network's data format are what was exported.

    Args:
        metadata: As the bundle has it; may be empty.
        answering: What the network gives.
        in_channels: Channels of the network's input.
        shape: Pixels or voxels along each axis.
        packages: That reading, steps and answer need.
        task: The question, where the metadata do not say it.
    """
    texts: dict[str, Any] = {
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported by medxfer"},
        "task": task,
        "description": "A network trained and exported by medxfer. Preprocessing and use: docs/README.md.",
        "authors": "not stated",
        "copyright": "not stated",
    }
    given = {name: value for name, value in metadata.items() if value not in (None, "")}
    modality = given.get("network_data_format", {}).get("inputs", {}).get("image", {}).get("modality", "n/a")
    required = {**given.pop("optional_packages_version", {}), **given.get("required_packages_version", {})}
    required.update({name: _version(name, OLDEST.get(name, "0")) for name in (*COMMON_PACKAGES, *packages)})
    image = {**_image_format(in_channels, shape, modality), "is_patch_data": answering.is_patch}
    return {
        "schema": SCHEMA_URL,
        **texts,
        **given,
        "monai_version": _version("monai", "1.5.0"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": _version("numpy", "1.26.0"),
        "required_packages_version": required,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": dict(answering.output)}},
    }


def _image_format(in_channels: int, shape: Sequence[int], modality: str) -> dict[str, Any]:
    names = {1: ["grey"], 3: ["red", "green", "blue"]}.get(
        in_channels, [f"channel {i}" for i in range(in_channels)]
    )
    return {
        "type": "image",
        "format": "magnitude",
        "modality": modality,
        "num_channels": in_channels,
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }


def _version(package: str, default: str) -> str:
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return default
