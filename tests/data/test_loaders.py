from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.data.augment import Augment
from medxfer.data.cache import Arrays
from medxfer.data.case import Case
from medxfer.data.loaders import Batch, Batches
from medxfer.data.patches import WholeImages
from medxfer.data.presets import default_augment

COUNT = 37


def arrays_of(order: list[int] | None = None) -> Arrays:
    order = order or list(range(COUNT))
    images = np.random.default_rng(0).integers(0, 255, (COUNT, 1, 16, 16)).astype(np.uint8)[order]
    cases = tuple(Case(id=f"c{row}", images=(Path(f"c{row}"),), patient=f"p{row}") for row in order)
    return Arrays(
        images=images,
        cases=cases,
        sha256=tuple(f"{row + 7:064x}" for row in order),
        affines=np.zeros((len(images), 3, 3)),
    )


def batches_of(arrays: Arrays | None = None, **options: object) -> Batches:
    chosen: dict[str, object] = {
        "rows": range(COUNT), "batch": 8, "seed": 3, "augment": None, "device": torch.device("cpu"),
        "memory_format": torch.contiguous_format, "shuffle": True, **options,
    }  # fmt: skip
    own = arrays or arrays_of()
    return Batches(own, WholeImages(own, torch.arange(COUNT) * 10), **chosen)  # type: ignore[arg-type]


def rows_of(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.index]


def test_an_epoch_holds_every_row_once_with_its_target_image_and_id() -> None:
    arrays, batches = arrays_of(), batches_of()

    seen = list(batches.epoch(0))

    assert len(seen) == len(batches) == 5
    assert sorted(rows_of(seen)) == list(range(COUNT))
    for batch in seen:
        assert torch.equal(batch.images, arrays.batch(batch.index.numpy()))
        assert batch.targets.tolist() == [10 * row for row in batch.index.tolist()]
        assert batch.ids == tuple(f"c{row}" for row in batch.index.tolist())


def test_order_depends_on_seed_and_epoch_alone() -> None:
    batches = batches_of()

    assert rows_of(list(batches.epoch(1))) == rows_of(list(batches_of().epoch(1)))
    assert rows_of(list(batches.epoch(1))) != rows_of(list(batches.epoch(2)))
    assert rows_of(list(batches.epoch(1))) != rows_of(list(batches_of(seed=4).epoch(1)))


def test_without_shuffling_rows_come_as_they_were_given() -> None:
    assert rows_of(list(batches_of(rows=[5, 2, 9], shuffle=False).epoch(4))) == [5, 2, 9]


def test_augmentation_of_a_case_hangs_on_content_seed_and_epoch_not_on_its_place() -> None:
    augment = Augment(default_augment("xray"))

    def changed(batches: Batches, epoch: int) -> dict[str, torch.Tensor]:
        return {
            name: image
            for batch in batches.epoch(epoch)
            for name, image in zip(batch.ids, batch.images, strict=True)
        }

    one = changed(batches_of(augment=augment), 2)
    turned = changed(batches_of(arrays_of(list(reversed(range(COUNT)))), augment=augment, batch=5), 2)
    later = changed(batches_of(augment=augment), 3)
    other = changed(batches_of(augment=augment, seed=9), 2)

    for name in one:
        torch.testing.assert_close(one[name], turned[name], atol=1e-6, rtol=0)
    assert sum(torch.allclose(one[name], later[name]) for name in one) == 0
    assert sum(torch.allclose(one[name], other[name]) for name in one) == 0


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_an_epoch_in_equal_steps(world: int) -> None:
    parts = [rows_of(list(batches_of(rank=rank, world=world).epoch(1))) for rank in range(world)]

    assert len({len(part) for part in parts}) == 1
    assert set().union(*map(set, parts)) == set(range(COUNT))
    assert sum(map(len, parts)) - COUNT < world
    assert {len(list(batches_of(rank=rank, world=world).epoch(1))) for rank in range(world)} == {
        len(batches_of(rank=0, world=world))
    }


def test_memory_format_is_the_one_asked_for() -> None:
    arrays = arrays_of()
    wide = Arrays(
        images=np.repeat(arrays.images, 3, 1),
        cases=arrays.cases,
        sha256=arrays.sha256,
        affines=arrays.affines,
    )

    batch = next(batches_of(wide, memory_format=torch.channels_last).epoch(0))

    assert batch.images.is_contiguous(memory_format=torch.channels_last)
