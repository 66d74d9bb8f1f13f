"""Patches: padded as MONAI's sliding window pads, centred on every class alike, the same from the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference

from medxfer.bundle.schema import ImagesSpec, PatchSpec
from medxfer.data.augment import Augment
from medxfer.data.loaders import Batches
from medxfer.data.masks import IGNORED
from medxfer.data.patches import Patches, WholeImages, samples_of, targets_of
from medxfer.data.presets import default_augment

from .patched import arrays_of, batches_of, by_case, digest, hands, marked
from .phantom import hand


@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    size=st.tuples(*[st.integers(1, 12)] * 3),
    seed=st.integers(0, 2**62 - 1),
    foreground=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_patch_is_a_part_of_the_image_or_the_image_padded_as_monais_sliding_window_does(
    shape: tuple[int, ...], size: tuple[int, ...], seed: int, foreground: float
) -> None:
    image = marked(shape)
    label = (image % 3).astype(np.uint8)
    arrays = arrays_of([image], [label])

    pixels, maps = Patches(arrays, size, PatchSpec(foreground=foreground)).take(np.array([0]), [seed])

    assert pixels.shape == (1, 1, *size)
    values = (pixels[0, 0].numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(maps[0].numpy(), np.where(values > 0, values % 3, 0))
    # padding: where MONAI puts it
    seen = []
    roi = tuple(min(one, other) for one, other in zip(shape, size, strict=True))
    sliding_window_inference(
        torch.from_numpy(image)[None, None].float(), size, 1, lambda x: (seen.append(x.clone()), x)[1]
    )
    theirs = seen[0][0, 0].numpy()
    larger = tuple(have <= want for have, want in zip(shape, size, strict=True))
    for axis, is_padded in enumerate(larger):
        if is_padded:
            others = tuple(one for one in range(3) if one != axis)
            np.testing.assert_array_equal((values > 0).any(others), (theirs > 0).any(others))
    where = np.nonzero(values)
    box = tuple(slice(one.min(), one.max() + 1) for one in where)
    cut = values[box]
    assert cut.shape == roi
    assert any(  # it is some window of the image
        np.array_equal(image[tuple(slice(s, s + n) for s, n in zip(start, roi, strict=True))], cut)
        for start in np.ndindex(*[have - n + 1 for have, n in zip(shape, roi, strict=True)])
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_foreground_share_is_kept_and_every_class_gets_its_turn(share: float) -> None:
    label = np.zeros((40, 40), np.uint8)
    label[20, 20] = 2  # one pixel
    label[5:15, 25:35] = 1  # a hundred
    label[30:, :] = IGNORED  # never a centre
    arrays = arrays_of([marked((40, 40))], [label])
    patches = Patches(arrays, (3, 3), PatchSpec(foreground=share))

    _, maps = patches.take(np.zeros(2000, np.int64), range(2000))

    centre = maps[:, 1, 1].numpy()
    one, two = (centre == 1).mean(), (centre == 2).mean()
    by_chance = (1 - share) * np.array([100 / 1444, 1 / 1444])
    assert one == pytest.approx(share / 2 + by_chance[0], abs=0.04)
    assert two == pytest.approx(share / 2 + by_chance[1], abs=0.04)


def test_patches_at_the_border_stay_inside_of_the_image() -> None:
    label = np.zeros((10, 12), np.uint8)
    label[0, 0] = label[9, 11] = 1
    patches = Patches(arrays_of([marked((10, 12))], [label]), (6, 6), PatchSpec(foreground=1.0))

    pixels, maps = patches.take(np.zeros(40, np.int64), range(40))

    assert bool((pixels > 0).all())  # nothing is padded
    assert set(maps.flatten(1).sum(1).tolist()) == {1}
    assert len({tuple(one.flatten().tolist()) for one in pixels}) == 2


def test_without_foreground_in_an_image_patches_lie_anywhere() -> None:
    patches = Patches(
        arrays_of([marked((20, 20))], [np.zeros((20, 20), np.uint8)]), (8, 8), PatchSpec(foreground=1.0)
    )

    pixels, maps = patches.take(np.zeros(30, np.int64), range(30))

    assert not maps.any()
    assert len({tuple(one.flatten().tolist()) for one in pixels}) > 10


def test_an_epoch_has_every_images_patches_and_they_hang_on_content_seed_and_epoch_alone() -> None:
    augment = Augment(default_augment("mri"))
    images, maps = (
        [marked(), marked((11, 9, 7)), marked((20, 8, 8))],
        [hand(), hand()[1:12, 1:10, 1:8], hand((20, 12, 9))[:, :8, :8]],
    )

    one = by_case(batches_of(arrays_of(images, maps), augment=augment), 2)
    turned = by_case(batches_of(arrays_of(images, maps, [2, 0, 1]), augment=augment, batch=5), 2)
    again = by_case(batches_of(arrays_of(images, maps), augment=augment), 2)
    later = by_case(batches_of(arrays_of(images, maps), augment=augment), 3)

    assert {name: len(parts) for name, parts in one.items()} == {"c0": 4, "c1": 4, "c2": 4}
    assert len(set(one["c0"])) == 4
    assert one == again == turned
    assert not set(one["c0"]) & set(later["c0"])


SCRIPT = "from tests.data.patched import batches_of, digest, hands; print(digest(batches_of(hands()), 1))"


def test_another_process_draws_the_same_patches() -> None:
    root = Path(__file__).parents[2]

    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == digest(batches_of(hands()), 1)


def test_maps_move_with_their_images() -> None:
    label = np.zeros((32, 32), np.uint8)
    label[8:24, 12:20] = 1
    arrays = arrays_of([label * 200], [label])
    samples = WholeImages(arrays, None)
    batches = Batches(
        arrays, samples, [0], 1, seed=1, augment=Augment(default_augment("pathology")[:1]),
        device=torch.device("cpu"), memory_format=torch.contiguous_format, shuffle=False,
    )  # fmt: skip

    batch = next(batches.epoch(0))

    assert samples.moves
    assert batch.targets.dtype == torch.uint8
    assert not torch.equal(batch.targets[0], torch.from_numpy(label))  # it was turned
    both = ((batch.images[0, 0] > 0.4) == (batch.targets[0] == 1)).float().mean()
    assert both > 0.98


def test_whole_images_take_labels_or_maps() -> None:
    arrays = hands()

    assert samples_of(arrays, torch.tensor([3, 4]), ImagesSpec()).moves is False
    assert targets_of(arrays, torch.tensor([3, 4]), [1]).tolist() == [4]
    np.testing.assert_array_equal(targets_of(arrays, None, [0])[0].numpy(), hand())
