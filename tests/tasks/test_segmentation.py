"""The task of segmentation: its losses, what it keeps of a case, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor
from torch.nn import functional

from medxfer.bundle.schema import (
    Bundle,
    Component,
    DataSpec,
    EncoderSpec,
    ImagesSpec,
    PatchSpec,
    PhaseSpec,
    SliceSpec,
)
from medxfer.data.case import Case
from medxfer.data.masks import IGNORED, MaskRule, Origin
from medxfer.data.policy import STRICT
from medxfer.encoders.families.unet import UNetEncoder
from medxfer.errors import ConfigError, DataError
from medxfer.evaluation.mean_mask import MeanMask
from medxfer.evaluation.segmentation import measure_case
from medxfer.networks.network import Network
from medxfer.tasks.base import MaskAnswer, Predictions, joined, require_fitting
from medxfer.tasks.masked import cleaned, dice_counts, mean_of_counts
from medxfer.tasks.segmentation import Segmentation
from medxfer.tasks.segmented import Packed

from ..data.phantom import hand, rotation

THREE = ("palm", "thumb", "tips")
REGIONS = {"hand": list(THREE), "thumb": ["thumb"]}


def tensors(channels: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, channels, 9, 8, 7, generator=generator).requires_grad_()
    return logits, torch.randint(0, classes + 1, (2, 9, 8, 7), generator=generator).to(torch.uint8)


def test_without_anything_ignored_dice_ce_and_tversky_are_monais() -> None:
    logits, maps = tensors(4)
    target = maps[:, None].long()
    told = {"include_background": False, "softmax": True, "to_onehot_y": True, "batch": True}

    for name, theirs in (
        ("dice_ce", DiceCELoss(**told)),
        ("tversky", TverskyLoss(alpha=0.3, beta=0.7, **told)),
    ):
        found = Segmentation(THREE, loss=name).loss(logits, maps)  # type: ignore[arg-type]
        torch.testing.assert_close(found, theirs(logits, target), msg=name)


def test_dice_focal_is_monais_dice_of_the_foreground_and_its_focal_loss_of_all_classes() -> None:
    logits, maps = tensors(4)
    target = maps[:, None].long()

    found = Segmentation(THREE, loss="dice_focal").loss(logits, maps)

    dice = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, batch=True)(logits, target)
    focal = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True)(logits, target)
    torch.testing.assert_close(found, dice + focal)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky"])
def test_losses_of_overlapping_regions_are_monais_with_a_sigmoid_each(name: str) -> None:
    logits, maps = tensors(2)
    truth = torch.stack([maps > 0, maps == 2], 1).float()
    theirs = {
        "dice_focal": DiceFocalLoss(sigmoid=True, batch=True),
        "tversky": TverskyLoss(sigmoid=True, batch=True, alpha=0.3, beta=0.7),
    }

    found = Segmentation(THREE, regions=REGIONS, loss=name).loss(logits, maps)  # type: ignore[arg-type]

    if name == "dice_ce":  # MONAI's own takes a softmax over several channels even with sigmoid=True
        dice = DiceLoss(sigmoid=True, batch=True)(logits, truth)
        expected = dice + functional.binary_cross_entropy_with_logits(logits, truth)
    else:
        expected = theirs[name](logits, truth)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky"])
def test_ignored_voxels_change_no_loss_and_get_no_gradient(name: str, regions: Any) -> None:
    task = Segmentation(THREE, regions=regions, loss=name, ignore=9)  # type: ignore[arg-type]
    logits, maps = tensors(2 if regions else 4)
    maps[:, 4:] = IGNORED

    loss = task.loss(logits, maps)
    loss.backward()

    assert logits.grad is not None
    assert not logits.grad[:, :, 4:].any()
    assert bool((logits.grad[:, :, :4] != 0).any())
    other = logits.detach().clone()
    other[:, :, 4:] = 7
    torch.testing.assert_close(task.loss(other, maps), loss.detach())
    torch.testing.assert_close(task.loss(logits[:, :, :4], maps[:, :4]), loss)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky"])
def test_a_batch_of_nothing_but_ignored_or_background_has_a_finite_loss(name: str) -> None:
    task = Segmentation(THREE, loss=name, ignore=9)  # type: ignore[arg-type]
    logits, maps = tensors(4)

    for value in (IGNORED, 0):
        loss = task.loss(logits, torch.full_like(maps, value))
        assert bool(torch.isfinite(loss))
        loss.backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())


def test_deep_supervision_weighs_each_resolution_half_as_much_as_the_next_finer_one() -> None:
    encoder = UNetEncoder(spatial_dims=3, in_channels=1, widths=(8, 16, 16))
    task = Segmentation(THREE, decoder={"width": 8, "deep_supervision": True})
    head = task.head(encoder).train()
    images = torch.rand(1, 1, 16, 16, 16)
    maps = torch.from_numpy(np.pad(hand(), ((1, 1), (2, 3), (3, 4))))[None]

    outputs = head(head.reduce(encoder(images), images))

    sizes = [tuple(one.shape[2:]) for one in outputs]
    assert sizes == [(16, 16, 16), (8, 8, 8)]
    single = Segmentation(THREE)
    nearest = functional.interpolate(maps[None].float(), size=(8, 8, 8), mode="nearest-exact")[0]
    parts = [single.loss(outputs[0], maps), single.loss(outputs[1], nearest.to(torch.uint8))]
    torch.testing.assert_close(task.loss(outputs, maps), (parts[0] + 0.5 * parts[1]) / 1.5)
    assert isinstance(head.eval()(head.reduce(encoder(images), images)), Tensor)


@given(
    called=arrays_of.arrays(np.bool_, (2, 5, 6)),
    maps=arrays_of.arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 3, IGNORED])),
)
def test_dice_of_an_epoch_is_that_of_the_scores(called: np.ndarray, maps: np.ndarray) -> None:
    members = [[1, 2], [2]]

    counts = dice_counts(torch.from_numpy(called[None]), torch.from_numpy(maps[None]), members)

    measured = measure_case(
        called, np.stack([np.isin(maps, own) for own in members]), classes=["a", "b"], spacing=None, tolerance=1,
        ignore=maps == IGNORED,
    )  # fmt: skip
    found = [one.dice for one in measured.values() if one.dice == one.dice]
    expected = np.mean(found) if found else np.nan
    np.testing.assert_allclose(mean_of_counts(counts), expected)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_validation_is_perfect_where_the_logits_are_the_truth(regions: Any) -> None:
    task = Segmentation(THREE, regions=regions)
    maps = torch.from_numpy(hand())[None]
    planes = [maps == 0, maps == 1, maps == 2, maps == 3] if regions is None else [maps > 0, maps == 2]
    logits = torch.stack(planes, 1).float() * 40 - 20

    loss, dice = task.validate([(logits, maps), (logits, maps)])
    _, worse = task.validate([(logits.roll(3, 2), maps)])

    assert dice == 1.0
    assert loss < 1e-3
    assert worse < 0.8


def blobs() -> np.ndarray:
    """Two parts of class 1, one of them a ring with a hole, class 2 inside of the ring; a lone voxel of class 2."""
    mask = np.zeros((12, 12), np.uint8)
    mask[1:8, 1:8] = 1
    mask[2:4, 2:4] = 0  # a hole
    mask[5:7, 5:7] = 2  # a class inside of another
    mask[9:11, 9:11] = 1
    mask[11, 0] = 2
    return mask


def test_the_largest_part_of_each_class_is_kept_and_holes_are_filled_but_no_other_class() -> None:
    largest = cleaned(blobs(), keep_largest=True, fill_holes=False)
    filled = cleaned(blobs(), keep_largest=False, fill_holes=True)
    both = cleaned(blobs(), keep_largest=True, fill_holes=True)

    expected = blobs()
    expected[9:11, 9:11] = expected[11, 0] = 0
    np.testing.assert_array_equal(largest, expected)
    with_fill = blobs()
    with_fill[2:4, 2:4] = 1
    np.testing.assert_array_equal(filled, with_fill)
    expected[2:4, 2:4] = 1
    np.testing.assert_array_equal(both, expected)
    assert both.dtype == np.uint8
    assert cleaned(blobs(), keep_largest=False, fill_holes=False) is not None


def test_every_overlapping_region_is_cleaned_the_first_one_too() -> None:
    stack = np.stack([blobs() == 1, blobs() > 0])
    before = stack.copy()

    found = cleaned(stack, keep_largest=True, fill_holes=True)

    ring = np.zeros((12, 12), bool)
    ring[1:8, 1:8] = True
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.stack([ring, ring]))
    np.testing.assert_array_equal(stack, before)


def test_an_empty_mask_is_cleaned_to_an_empty_mask() -> None:
    for empty in (np.zeros((4, 5), np.uint8), np.zeros((2, 4, 5, 3), bool)):
        assert not cleaned(empty, keep_largest=True, fill_holes=True).any()


def test_the_mean_mask_is_what_most_training_masks_have_in_relative_place() -> None:
    one, two = np.zeros((20, 30, 10), np.uint8), np.zeros((40, 60, 20), np.uint8)
    one[5:15, 10:20, 2:8], two[10:30, 20:40, 4:16] = 1, 1  # the same place, stretched
    one[0, 0, 0] = 2
    mean = MeanMask.of([one, two], [[1], [2], [1, 2]])
    true = np.stack([one == 1, one == 2, one > 0])

    measured = mean.measure(true, np.ones(one.shape, bool), classes=["a", "b", "all"])

    assert measured["a"].dice > 0.9
    assert measured["a"].dice == pytest.approx(2 * measured["a"].iou / (1 + measured["a"].iou))
    assert measured["all"].true_size == measured["a"].true_size + 1
    blank = mean.measure(true, one != 1, classes=["a", "b", "all"])
    assert blank["a"].size < 0.1 * measured["a"].size  # what does not count is not called


@given(called=arrays_of.arrays(np.bool_, (1, 6, 5, 4), elements=st.booleans()))
def test_overlap_of_the_mean_mask_is_that_of_the_scores(called: np.ndarray) -> None:
    true = np.zeros((1, 6, 5, 4), bool)
    true[0, 1:5, 2:5, :2] = True

    mine = MeanMask(called).measure(true, np.ones((6, 5, 4), bool), classes=["a"])["a"]
    theirs = measure_case(called, true, classes=["a"], spacing=None, tolerance=1)["a"]

    assert (mine.dice, mine.iou, mine.size) == (theirs.dice, theirs.iou, theirs.size)


def test_training_masks_without_a_class_or_with_background_only_are_refused() -> None:
    empty, some = np.zeros((5, 6, 7), np.uint8), hand()
    ignored = np.full((4, 4, 4), IGNORED, np.uint8)

    with pytest.raises(DataError, match=r"only background(?s:.)*task\.values"):
        Segmentation(THREE).prepare([empty, ignored])
    with pytest.raises(DataError, match="no voxel of thumb"):
        Segmentation(THREE).prepare([np.where(some == 2, 0, some).astype(np.uint8), empty])
    with pytest.raises(DataError, match="no voxel of thumb"):
        Segmentation(THREE, regions=REGIONS).prepare([np.where(some == 2, 0, some).astype(np.uint8)])
    Segmentation(THREE).prepare([empty, some])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": []}, "task.classes"),
        ({"classes": ["a", "a"]}, "1 of them different"),
        ({"classes": [str(n) for n in range(255)]}, "1 to 254"),
        ({"classes": ["a", "b"], "values": "nonzero"}, "nonzero with 2 classes"),
        ({"classes": ["a", "b"], "values": {"a": [1]}}, "values of each class"),
        ({"classes": ["a", "b"], "values": {"a": [1], "b": [1, 2]}}, "each once"),
        ({"classes": ["a"], "values": {"a": [0]}}, "above 0"),
        ({"classes": ["a"], "values": {"a": [255]}, "ignore": 255}, "which is a class too"),
        ({"classes": ["a", "b"], "ignore": 2}, "which is a class too"),
        ({"classes": ["a"], "regions": {"all": ["a", "c"]}}, "unknown class c"),
        ({"classes": ["a"], "regions": {"all": []}}, "no class"),
        ({"classes": ["a"], "loss": "dice"}, "dice_ce, dice_focal, tversky"),
        ({"classes": ["a"], "overlap": 1.0}, "task.overlap"),
        ({"classes": ["a"], "tolerance": 0.0}, "task.tolerance"),
        ({"classes": ["a"], "flips": [3]}, "task.flips"),
        ({"classes": ["a"], "flips": [0, 0]}, "each once"),
        ({"classes": ["a"], "decoder": {"widht": 8}}, r"task\.decoder\.widht(?s:.)*width"),
        ({"classes": ["a"], "decoder": {"width": 0}}, "from 1"),
        ({"classes": ["a"], "decoder": {"width": "8"}}, "whole number"),
        ({"classes": ["a"], "decoder": {"dropout": 1.0}}, "below 1"),
        ({"classes": ["a"], "decoder": {"attention": 1}}, "true or false"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Segmentation(**arguments)


def bundle(images: ImagesSpec, data: DataSpec | None = None) -> Bundle:
    return Bundle(
        name="b", folder=Path(), data=data or DataSpec(source="x"), images=images, encoder=EncoderSpec(id="unet"),
        task=Component(target="Segmentation"), phases=(PhaseSpec(name="all", train="all", lr=1e-3, epochs=1),),
    )  # fmt: skip


def test_bundles_whose_images_are_not_made_for_masks_are_refused() -> None:
    flat, deep = ImagesSpec(), ImagesSpec(dims=3, preset="mri")
    require_fitting(Segmentation(["a"], flips=[2]), bundle(deep))

    with pytest.raises(ConfigError, match=r"task\.flips(?s:.)*0, 1"):
        require_fitting(Segmentation(["a"], flips=[0, 2]), bundle(flat))
    with pytest.raises(ConfigError, match=r"data\.slices"):
        require_fitting(Segmentation(["a"]), bundle(flat, DataSpec(source="x", slices=SliceSpec())))
    from medxfer.tasks.classification import Classification

    with pytest.raises(ConfigError, match=r"images\.patches"):
        require_fitting(Classification(["a", "b"]), bundle(dataclasses.replace(flat, patches=PatchSpec())))


@given(array=arrays_of.arrays(np.uint8, (3, 4, 5)), order=st.sampled_from("CF"), stack=st.booleans())
def test_a_packed_mask_comes_back(array: np.ndarray, order: str, stack: bool) -> None:
    mask = np.array(array > 100 if stack else array, order=order)  # type: ignore[call-overload]

    back = Packed.of(mask).unpacked()

    assert back.dtype == mask.dtype
    np.testing.assert_array_equal(back, mask)


def kept_of(
    folder: Path, task: Segmentation, mask: np.ndarray, true: np.ndarray | None = None
) -> Predictions:
    """What a task keeps of an image whose network answers exactly `mask`; the truth is `mask` too, or `true`."""
    affine = np.eye(4)
    affine[:3, :3] = rotation() @ np.diag([0.8, 0.6, 2.5])
    for name in ("i", "m"):
        nibabel.save(nibabel.Nifti1Image(hand(), affine), folder / f"{name}.nii.gz")
    case = Case(id="sub/i.nii.gz", images=(folder / "i.nii.gz",), patient="p", label=folder / "m.nii.gz")
    planes = (
        [mask == 0, mask == 1, mask == 2, mask == 3]
        if task.answer().threshold is None
        else [mask > 0, mask == 2]
    )
    logits = torch.from_numpy(np.stack(planes)[None].astype(np.float32)) * 20 - 10
    origin = Origin(case=case, affine=affine, policy=STRICT)
    kept = task.keep(logits, torch.from_numpy(mask if true is None else true)[None], [origin])
    return Predictions(
        ids=(case.id,), files=("i.nii.gz",), patients=("p",), labels=None, outputs=joined([kept])
    )


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_what_is_kept_of_a_case_is_scored_and_written_on_the_files_own_grid(
    tmp_path: Path, regions: Any
) -> None:
    task = Segmentation(THREE, regions=regions)
    task.prepare([hand()])

    found = task.finish(kept_of(tmp_path, task, hand()), {})
    scores = task.score({"test": found, "val": found}, {}, seed=0)
    (row,) = task.rows(found, {})
    (path,) = task.write(found, 0, tmp_path / "out")

    assert scores["test"]["dice"]["value"] == 1.0
    assert set(scores["by_class"]["test"]) == set(regions or THREE)
    assert scores["baseline"]["test"]["dice"]["value"] > 0.5
    assert row["dice"] == 1.0
    name = "thumb"
    assert row[f"volume_ml_{name}"] == row[f"true_volume_ml_{name}"]
    assert row[f"volume_ml_{name}"] == pytest.approx(np.count_nonzero(hand() == 2) * 1.2 / 1000, abs=1e-4)
    assert path == tmp_path / "out" / "sub__i.nii.gz"
    written = nibabel.load(path)
    source = nibabel.load(tmp_path / "i.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)
    voxels = np.asarray(written.dataobj)
    expected = hand() if regions is None else np.stack([hand() > 0, hand() == 2], -1)
    np.testing.assert_array_equal(voxels, expected)
    assert task.answer() == MaskAnswer(
        classes=tuple(regions or THREE), threshold=0.5 if regions else None, overlap=0.25
    )


def test_ignored_voxels_count_on_neither_side_of_the_scores(tmp_path: Path) -> None:
    task = Segmentation(["palm", "thumb"], ignore=3)
    task.prepare([np.where(hand() == 3, IGNORED, hand())])
    called = np.where(hand() == 3, 1, hand()).astype(np.uint8)  # finger tips called palm: must not matter

    predictions = kept_of(tmp_path, Segmentation(THREE), called)  # only its files are used
    case = dataclasses.replace(predictions.outputs[0].origin)
    logits = torch.from_numpy(np.stack([called == 0, called == 1, called == 2])[None].astype(np.float32)) * 20
    target = torch.from_numpy(np.where(hand() == 3, IGNORED, hand()))[None]
    (kept,) = task.keep(logits, target, [case])

    assert kept.measures is not None
    assert {name: one.dice for name, one in kept.measures.items()} == {"palm": 1.0, "thumb": 1.0}
    assert task.masks == MaskRule(classes=2, ignore=3)


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_a_network_that_calls_nothing_or_everything_is_scored_too(tmp_path: Path, regions: Any) -> None:
    task = Segmentation(THREE, regions=regions, keep_largest=True, fill_holes=True)
    task.prepare([hand()])

    nothing = kept_of(tmp_path, task, np.zeros_like(hand()), hand())
    all_of_it = kept_of(tmp_path, task, np.full_like(hand(), 2), hand())

    scores = task.score({"test": nothing, "val": all_of_it}, {}, seed=0)
    assert scores["test"]["dice"]["value"] == 0.0
    assert not nothing.outputs[0].mask.unpacked().any()
    assert 0 < scores["val"]["dice"]["value"] < 0.6
    mask = all_of_it.outputs[0].mask.unpacked()
    assert mask.all()
    assert mask.shape[-3:] == hand().shape


def test_sizes_are_told_without_a_truth(tmp_path: Path) -> None:
    task = Segmentation(THREE)
    origin = kept_of(tmp_path, task, hand()).outputs[0].origin
    logits = torch.from_numpy(np.stack([hand() == n for n in range(4)])[None].astype(np.float32))

    kept = task.keep(logits, None, [origin])
    predictions = Predictions(ids=("a",), files=("a",), patients=("a",), labels=None, outputs=joined([kept]))
    (row,) = task.rows(predictions, {})

    assert kept[0].measures is None
    assert set(row) == {"case", "file", "ml_palm", "ml_thumb", "ml_tips"}


def test_a_network_asked_by_windows_sees_its_own_size_only() -> None:
    encoder = UNetEncoder(spatial_dims=2, in_channels=1, widths=(8, 16, 16))
    task = Segmentation(["a"], decoder={"width": 8})
    network = Network(encoder, task.head(encoder), window=(16, 16), flips=task.flips).eval()

    with torch.no_grad():
        assert task.predict(network, torch.rand(1, 1, 21, 40)).shape == (1, 2, 21, 40)
        assert torch.equal(task.predict(network, x := torch.rand(2, 1, 16, 16)), network(x))
