"""`docs/README.md` of an exported bundle: what the model is, how to run it, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from .reading_part import ReadingPart

BEGIN = "<!-- written by medxfer export from here on -->"


def readme(
    docs: str,
    metadata: Mapping[str, Any],
    classes: Sequence[str],
    calibration: Mapping[str, Any],
    reading: ReadingPart,
    install: str,
    *,
    has_licence: bool,
) -> str:
    """The file's text.

    Args:
        docs: What the model is, as Markdown; what an earlier export added to it is left out.
        metadata: The bundle's complete metadata.
        classes: Names, in the order of the probabilities.
        calibration: `temperature`, and `threshold` with its `value`, or one a finding, where there is one.
        reading: How files become images.
        install: The command that brings all packages.
        has_licence: Whether the bundle has a `LICENSE`.
    """
    own = docs.partition(BEGIN)[0].strip()
    return TEXT.format(
        docs=own or f"# {metadata['task']}\n\n{metadata['description']}",
        begin=BEGIN,
        monai=metadata["monai_version"],
        torch=metadata["pytorch_version"],
        packages=", ".join(f"{name} {text}" for name, text in metadata["required_packages_version"].items()),
        install=install,
        files=reading.files,
        row=reading.row,
        limits="\n".join(fill(f"- {text}", 112, subsequent_indent="  ") for text in reading.limits),
        columns=", ".join(f"`p_{name}`" for name in classes),
        temperature=f"{calibration['temperature']:.6g}",
        said=fill(_decision(classes, calibration.get("threshold", {})), 112),
        licence="See `LICENSE`." if has_licence else "None was stated: ask the authors before you use it.",
    )


def _decision(classes: Sequence[str], threshold: Mapping[str, Any]) -> str:
    """How probabilities become an answer."""
    if "value" in threshold:
        value = f"{threshold['value']:.6g}"
        return f"The answer is `{classes[-1]}` from the probability {value} on, chosen on validation data."
    if "by_finding" in threshold:
        each = ", ".join(f"`{name}` from {value:.6g} on" for name, value in threshold["by_finding"].items())
        return (
            f"Each finding is called by its own probability, with limits chosen on validation data: {each}."
        )
    return "The most probable class is the answer."


TEXT = """\
{docs}

{begin}

## How to run it

Without medxfer, in plain MONAI:

    {install}
    python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT

reads every {files} below DIR and writes `OUT/predictions.csv`:
{row}, then {columns}.
The bundle's folder is found from the place of `configs/inference.yaml`; `--bundle_root` names another.

With medxfer: `medxfer predict THIS_FOLDER FILES...`, which reads `configs/train.yaml` and
`models/model.safetensors` and builds the network again.

Written with MONAI {monai} and torch {torch}; other packages: {packages}.
Older versions of torch may not read `models/model.pt2`.

## What the numbers are

Probabilities, after division of the logits by the temperature {temperature}, which was fitted on validation
data. {said}
The numbers stand in `configs/exported.json`.

## Files

- `configs/inference.yaml`: preprocessing and evaluator, MONAI and torch only.
- `configs/train.yaml`: what `medxfer run` was given, resolved. It is no MONAI training configuration:
  `python -m monai.bundle run` cannot run it.
- `models/model.pt2`: a `torch.export` program with a dynamic batch; temperature and activation are in it,
  preprocessing is not. Like every `.pt2` file it can carry code: load it only from someone you trust.
  `configs/exported.json` has its SHA-256.
- `models/model.safetensors`: the network's weights, no code.

## Limits

- A file that cannot be read stops the run and is named; `medxfer predict` goes on with the others.
{limits}
- The numbers agree with medxfer's within 1e-4 in fp32 on a CPU. On a GPU that computes in TF32 they may
  differ by more.

## Licence

{licence}
"""
