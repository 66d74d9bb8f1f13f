"""Probabilities of whole images in plain MONAI: a row of a CSV file each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..tasks.base import RowAnswer
from .answering_part import AnsweringPart
from .reading_part import ReadingPart


def rows(
    answer: RowAnswer, _reading: ReadingPart, _shape: Sequence[int], calibration: Mapping[str, Any]
) -> AnsweringPart:
    """A probability a class."""
    return AnsweringPart(
        config=_config(answer.classes),
        output={
            "type": "probabilities",
            "format": "classes",
            "num_channels": len(answer.classes),
            "spatial_shape": [1],
            "dtype": "float32",
            "value_range": [0, 1],
            "is_patch_data": False,
            "channel_def": {str(i): name for i, name in enumerate(answer.classes)},
        },
        what="Probabilities",
        columns=", ".join(f"`p_{name}`" for name in answer.classes),
        numbers="Probabilities, after division of the logits by the temperature "
        f"{calibration.get('temperature', 1.0):.6g}, which was fitted on validation data. "
        + _decision(answer.classes, calibration.get("threshold", {}))
        + " The numbers stand in `configs/exported.json`.",
        agreement="The numbers agree with medxfer's within 1e-4 in fp32 on a CPU.",
    )


def _config(classes: Sequence[str]) -> dict[str, Any]:
    named = (
        "$lambda batch: [{'filename_or_obj': '\"' + item['file'].replace('\"', '\"\"') + '\"' "
        "if set(item['file']) & set(',\"\\n\\r') else item['file']} for item in batch]"
    )
    return {
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "EnsureTyped", "keys": "pred", "device": "cpu", "track_meta": False}],
        },
        "csv_header": header_line(["file", *[f"p_{name}" for name in classes]]),
        # the header is there first, so it appends
        "saver": {
            "_target_": "CSVSaver",
            "output_dir": "@output_dir",
            "filename": "predictions.csv",
            "overwrite": False,
        },
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "saver": "@saver",
                "batch_transform": named,
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
    }


def header_line(columns: Sequence[str]) -> str:
    """The first line of a CSV file."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    return header.getvalue()


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
