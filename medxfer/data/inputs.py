"""What a trained network is asked about: files, folders or the rows of a table, found and read as for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.schema import DataSpec
from ..errors import DataError
from .case import Case
from .describe import Found, find_inputs, read_found
from .image import shown
from .listing.rows_of_table import rows_of_table
from .policy import ALL
from .sampling import Parts, parts_of, reading_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One thing to predict, or why it cannot be."""

    name: str  # as shown in an answer: nothing in it breaks a line
    files: tuple[Found, ...] = ()  # several are channels
    refusal: DataError | None = None


def inputs_of(paths: Sequence[Path], data: DataSpec, *, volumes: bool, notes: list[str]) -> list[Input]:
    """Files and what lies in folders, by the same walk as `inspect`.

    Args:
        paths: Files and folders.
        data: Its rules choose among the series of a folder.
        volumes: Whether the network looks at volumes or slices of them; else each file of a series is a picture.
        notes: Sentences on what was set aside in folders are added here.
    """
    policy = reading_of(data).policy
    inputs: list[Input] = []
    for path in paths:
        try:
            found, aside = find_inputs(path, policy=policy)
        except DataError as error:
            inputs.append(Input(name=shown(path), refusal=error))
            continue
        notes += aside
        for one in found:
            if one.series is not None and not volumes:
                inputs += [Input(name=shown(file), files=(Found(path=file),)) for file in one.series.files]
            else:
                name = f"{one.path} ({one.note})" if one.note else one.path
                inputs.append(Input(name=shown(name), files=(one,)))
    return inputs


def inputs_of_table(path: Path, data: DataSpec, notes: list[str]) -> list[Input]:
    """The files that the rows of a table name, by the columns of the training table; labels are not needed.

    Raises:
        DataError: No such table, or it has no such columns.
    """
    inputs = []
    for row in rows_of_table(data, path, notes):
        if isinstance(row, DataError):
            inputs.append(Input(name=shown(row.where), refusal=row))
        else:
            inputs.append(Input(name=shown(row[0]), files=tuple(Found(path=file) for file in row)))
    return inputs


def read_input(one: Input, data: DataSpec) -> Parts:
    """Read one input.

    Where cases of the training were several files, one file alone is read with all its volumes as channels.

    Raises:
        DataError: A file that cannot be read, or files on different grids.
    """
    if one.refusal is not None:
        raise one.refusal
    reading = reading_of(data)
    if len(data.images or ()) > len(one.files) == 1 and data.volume is None:
        reading = dataclasses.replace(reading, policy=dataclasses.replace(reading.policy, volume=ALL))
    images = [read_found(file, reading.policy) for file in one.files]
    case = Case(id=one.name, images=tuple(file.path for file in one.files), patient="")
    return parts_of(case, images, reading)
