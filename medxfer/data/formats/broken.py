"""Several broken files of one series in one refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import DataError
from ..image import shown

_LISTED = 5


def refuse_broken(folder: Path, faults: Sequence[tuple[Path, DataError]]) -> None:
    """Refuse a series some of whose files cannot be used.

    Args:
        folder: Of the series.
        faults: Each file with its own refusal; none is fine.

    Raises:
        DataError: The one refusal, or a count and the first five by name.
    """
    if not faults:
        return
    first = faults[0][1]
    if len({path for path, _ in faults}) == 1:
        raise first
    seen = f"{len(faults)} broken files: {listed_faults(faults)}"
    raise DataError(shown(folder), seen, first.accepted, first.todo)


def listed_faults(faults: Sequence[tuple[Path, DataError]]) -> str:
    """The first five by name, each with what was seen."""
    told = "; ".join(f"{shown(path.name)}: {error.seen}" for path, error in faults[:_LISTED])
    return told + (f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else "")


def remarks_by_file(remarks: Mapping[str, str]) -> list[str]:
    """What was remarked of single files of a series, in one sentence with the first five names."""
    if not remarks:
        return []
    told = "; ".join(f"{name}: {remarks[name]}" for name in sorted(remarks)[:_LISTED])
    return [told + (f"; and {len(remarks) - _LISTED} more files" if len(remarks) > _LISTED else "")]
