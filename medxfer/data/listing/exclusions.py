"""What a user leaves out: a list of paths or patterns, with reasons, which are told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ...bundle.schema import DataSpec
from ...errors import DataError
from ..case import Case
from ..image import shown

SHOWN = 5  # reasons named in one note


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: a path or pattern, and why."""

    path: str
    reason: str


def without_excluded(data: DataSpec, root: Path, cases: list[Case], notes: list[str]) -> list[Case]:
    """Leave out what the `exclude` file names.

    A line is a path relative to the data folder, or a pattern with `*` or `?`; after a blank and `#` follows the
    reason. Lines that begin with `#` are comments. The file lies in the bundle's folder, in the working folder (these
    two the bundle's reader finds) or in the data folder.

    Args:
        data: Names the file.
        root: The data folder.
        cases: All of them.
        notes: Sentences are added here: how many were left out for which reason, and lines that name nothing.

    Raises:
        DataError: No such file, or every case is left out.
    """
    if data.exclude is None:
        return cases
    path = next((place for place in (root / data.exclude, Path(data.exclude)) if place.is_file()), None)
    if path is None:
        raise DataError(
            f"data.exclude: {data.exclude}", "no such file", "a text file, one path a line", "correct it"
        )
    lines = _lines_of(path, {case.id for case in cases})
    exact = {line.path: line for line in lines}
    patterns = [line for line in lines if re.search(r"[*?]", line.path)]
    reason_of: dict[str, str] = {}
    used: set[str] = set()
    for case in cases:
        line = exact.get(case.id) or next((one for one in patterns if fnmatchcase(case.id, one.path)), None)
        if line is not None:
            reason_of[case.id] = line.reason
            used.add(line.path)
    kept = [case for case in cases if case.id not in reason_of]
    reasons = Counter(reason or "no reason given" for reason in reason_of.values())
    told = "; ".join(f"{count}: {shown(reason)}" for reason, count in reasons.most_common(SHOWN))
    rest = len(reasons) - SHOWN
    told += f"; and {rest} more reasons" if rest > 0 else ""
    if reason_of:
        reasoned = f" ({told})" if any(reason_of.values()) else ""
        notes.append(f"{len(reason_of)} cases left out by {path.name}{reasoned}")
    unknown = sorted({line.path for line in lines} - used)
    if unknown:
        first = ", ".join(shown(name) for name in unknown[:5])
        lines_are = "1 line" if len(unknown) == 1 else f"{len(unknown)} lines"
        notes.append(f"{lines_are} of {path.name} name no case: {first}")
    if not kept:
        raise DataError(shown(path), "every case is left out", "some cases left", "shorten the file")
    return kept


def _lines_of(path: Path, known: set[str]) -> list[_Line]:
    lines = []
    for text in path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines():
        whole = text.strip()
        if not whole or whole.startswith("#"):
            continue
        # A file's own name may hold ` # `.
        if whole in known:
            lines.append(_Line(whole, ""))
            continue
        name, _, reason = re.sub(r"\s#\s*", "\0", whole, count=1).partition("\0")
        lines.append(_Line(PurePosixPath(name.strip()).as_posix(), reason.strip()))
    return lines
