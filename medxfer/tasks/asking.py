"""A trained network asked about files: a row for each, and a file where the task writes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle.schema import Bundle
from ..data.case import Case
from ..data.image import shown
from ..data.inputs import Input, read_input
from ..data.masks import Origin
from ..data.names import file_stems
from ..data.placed import Placed
from ..data.presets import Step, prepared
from ..data.sampling import Part, reading_of
from ..data.usual import Usual, seen_of
from ..errors import DataError
from ..networks.network import Network
from .base import Predictions, Task, joined, named

_AT_ONCE = 2**21  # pixels or voxels that the network gets: 32 pictures of 256 x 256, one volume of 128 a side


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One image as the network gets it, or a refusal."""

    shown: str
    status: str
    reason: str
    image: Tensor | None = None
    origin: Origin | None = None


def _portions(asked: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Neighbours of one size, as many as go through the network at once."""
    portion: list[_Asked] = []
    for one in asked:
        assert one.image is not None
        first = portion[0].image if portion else None
        most = max(1, _AT_ONCE // one.image.numel())
        if first is not None and (first.shape != one.image.shape or len(portion) >= most):
            yield portion
            portion = []
        portion.append(one)
    yield portion


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A network in evaluation mode with all that its answers need."""

    bundle: Bundle
    task: Task
    network: Network
    steps: tuple[Step, ...]
    calibration: Mapping[str, Any]
    usual: Usual | None

    def rows(
        self,
        inputs: Sequence[Input],
        names: Sequence[str],
        folder: Path | None,
        *,
        probabilities: bool = False,
    ) -> list[dict[str, object]]:
        """A row an image: one a case, or one a slice where the bundle cuts volumes.

        Args:
            inputs: Files to read.
            names: Of each, for files of the answer.
            folder: Where these go; None: none are written.
            probabilities: Write them too, into the folder `probabilities` there.

        Returns:
            Rows with `file`, what the task tells, `status` and `reason`.
        """
        asked = [part for one, name in zip(inputs, names, strict=True) for part in self._asked_of(one, name)]
        readable = [one for one in asked if one.image is not None]
        said = iter(self._rows_of(readable, folder, probabilities=probabilities and folder is not None))
        rows: list[dict[str, object]] = []
        for one in asked:
            row = next(said) if one.image is not None else {}
            told = {name: value for name, value in row.items() if name not in ("case", "label", "file")}
            rows.append({"file": one.shown, **told, "status": one.status, "reason": shown(one.reason)})
        return rows

    def _asked_of(self, one: Input, name: str) -> list[_Asked]:
        """What the network is asked about an input, or why it cannot be."""
        try:
            parts = read_input(one, self.bundle.data)
            images = [self._ready(one.name, part.image) for part in parts.images]
        except DataError as error:
            reason = "; ".join(part for part in (error.seen, error.todo) if part)
            return [_Asked(shown=one.name, status="refused", reason=reason)]
        files = tuple(file.path for file in one.files)
        remarks = [[*parts.warnings, *self._unlike(*pair)] for pair in zip(parts.images, images, strict=True)]
        return [
            _Asked(
                shown=f"{one.name}{part.suffix}",
                status="warned" if own else "ok",
                reason="; ".join(own),
                image=image.values,
                origin=Origin(
                    case=Case(id=f"{name}{part.suffix}", images=files, patient=""),
                    affine=image.affine,
                    policy=reading_of(self.bundle.data).policy,
                    series=one.files[0].series,
                ),
            )
            for part, image, own in zip(parts.images, images, remarks, strict=True)
        ]

    def _unlike(self, part: Part, image: Placed) -> list[str]:
        """What tells an image from the training images, where these are known."""
        return [] if self.usual is None else self.usual.remarks(seen_of(image, part.image))

    def _ready(self, name: str, image: Placed) -> Placed:
        """What the network sees.

        Raises:
            DataError: A picture where the network looks at volumes or the other way round, or one file of several
                that are channels.
        """
        seen, accepted = (
            "picture" if dims == 2 else "volume" for dims in (len(image.shape), self.bundle.images.dims)
        )
        if seen != accepted:
            raise DataError(name, f"a {seen}", f"a {accepted}", f"this network looks at {accepted}s")
        slices, files = self.bundle.data.slices, len(self.bundle.data.images or ())
        count = files * (1 if slices is None else 2 * slices.context + 1)
        if files > 1 and image.values.shape[0] < count:  # one of them would be repeated as all channels
            seen = "1 channel" if image.values.shape[0] == 1 else f"{image.values.shape[0]} channels"
            accepted = f"one file with {files} channels"
            names = ", ".join(self.bundle.data.images or ())
            todo = (
                f"name a table with the columns {names}: --data TABLE.csv; or join them as one 4D NIfTI file"
            )
            raise DataError(name, seen, accepted, todo)
        return prepared(image, self.steps)

    def _rows_of(
        self, asked: Sequence[_Asked], folder: Path | None, *, probabilities: bool
    ) -> list[dict[str, object]]:
        """The task's rows for images; neighbours of one size go through the network together."""
        if not asked:
            return []
        ids = tuple(one.origin.case.id for one in asked if one.origin is not None)
        names = iter(file_stems(ids))
        kept, beside = [], list[Path | None]()
        with torch.inference_mode():
            for portion in _portions(asked):
                images = torch.stack([one.image for one in portion if one.image is not None])
                origins = [one.origin for one in portion if one.origin is not None]
                outputs = self.task.predict(self.network, images)
                kept.append(self.task.keep(outputs, None, origins))
                if folder is not None and probabilities:
                    beside += [
                        self.task.write_probabilities(output, origin, folder / "probabilities", next(names))
                        for output, origin in zip(outputs, origins, strict=True)
                    ]
        predictions = Predictions(ids=ids, files=ids, patients=ids, labels=None, outputs=joined(kept))
        finished = self.task.finish(predictions, self.calibration)
        rows = self.task.rows(finished, self.calibration)
        for number, row in enumerate(rows if folder is not None else ()):
            assert folder is not None
            if written := self.task.write(finished, number, folder):
                row["mask"] = named(written, folder)
            if beside and (path := beside[number]) is not None:
                row["probabilities"] = named([path], folder)
        return rows
