"""Steps on many pictures at once: one call for pictures of one size instead of one for each, the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from .placed import Placed
from .presets import prepared
from .steps.base import Step

MOST_BYTES = (
    2**24
)  # of pictures taken together: a call of each step costs as much as resizing three of 224 x 224


class ManyStep(Protocol):
    """What a step may have besides: a faster way for several pictures of one size than one after another."""

    def many(self, images: Placed, count: int) -> Placed:
        """The step on `count` pictures one behind another, (count * C, rows, columns), each as if it were alone."""


def prepared_together(images: Sequence[Placed], steps: Sequence[Step]) -> list[Placed]:
    """`prepared` of each image, to the last bit; pictures of one size and place that follow each other go together.

    Args:
        images: Float32, or uint8 as `read_case(as_stored=True)` gives them.
        steps: Applied to float32.
    """
    done: list[Placed] = []
    for group in _alike(images):
        if len(group) == 1:
            done.append(prepared(group[0].with_values(group[0].values.float()), steps))
        else:
            done += _prepared(group, steps)
    return done


def _alike(images: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Neighbouring pictures of one shape and place, few enough; each volume alone."""
    for _, run in itertools.groupby(images, _likeness):
        group = list(run)
        most = max(1, MOST_BYTES // max(1, bytes_of(group[0]))) if group[0].values.ndim == 3 else 1
        for begin in range(0, len(group), most):
            yield group[begin : begin + most]


def _likeness(image: Placed) -> tuple[object, ...]:
    return image.values.shape, image.values.dtype, image.affine.tobytes()


def bytes_of(image: Placed) -> int:
    """As float32."""
    return 4 * image.values.numel()


def _prepared(group: Sequence[Placed], steps: Sequence[Step]) -> list[Placed]:
    count = len(group)
    whole = Placed(torch.cat([one.values for one in group]).float(), group[0].affine)
    for number, step in enumerate(steps):
        many: Callable[[Placed, int], Placed] | None = getattr(step, "many", None)
        if many is not None:
            whole = many(whole, count)
            continue
        singles = [step(one) for one in _apart(whole, count)]
        first = singles[0]
        if any(
            one.values.shape != first.values.shape or not np.array_equal(one.affine, first.affine)
            for one in singles
        ):
            return [prepared(one, steps[number + 1 :]) for one in singles]
        whole = Placed(torch.cat([one.values for one in singles]), first.affine)
    return _apart(whole, count)


def _apart(whole: Placed, count: int) -> list[Placed]:
    return [Placed(one, whole.affine) for one in whole.values.chunk(count)]
