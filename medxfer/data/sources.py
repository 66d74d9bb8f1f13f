"""Where a bundle's data are: a folder of the user, or synthetic data made on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..progress import Progress
from .cases import existing_folder


def kind_of(source: str) -> Literal["synthetic", "given"]:
    """Whether the data are made by a formula; reports say so."""
    return "synthetic" if source.startswith("synthetic.") else "given"


def folder_of(source: str, say: Progress) -> Path:
    """The folder to look for cases in; synthetic data are made when absent.

    Raises:
        DataError: No such folder, or no such synthetic data set.
    """
    if kind_of(source) == "synthetic":
        from . import synthetic

        return synthetic.make(source, say)
    return existing_folder(Path(source))
