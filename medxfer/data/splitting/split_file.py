"""The split manifest: which case was where, read again for another run."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ...errors import DataError
from ..case import NAMES, Case, SplitName
from .gate import listed


def read_split_file(path: Path, cases: Sequence[Case], sha256: Sequence[str]) -> list[Case]:
    """Give cases the split of a manifest, such as a run's split.csv.

    Args:
        path: CSV with the columns `case` and `split`, and perhaps `sha256`.
        cases: In the order of the arrays.
        sha256: Of each case's file.

    Raises:
        DataError: The file is unreadable, names cases that are not there or leaves some out, or an image changed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            str(path), f"not readable: {error}", "a CSV file", "name a run's split.csv"
        ) from error
    if not rows or not {"case", "split"} <= rows[0].keys():
        seen = f"columns {', '.join(rows[0])}" if rows else "no rows"
        raise DataError(str(path), seen, "columns case and split", "name a run's split.csv")
    by_case: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 2):
        if row["split"] not in NAMES:
            raise DataError(
                f"{path}, row {number}", f"split {row['split']!r}", ", ".join(NAMES), "correct it"
            )
        before = by_case.setdefault(row["case"], row)
        if before["split"] != row["split"]:
            seen = f"{row['case']} in {before['split']} and in {row['split']}"
            raise DataError(
                f"{path}, row {number}", seen, "a case in one split only", "remove one of the rows"
            )
    absent = sorted(set(by_case) - {case.id for case in cases})
    extra = sorted({case.id for case in cases} - set(by_case))
    if absent or extra:
        which = (
            f"{len(absent)} not in the data: {listed(absent)}"
            if absent
            else f"{len(extra)} left out: {listed(extra)}"
        )
        raise DataError(
            str(path), which, "exactly the cases of the data", "use the data that the split was made of"
        )
    changed = [
        case.id
        for case, digest in zip(cases, sha256, strict=True)
        if by_case[case.id].get("sha256") not in (None, "", digest)
    ]
    if changed:
        seen = f"{len(changed)} image files changed since: {listed(changed)}"
        raise DataError(str(path), seen, "the files as they were", "bring them back, or begin a new run")
    return [dataclasses.replace(case, split=cast("SplitName", by_case[case.id]["split"])) for case in cases]
