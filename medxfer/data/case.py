"""One case, and the names of splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "val", "test"]
NAMES: tuple[SplitName, ...] = ("train", "val", "test")

_SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to be classified: its files, whose it is, and what is known of it."""

    id: str  # path relative to the data folder, with /
    images: tuple[Path, ...]  # files or series folders; several are channels
    patient: str
    label: str | Mapping[str, bool | None] | Path | None = None  # class, findings (None: unknown), or mask
    study: str | None = None
    split: SplitName | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    stem: str | None = (
        None  # looser key of the patient: what its key begins with, where that is less than the key
    )
    links: tuple[
        str, ...
    ] = ()  # further ids that only files of one patient share: series, frame of reference


def split_word(word: str) -> SplitName | None:
    """The split that a folder's or cell's name stands for."""
    return _SPLIT_WORDS.get(word.strip().casefold())
