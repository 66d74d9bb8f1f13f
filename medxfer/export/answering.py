"""What an exported bundle answers, one part of `inference.yaml` for rows and for masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..tasks.base import MaskAnswer, RowAnswer
from .answering_masks import masks
from .answering_part import AnsweringPart
from .answering_rows import rows
from .reading_part import ReadingPart

__all__ = ["ANSWERINGS", "Answer", "AnsweringPart", "answering_for"]

Answer = RowAnswer | MaskAnswer

ANSWERINGS: Mapping[type, Callable[..., AnsweringPart]] = MappingProxyType(
    {RowAnswer: rows, MaskAnswer: masks}
)


def answering_for(
    answer: Answer, reading: ReadingPart, shape: Sequence[int], calibration: Mapping[str, Any]
) -> AnsweringPart:
    """How a task's answer is made and written in MONAI.

    Args:
        answer: Of the task.
        reading: How files become images.
        shape: Of what the network sees.
        calibration: What was chosen on val.

    Raises:
        ConfigError: The answer cannot be given for images that are read like this.
    """
    return ANSWERINGS[type(answer)](answer, reading, shape, calibration)
