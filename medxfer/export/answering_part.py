"""One way to answer in MONAI: its configuration, what its program gives, and what its guide says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringPart:
    """From images as the steps leave them to the files of the answer.

    Attributes:
        config: Entries of `inference.yaml`: `inferer`, `postprocessing`, `handlers`, `csv_header`, and what these name.
        output: The network's output as `metadata.json` describes it.
        is_patch: Whether images may be larger than what the network sees.
        stored: Transforms of an item whose image lies as its file stores it, before it is turned.
        ready: Transforms of an item after the steps.
        batch: Items that the network gets at once; None: as many as the reading part says.
        activation: What the configuration does with logits; None: the program gives the task's probabilities.
        imports: Python modules that the texts name, beside os, pathlib, sys, monai, numpy and torch.
        extras: Of the package monai.
        packages: Beside those of every bundle.
        what: What an image gets, in words.
        columns: What a line of `predictions.csv` holds behind the file's name, in words.
        files: What else is written, as a sentence; may be empty.
        numbers: What the program gives and how an answer is made of it, as a paragraph.
        agreement: How near the answer is to medxfer's, as a sentence.
    """

    config: Mapping[str, Any]
    output: Mapping[str, Any]
    is_patch: bool = False
    stored: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    batch: int | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    imports: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    what: str
    columns: str
    files: str = ""
    numbers: str
    agreement: str

    @property
    def gives(self) -> Literal["probabilities", "logits"]:
        """What the program gives."""
        return "probabilities" if self.activation is None else "logits"

    def activate(self, task: Callable[[Tensor], Tensor], outputs: int) -> Callable[[Tensor], Tensor]:
        """What the program does with logits, where a task makes probabilities by `task` of so many outputs.

        Raises:
            ConfigError: The configuration would make others than the task.
        """
        if self.activation is None:
            return task
        logits = 4 * torch.randn(2, outputs, 3, 5, 4, generator=torch.Generator().manual_seed(0))
        if not torch.allclose(task(logits), self.activation(logits), atol=1e-6):
            accepted = f"{getattr(self.activation, '__name__', 'the usual one')}, as its answer() says"
            todo = (
                "give the task the activation that its answer states, or a threshold for overlapping classes"
            )
            raise ConfigError("export", "a task whose activate() makes other probabilities", accepted, todo)
        return unchanged


def unchanged(logits: Tensor) -> Tensor:
    """Logits as they are."""
    return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """One kind of mask file.

    Attributes:
        ending: Of its name.
        write: Expression of a function of path, mask (channels, *spatial), affine and target.
        sizes: Units of the columns, each of which has one column a class.
        measures: Expression of a function of voxel counts and affine: the numbers in these columns.
        imports: Python modules that it names.
        is_stack: Whether overlapping classes share one file.
        what: In words.
    """

    ending: str
    write: str
    sizes: tuple[str, ...]
    measures: str
    imports: tuple[str, ...] = field(default=())
    is_stack: bool
    what: str
