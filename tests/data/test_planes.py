"""Patches one voxel thick: pictures as slices of volumes are, changed in their plane only, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Component, ImagesSpec, PatchSpec, SliceSpec
from medxfer.data.augment import Augment
from medxfer.data.case import Case
from medxfer.data.patches import samples_of
from medxfer.data.placed import Placed
from medxfer.data.planes import picture_of, volume_of
from medxfer.data.policy import STRICT
from medxfer.data.presets import fill_in
from medxfer.data.sampling import AXES, cut
from medxfer.errors import ConfigError

from .patched import arrays_of, batches_of, marked

SIZES = {0: (1, 11, 9), 1: (14, 1, 9), 2: (14, 11, 1)}  # of planes that hold the whole of `marked()`
BUNDLE = """\
name: planes
data: {source: synthetic.hippocampus_mri}
images: {preset: mri, dims: 3, size: [1, 32, 32], patches: {}, adjust: {RandomAffine: {flip: %s}}}
encoder: {id: cnn}
task: {_target_: Segmentation, classes: [anterior, posterior]}
phases: [{name: all, train: all, lr: 1.0e-3, epochs: 1}]
"""


def spec(size: tuple[int, ...], **options: float) -> ImagesSpec:
    return ImagesSpec(dims=3, size=size, patches=PatchSpec(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_picture_of_a_plane_becomes_that_plane_again(thin: int) -> None:
    shape = [2, 3, 4, 5, 6]
    shape[thin + 2] = 1
    volume = torch.rand(shape)

    picture = picture_of(volume, thin)

    assert picture.shape == (2, 3, *[side for side in shape[:1:-1] if side > 1])
    assert torch.equal(volume_of(picture, thin), volume)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_thin_patches_are_the_pictures_that_slices_of_the_volume_are(plane: str) -> None:
    image = marked()
    thin = AXES[plane]
    whole = Placed(torch.from_numpy(image)[None].float() / 255, np.eye(4))
    pictures = [
        part.image.values
        for part in cut(Case(id="c", images=(), patient="p"), whole, SliceSpec(plane=plane), STRICT)  # type: ignore[arg-type]
    ]

    images, maps = samples_of(arrays_of([image], [image % 3]), None, spec(SIZES[thin])).take(
        np.zeros(60, np.int64), range(60)
    )

    assert images.shape == (60, *pictures[0].shape)
    assert images.is_contiguous()
    values = (images * 255).round().to(torch.uint8)[:, 0]
    assert torch.equal(maps, values % 3)
    seen = {next(n for n, one in enumerate(pictures) if torch.equal(one, mine)) for mine in images}
    assert len(seen) > image.shape[thin] // 2


def test_foreground_decides_in_which_plane_a_thin_patch_lies() -> None:
    label = np.zeros((14, 11, 9), np.uint8)
    label[3:5, 2:4, 7] = 1

    _, maps = samples_of(arrays_of([marked()], [label]), None, spec((8, 8, 1), foreground=1.0)).take(
        np.zeros(20, np.int64), range(20)
    )

    assert maps.shape == (20, 8, 8)
    assert set(maps.flatten(1).sum(1).tolist()) == {4}


def test_thin_patches_of_small_volumes_are_padded_in_their_plane() -> None:
    image = marked((5, 4, 6))

    images, maps = samples_of(
        arrays_of([image], [np.ones_like(image)]), None, spec((8, 1, 8), foreground=0.0)
    ).take(np.zeros(3, np.int64), range(3))

    assert images.shape == (3, 1, 8, 8)
    assert maps.flatten(1).sum(1).tolist() == [30, 30, 30]
    assert torch.equal(images[:, 0] > 0, maps > 0)


@pytest.mark.parametrize("thin", [1, 2])
def test_left_and_right_are_what_is_mirrored_in_axial_and_coronal_planes(thin: int) -> None:
    label = np.zeros((16, 16, 16), np.uint8)
    label[2:6] = 1  # along X, so at the right of the picture
    size = [16, 16, 16]
    size[thin] = 1
    images, maps = samples_of(arrays_of([label * 200], [label]), None, spec(tuple(size))).take(
        np.zeros(20, np.int64), range(20)
    )
    flip = Component(
        target="RandomAffine", arguments={"degrees": 0.0, "shift": 0.0, "scale": 0.0, "flip": True}
    )

    moved, turned = Augment([flip])(images, range(20), maps)

    assert turned is not None
    assert torch.equal((moved[:, 0] > 0.4).to(torch.uint8), turned)
    assert {tuple(one[0].tolist()) for one in turned} == {
        tuple(maps[0, 0].tolist()),
        tuple(maps[0, 0].flip(0).tolist()),
    }


def test_sagittal_planes_are_not_mirrored(tmp_path: Path) -> None:
    for word in ("false", "true"):
        folder = tmp_path / word / "configs"
        folder.mkdir(parents=True)
        (folder / "train.yaml").write_text(BUNDLE % word, encoding="utf-8")

    assert fill_in(load_bundle(tmp_path / "false")).images.thin == 0
    with pytest.raises(ConfigError, match=r"(?s)RandomAffine.*without left and right.*flip: false"):
        fill_in(load_bundle(tmp_path / "true"))


def test_planes_of_an_epoch_hang_on_content_seed_and_epoch_alone() -> None:
    images, maps = [marked(), marked((9, 14, 20))], [marked() % 3, marked((9, 14, 20)) % 3]
    augment = Augment([Component(target="RandomAffine"), Component(target="RandomBiasField")])

    def drawn(order: list[int], batch: int) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        arrays = arrays_of(images, maps, order)
        for one in batches_of(arrays, augment=augment, batch=batch, spec=spec((8, 8, 1), count=3)).epoch(2):
            assert one.images.shape[1:] == (1, 8, 8)
            for name, image, label in zip(one.ids, one.images, one.targets, strict=True):
                found.setdefault(name, []).append(image.numpy().tobytes() + label.numpy().tobytes())
        return {name: sorted(parts) for name, parts in found.items()}

    assert drawn([0, 1], 4) == drawn([1, 0], 5)
