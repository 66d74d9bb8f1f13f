"""Turn tensors of a weights file into those of an encoder, exactly or not at all, and write down how."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from torch import Tensor

from .adapt import inflate_centre, resize_positions, spread_channels, token_grids
from .receipt import Row, State

ABSENT = "not in the file"
_POSITIONS = re.compile(r"pos(ition)?_?embed")


def fits(value: Tensor, wanted: Tensor, name: str) -> bool:
    """Equal in shape, or but for what can be converted: input channels, a third dimension, a grid of positions."""
    if value.shape == wanted.shape or _is_same_matrix(value, wanted):
        return True
    if _are_positions(value, wanted, name):
        return token_grids(value.shape[1], wanted.shape[1]) is not None
    if value.ndim < 4 or wanted.ndim < value.ndim:
        return False
    return value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2 : value.ndim]


def fit(
    file: Mapping[str, Tensor],
    keys: Mapping[str, str],
    wanted: Mapping[str, Tensor],
    parameters: Collection[str],
    *,
    trained: int,
    built: int,
) -> tuple[list[Row], dict[str, Tensor]]:
    """Each tensor of the encoder from the file's.

    Args:
        file: Published name -> tensor.
        keys: Our name -> published name.
        wanted: Our name -> tensor of the encoder as built.
        parameters: Which of those are parameters; the others are buffers.
        trained: Image channels of the file.
        built: Image channels of the encoder.

    Returns:
        A row for each tensor of the encoder, and what to put there by our name.
    """
    rows: list[Row] = []
    fitted: dict[str, Tensor] = {}
    for name, target in wanted.items():
        kind: Literal["parameter", "buffer"] = "parameter" if name in parameters else "buffer"
        state: State = "re-initialised"
        key, how = keys.get(name), ABSENT
        steps: list[str] = []
        if key is not None:
            value, steps = _converted(file[key], target, name, trained, built)
            if value is None:
                how = f"`{key}` has {tuple(file[key].shape)}, the encoder wants {tuple(target.shape)}"
            else:
                fitted[name] = value
                state = "converted" if steps else "loaded"
                how = f"from `{key}`" + "".join(f"; {step}" for step in steps)
        shape = tuple(target.shape)
        rows.append(Row(name=name, shape=shape, state=state, how=how, kind=kind, steps=tuple(steps)))
    return rows, fitted


def left_over(file: Mapping[str, Tensor], keys: Mapping[str, str], used: set[str]) -> list[Row]:
    """A row for each tensor of the file that is not used."""
    known = set(keys.values())
    return [
        Row(
            name=key,
            shape=tuple(value.shape),
            state="unused",
            how="of another shape" if key in known else "no tensor of this encoder has this name",
            kind="file",
        )
        for key, value in file.items()
        if key not in used
    ]


def coverage_of(rows: Sequence[Row]) -> float:
    """Share of the encoder's parameters that came from the file."""
    parameters = [row for row in rows if row.kind == "parameter"]
    came = sum(row.size for row in parameters if row.state in ("loaded", "converted"))
    return came / max(sum(row.size for row in parameters), 1)


def _converted(
    value: Tensor, target: Tensor, name: str, trained: int, built: int
) -> tuple[Tensor | None, list[str]]:
    """`value` in the shape and type of `target`, and the steps; None where no exact rule leads there."""
    if not fits(value, target, name):
        return None, []
    steps: list[str] = []
    if value.shape != target.shape and _are_positions(value, target, name):
        grids = token_grids(value.shape[1], target.shape[1])
        assert grids is not None  # it fits
        value = resize_positions(value, grids)
        steps.append(f"position embeddings interpolated from {_times(grids.old)} to {_times(grids.new)}")
    elif value.shape != target.shape and _is_same_matrix(value, target):
        value = value.reshape(target.shape)
        steps.append("a 1x1 kernel and a matrix are the same numbers")
    if value.ndim == 4 and target.ndim == 5:
        value = inflate_centre(value, target.shape[4])
        steps.append(f"2D kernel put into the middle of {target.shape[4]}")
    if value.ndim > 3 and value.shape[1] == trained and target.shape[1] == built and trained < built:
        value = spread_channels(value, built)
        steps.append(f"{trained} input channels spread over {built}")
    if value.shape != target.shape:
        return None, []
    if value.dtype != target.dtype:
        steps.append(f"{_plain(value)} to {_plain(target)}")
    return value, steps


def _is_same_matrix(value: Tensor, wanted: Tensor) -> bool:
    """`(out, in)` on one side, `(out, in, 1, 1)` on the other."""
    return min(value.ndim, wanted.ndim) == 2 and _without_ones(value) == _without_ones(wanted)


def _without_ones(value: Tensor) -> tuple[int, ...]:
    shape = tuple(value.shape)
    return shape[:2] if set(shape[2:]) <= {1} else shape


def _are_positions(value: Tensor, wanted: Tensor, name: str) -> bool:
    """Embeddings `(1, tokens, C)` of a grid."""
    return (
        value.ndim == wanted.ndim == 3
        and value.shape[0] == wanted.shape[0] == 1
        and value.shape[2] == wanted.shape[2]
        and _POSITIONS.search(name) is not None
    )


def _times(grid: Sequence[int]) -> str:
    return "x".join(map(str, grid))


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
