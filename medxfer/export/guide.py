"""`docs/README.md` of an exported bundle: what the model is, how to run it, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from .answering_part import AnsweringPart
from .reading_part import ReadingPart

BEGIN = "<!-- written by medxfer export from here on -->"


def readme(
    docs: str,
    metadata: Mapping[str, Any],
    reading: ReadingPart,
    answering: AnsweringPart,
    install: str,
    *,
    has_licence: bool,
) -> str:
    """The file's text.

    Args:
        docs: What the model is, as Markdown; what an earlier export added to it is left out.
        metadata: The bundle's complete metadata.
        reading: How files become images.
        answering: What is said of them, and how it is written.
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
        columns=answering.columns,
        also=f"\n{fill(answering.files, 112)}" if answering.files else "",
        numbers=fill(answering.numbers, 112),
        program=_filled(PROGRAM.format(inside=INSIDE[answering.gives])),
        limits="\n".join(_filled(f"- {text}") for text in reading.limits),
        agreement=answering.agreement,
        licence="See `LICENSE`." if has_licence else "None was stated: ask the authors before you use it.",
    )


def _filled(item: str) -> str:
    """An item of a list."""
    return fill(item, 112, subsequent_indent="  ")


INSIDE = {
    "probabilities": "temperature and activation are in it, preprocessing is not",
    "logits": "preprocessing is not in it, nor what makes masks of its logits",
}
PROGRAM = (
    "- `models/model.pt2`: a `torch.export` program with a dynamic batch; {inside}. Like every `.pt2` file it can "
    "carry code: load it only from someone you trust. `configs/exported.json` has its SHA-256."
)
TEXT = """\
{docs}

{begin}

## How to run it

Without medxfer, in plain MONAI:

    {install}
    python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT

reads every {files} below DIR and writes `OUT/predictions.csv`:
{row}, then {columns}.{also}
The bundle's folder is found from the place of `configs/inference.yaml`; `--bundle_root` names another.

With medxfer: `medxfer predict THIS_FOLDER FILES...`, which reads `configs/train.yaml` and
`models/model.safetensors` and builds the network again.

Written with MONAI {monai} and torch {torch}; other packages: {packages}.
Older versions of torch may not read `models/model.pt2`.

## What the numbers are

{numbers}

## Files

- `configs/inference.yaml`: preprocessing and evaluator, MONAI and torch only.
- `configs/train.yaml`: what `medxfer run` was given, resolved. It is no MONAI training configuration:
  `python -m monai.bundle run` cannot run it.
{program}
- `models/model.safetensors`: the network's weights, no code.

## Limits

- A file that cannot be read stops the run and is named; `medxfer predict` goes on with the others.
{limits}
- {agreement}
  On a GPU that computes in TF32 it may be more.

## Licence

{licence}
"""
