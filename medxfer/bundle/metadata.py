"""metadata.json after MONAI's bundle specification."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MODALITIES = {"xray": "CR", "ct": "CT", "mri": "MR", "pathology": "SM"}  # of `init` -> what the file calls it
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)


def metadata_of(
    name: str,
    classes: Sequence[str],
    *,
    channels: int,
    shape: Sequence[int],
    modality: str,
    task: str = "classification",
) -> dict[str, Any]:
    """metadata.json after MONAI's bundle specification.

    Args:
        name: Of the bundle.
        classes: In the order of the network's outputs.
        channels: Of the network's input.
        shape: Pixels or voxels along each axis.
        modality: As in `init`.
        task: As in `init`.
    """
    listed = " or ".join(classes) if len(classes) == 2 else f"one of {', '.join(classes)}"
    if task == "findings":
        listed = f"any of {', '.join(classes)}"
    words = _masks_in_words(classes) if task == "segmentation" else _classes_in_words(classes, listed, task)
    colours = (
        _COLOURS if channels == 3 and len(shape) == 2 else tuple(f"channel {i}" for i in range(channels))
    )
    image = _tensor("image", "magnitude", MODALITIES[modality], channels, list(shape))
    image["channel_def"] = {str(i): "image" if channels == 1 else colours[i] for i in range(channels)}
    size = f"{' x '.join(map(str, shape))} {'voxels' if len(shape) == 3 else 'pixels'}"
    pred = _tensor("probabilities", "classes", "n/a", len(classes), [])
    pred["channel_def"] = {str(i): item for i, item in enumerate(classes)}
    if task == "segmentation":
        pred = _tensor("probabilities", "segmentation", "n/a", len(classes) + 1, list(shape))
        pred["channel_def"] = {str(i): item for i, item in enumerate(("background", *classes))}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "written by medxfer init"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            package: _version(package)
            for package in ("fire", "itk", "jsonschema", "pillow", "pytorch-ignite", "pyyaml")
        },
        "name": name,
        **words,
        "authors": "to be named by the publisher",
        "copyright": "to be named by the publisher",
        "data_type": "DICOM or NIfTI" if len(shape) == 3 else "DICOM, PNG or JPEG",
        "image_classes": f"{channels} channel, {size}, intensity in [0, 1]",
        "intended_use": "Research; not for diagnosis",
        "references": [],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _classes_in_words(classes: Sequence[str], listed: str, task: str) -> dict[str, str]:
    return {
        "task": f"Image classification: {listed}",
        "description": f"An encoder and a linear head that tell from one image: {listed}.",
        "label_classes": listed if task == "findings" else f"one of {', '.join(classes)}",
        "pred_classes": f"{len(classes)} probabilities: {', '.join(classes)}",
    }


def _masks_in_words(classes: Sequence[str]) -> dict[str, str]:
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(("background", *classes)))
    return {
        "task": f"Image segmentation: {', '.join(classes)}",
        "description": f"An encoder and a decoder that outline in one image: {', '.join(classes)}.",
        "label_classes": f"a mask: {numbered}",
        "pred_classes": f"a probability of each class at each place: {numbered}",
    }


_COLOURS = ("red", "green", "blue")

# The tested set, named when a package is not installed here: only the exported bundle needs it.
_TESTED = {
    "fire": "0.7.1",
    "itk": "5.4.7",
    "jsonschema": "4.26.0",
    "pillow": "13.0.0",
    "pytorch-ignite": "0.5.5",
    "pyyaml": "6.0.3",
}


def _version(package: str) -> str:
    """Release of an installed package, without a local part such as `+cpu`."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return _TESTED[package]


def _tensor(kind: str, form: str, modality: str, channels: int, shape: list[int]) -> dict[str, Any]:
    return {
        "type": kind,
        "format": form,
        "modality": modality,
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
    }
