"""What became of every tensor when weights were loaded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["loaded", "converted", "re-initialised", "unused"]
STATES: tuple[State, ...] = ("loaded", "converted", "re-initialised", "unused")
_SHOWN = 5  # names listed in the short table; receipt.json has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tensor of the encoder, or one of the file that found no place (`unused`)."""

    name: str
    shape: tuple[int, ...]
    state: State
    how: str  # where it came from, how it was converted, or why it was not used
    kind: Literal["parameter", "buffer", "file"] = "parameter"  # file: only there
    steps: tuple[str, ...] = ()  # of its conversion

    @property
    def size(self) -> int:
        """Numbers in it."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where an encoder's tensors came from."""

    encoder: str
    weights: str  # a tag, the path of a file, or "none"
    rows: tuple[Row, ...]
    coverage: float  # share of the encoder's parameters that came from the file
    options: Mapping[str, Any] = field(default_factory=dict)  # that the encoder was built with
    file: str | None = None
    sha256: str | None = None
    licence: str | None = None
    trained_on: str | None = None
    notes: tuple[str, ...] = ()

    def of(self, state: State) -> tuple[Row, ...]:
        """The rows in that state."""
        return tuple(row for row in self.rows if row.state == state)

    def to_json(self) -> dict[str, Any]:
        """Plain data for receipt.json."""
        counts = Counter(row.state for row in self.rows)
        return {
            "encoder": self.encoder,
            "weights": self.weights,
            "options": dict(self.options),
            "file": self.file,
            "sha256": self.sha256,
            "licence": self.licence,
            "trained_on": self.trained_on,
            "coverage": self.coverage,
            "counts": {state: counts[state] for state in STATES},
            "notes": list(self.notes),
            "tensors": [
                {"name": r.name, "shape": list(r.shape), "kind": r.kind, "state": r.state, "how": r.how}
                for r in self.rows
            ],
        }

    def table(self) -> str:
        """A few lines for people."""
        total = sum(row.size for row in self.rows if row.kind == "parameter")
        if self.file is None:
            return f"{self.encoder}: random weights, {total:,} parameters"
        licence = f" ({self.licence})" if self.licence else ""
        share = f"{self.coverage:.1%} of {total:,} parameters came from the file"
        lines = [f"{self.encoder} from {self.weights}{licence}: {share}"]
        for state in STATES:
            rows = self.of(state)
            if rows or state == "loaded":
                named = _names(rows) if state in ("re-initialised", "unused") else ""
                lines.append(f"  {state:<15}{len(rows):>5} tensors{named}")
            if state == "converted":
                lines += _by_step(rows)
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _by_step(rows: tuple[Row, ...]) -> list[str]:
    """A line for each kind of conversion."""
    by_step: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for step in row.steps:
            by_step[step].append(row)
    return [
        f"    {step}: {found[0].name if len(found) == 1 else f'{len(found)} tensors'}"
        for step, found in by_step.items()
    ]


def _names(rows: tuple[Row, ...]) -> str:
    more = f", and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ": " + ", ".join(row.name for row in rows[:_SHOWN]) + more
