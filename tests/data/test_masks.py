"""Masks on the grid that the network sees, and on the file's own: every voxel where it lies, or a refusal."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image as Pillow
from scipy import ndimage

from medxfer.data.case import Case
from medxfer.data.formats.dicom_seg import write_seg
from medxfer.data.formats.grids import SourceGrid, source_grid
from medxfer.data.mask_values import stored_values
from medxfer.data.masks import IGNORED, MaskRule, Origin, map_on_grid, truth_on_file
from medxfer.data.placed import Placed, placed
from medxfer.data.policy import STRICT, ReadPolicy
from medxfer.data.readers import read_image
from medxfer.data.regrid import onto_grid
from medxfer.data.steps.spatial import FitTo, Resample
from medxfer.data.writers import write_nifti
from medxfer.errors import DataError

from .faults import saved_series, series
from .phantom import hand, rotation

THREE = MaskRule(classes=3)
SPACING = np.diag([0.8, 0.6, 2.5])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = rotation() @ SPACING, (-31.0, 12.5, 7.25)
STRAIGHT = np.diag([0.8, 0.6, 2.5, 1.0])
LPS = np.diag([-0.8, -0.6, 2.5, 1.0])
TURNED = np.array(
    [[0, 0, 2.5, 4], [-0.8, 0, 0, 9], [0, 0.6, 0, -2], [0, 0, 0, 1.0]]
)  # axes of X, Y, Z: A-, S, R


def nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def case_of(image: Path, mask: Path | None) -> Case:
    return Case(id="hand", images=(image,), patient="p", label=mask)


def pair(
    folder: Path,
    affine: np.ndarray = STRAIGHT,
    mask: np.ndarray | None = None,
    of_mask: np.ndarray | None = None,
) -> Case:
    """An image whose values are the hand's, and its mask, which may lie elsewhere."""
    image = nifti(folder / "image.nii.gz", hand().astype(np.int16), affine)
    labels = hand() if mask is None else mask
    return case_of(image, nifti(folder / "mask.nii.gz", labels, affine if of_mask is None else of_mask))


def whole_of(case: Case, policy: ReadPolicy = STRICT) -> Placed:
    return placed(read_image(case.images[0], policy=policy))


def on_own_grid(case: Case, rule: MaskRule = THREE, policy: ReadPolicy = STRICT) -> np.ndarray:
    whole = whole_of(case, policy)
    return map_on_grid(case, whole, whole.shape, whole.affine, rule, policy)


def values_of(case: Case) -> np.ndarray:
    """The image itself, which holds the hand's numbers."""
    found: np.ndarray = whole_of(case).values[0].numpy().round().astype(np.uint8)
    return found


@pytest.mark.parametrize("affine", [STRAIGHT, LPS, TURNED, OBLIQUE], ids=["ras", "lps", "turned", "oblique"])
def test_a_mask_lies_on_its_image_voxel_for_voxel_on_both_grids(tmp_path: Path, affine: np.ndarray) -> None:
    case = pair(tmp_path, affine)

    np.testing.assert_array_equal(on_own_grid(case), values_of(case))
    truth = truth_on_file(case, source_grid(case.images[0]), THREE, STRICT)
    np.testing.assert_array_equal(truth, hand())


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_e3_a_mask_stored_along_other_axes_is_turned_to_its_image(
    tmp_path: Path, affine: np.ndarray, axes: tuple[int, ...], flipped: tuple[int, ...]
) -> None:
    stored = np.flip(hand(), flipped).transpose(axes)
    back = np.zeros((4, 4))  # indices of the stored mask to those of the image
    back[3, 3] = 1
    for own, axis in enumerate(axes):
        back[axis, own] = -1 if axis in flipped else 1
        back[axis, 3] = hand().shape[axis] - 1 if axis in flipped else 0

    case = pair(tmp_path, affine, stored, affine @ back)

    np.testing.assert_array_equal(on_own_grid(case), values_of(case))
    truth = truth_on_file(case, source_grid(case.images[0]), THREE, STRICT)
    np.testing.assert_array_equal(truth, hand())


@pytest.mark.parametrize("times", [2, 4, 4 / 3])
def test_at_whole_steps_masks_stay_where_their_images_are(tmp_path: Path, times: float) -> None:
    beside, shares = [], []
    for centre in np.random.default_rng(0).uniform(22, 25, (6, 3)):
        places = np.stack(np.meshgrid(*[np.arange(48)] * 3, indexing="ij"), -1)
        ball = (np.linalg.norm(places - centre, axis=-1) < 15).astype(np.uint8)
        image = nifti(tmp_path / "image.nii.gz", ball.astype(np.float32), np.eye(4))
        case = case_of(image, nifti(tmp_path / "mask.nii.gz", ball, np.eye(4)))
        whole = whole_of(case)
        seen = Resample([times] * 3)(whole)

        mask = map_on_grid(case, whole, seen.shape, seen.affine, MaskRule(classes=1), STRICT)

        middles = [ndimage.center_of_mass(one) for one in (mask, seen.values[0].numpy())]
        beside.append(np.subtract(*middles) * times)
        shares.append(float(mask.sum()) * times**3 / float(ball.sum()))

    assert np.abs(np.mean(beside, axis=0)).max() < 0.12, (
        "voxels of the file; half a one, where ties go one way"
    )
    assert np.mean(shares) == pytest.approx(1, abs=0.02)


def test_of_equally_near_voxels_most_decide() -> None:
    labels = np.array(
        [[1, 1, 2, 2, 7, 2], [0, 1, 2, 5, 7, 0], [3, 0, 4, 4, 6, 6], [3, 0, 6, 6, 4, 4]], np.uint8
    )
    half = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])

    found = onto_grid(labels, np.eye(3), SourceGrid(path=Path(), kind="PNG", shape=(2, 3), affine=half))

    assert found[0].tolist() == [1, 2, 7]
    assert found[1, 0] in (0, 3)
    assert {found[1, 1], found[1, 2]} <= {4, 6}


def test_a_grid_half_a_voxel_beside_doubles_and_drops_none() -> None:
    labels = np.arange(1, 9, dtype=np.uint8)[:, None] * np.ones((8, 8), np.uint8)
    shifted = np.array([[1.0, 0, -0.5], [0, 1, 0], [0, 0, 1]])
    grid = SourceGrid(path=Path(), kind="PNG", shape=(9, 8), affine=shifted)

    found = onto_grid(labels, np.eye(3), grid)[:, 0]

    assert found.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0]


@pytest.mark.parametrize("affine", [TURNED, OBLIQUE], ids=["turned", "oblique"])
def test_on_the_networks_grid_each_voxel_is_the_nearest_of_the_mask(
    tmp_path: Path, affine: np.ndarray
) -> None:
    case = pair(tmp_path, affine)
    whole = whole_of(case)
    seen = FitTo([60, 40, 60])(Resample([0.7, 0.5, 0.6])(whole))

    found = map_on_grid(case, whole, seen.shape, seen.affine, THREE, STRICT)

    back = np.linalg.inv(whole.affine) @ seen.affine
    places = (
        np.stack(np.meshgrid(*map(np.arange, seen.shape), indexing="ij"), -1) @ back[:3, :3].T + back[:3, 3]
    )
    index = np.floor(places + 0.5 + 1e-6).astype(int)
    inside = ((index >= 0) & (index < np.array(whole.shape))).all(-1)
    index = np.where(inside[..., None], index, 0)
    expected = np.where(inside, values_of(case)[tuple(index.transpose(3, 0, 1, 2))], 0)
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(found)) == {0, 1, 2, 3}


@given(shift=st.tuples(*[st.floats(-0.099, 0.099)] * 3))
def test_e2_rounding_below_a_tenth_of_a_voxel_is_accepted_and_said(
    shift: tuple[float, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    of_mask = OBLIQUE.copy()
    of_mask[:3, 3] += np.array(shift) * 0.6  # mm of the smallest side
    case = pair(tmp_path_factory.mktemp("e2"), OBLIQUE, None, of_mask)
    whole, remarks = whole_of(case), list[str]()

    found = map_on_grid(case, whole, whole.shape, whole.affine, THREE, STRICT, remarks=remarks)

    np.testing.assert_array_equal(found, values_of(case))
    truth = truth_on_file(case, source_grid(case.images[0]), THREE, STRICT)
    np.testing.assert_array_equal(truth, hand())
    assert bool(remarks) == (max(map(abs, shift)) > 0.001 * (1 + 1e-3)) or max(map(abs, shift)) < 0.0011


@pytest.mark.parametrize("kind", ["moved", "spacing", "turned", "mirrored"])
def test_e2_a_mask_that_lies_elsewhere_is_refused_with_both_geometries(tmp_path: Path, kind: str) -> None:
    of_mask = OBLIQUE.copy()
    if kind == "moved":
        of_mask[0, 3] += 0.11 * 0.6
    elif kind == "spacing":
        of_mask[:3, 2] *= 1.02  # 0.16 voxels at the last slice
    elif kind == "turned":
        of_mask[:3, :3] = rotation() @ rotation() @ SPACING
    else:  # the same numbers stored from the other side, which the affine does not say
        of_mask = OBLIQUE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    case = pair(tmp_path, OBLIQUE, None, of_mask)

    with pytest.raises(DataError) as refused:
        on_own_grid(case)

    text = str(refused.value)
    assert "mask.nii.gz" in text
    assert text.count("14 x 11 x 9 voxels with the affine [") == 2
    assert f"{of_mask[0, 3] if kind != 'mirrored' else 0:.4g}"[:3] in text
    assert "nearest neighbour" in text


def test_e1_a_mask_of_another_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    case = pair(tmp_path, STRAIGHT, hand((14, 11, 8)))

    with pytest.raises(DataError, match=r"14 x 11 x 8 voxels(?s:.)*14 x 11 x 9 voxels"):
        on_own_grid(case)


def test_e4_unknown_and_interpolated_values_are_refused(tmp_path: Path) -> None:
    odd = hand().copy()
    odd[0, 0, :2], odd[0, 1, 0] = 7, 9
    case = pair(tmp_path, STRAIGHT, odd)
    with pytest.raises(DataError, match=r"unknown label value 7, 9 in 3 voxels(?s:.)*0, 1, 2, 3"):
        on_own_grid(case)

    soft = hand().astype(np.float32)
    soft[4, 3, 3] = 0.9999
    case = pair(tmp_path, STRAIGHT, soft)
    with pytest.raises(DataError, match=r"the value 0\.9999\d* in a mask(?s:.)*nearest neighbour"):
        on_own_grid(case)

    case = pair(tmp_path, STRAIGHT, hand().astype(np.int16) - 1)
    with pytest.raises(DataError, match="unknown label value -1"):
        on_own_grid(case)


def test_e4_another_image_in_place_of_the_mask_is_refused_without_a_table_of_its_values(
    tmp_path: Path,
) -> None:
    case = pair(tmp_path, STRAIGHT, (hand() * 1e9).astype(np.float32))

    with pytest.raises(DataError, match=r"values from 0 to 3e\+09(?s:.)*another image"):
        on_own_grid(case)


def test_a_scaled_header_still_means_whole_numbers(tmp_path: Path) -> None:
    case = pair(tmp_path)
    assert isinstance(case.label, Path)
    scaled = nibabel.Nifti1Image(hand().astype(np.int16) * 1000, STRAIGHT)
    scaled.header.set_slope_inter(0.001, 0)
    nibabel.save(scaled, case.label)

    np.testing.assert_array_equal(on_own_grid(case), values_of(case))


def rules() -> list[tuple[MaskRule, dict[int, int]]]:
    """A rule, and what it makes of the values 0 to 3."""
    return [
        (MaskRule(classes=3), {0: 0, 1: 1, 2: 2, 3: 3}),
        (MaskRule(classes=1, nonzero=True), {0: 0, 1: 1, 2: 1, 3: 1}),
        (MaskRule(classes=2, ignore=3), {0: 0, 1: 1, 2: 2, 3: IGNORED}),
        (MaskRule(classes=1, nonzero=True, ignore=2), {0: 0, 1: 1, 2: IGNORED, 3: 1}),
        (MaskRule(classes=2, values={3: 1, 1: 2, 2: 2}), {0: 0, 1: 2, 2: 2, 3: 1}),
    ]


@pytest.mark.parametrize(("rule", "table"), rules(), ids=["number", "nonzero", "ignore", "both", "values"])
def test_values_become_class_numbers_by_the_rule(
    tmp_path: Path, rule: MaskRule, table: dict[int, int]
) -> None:
    case = pair(tmp_path, TURNED)

    expected = np.vectorize(table.get)(hand()).astype(np.uint8)
    np.testing.assert_array_equal(truth_on_file(case, source_grid(case.images[0]), rule, STRICT), expected)
    np.testing.assert_array_equal(on_own_grid(case, rule), np.vectorize(table.get)(values_of(case)))


@given(
    labels=arrays_of.arrays(
        np.float32,
        arrays_of.array_shapes(min_dims=2, max_dims=3, max_side=9),
        elements=st.sampled_from([0, 2, 5, 255]),
    ),
    order=st.sampled_from("CF"),
)
def test_numbers_are_looked_up_voxel_by_voxel_in_any_order_of_memory(labels: np.ndarray, order: str) -> None:
    rule = MaskRule(classes=2, values={2: 2, 5: 1}, ignore=255)

    found = rule.numbers(np.array(labels, order=order), "m")  # type: ignore[call-overload]

    table = {0: 0, 2: 2, 5: 1, 255: IGNORED}
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.vectorize(table.get)(labels))


def test_no_mask_two_volumes_and_colours_are_refused(tmp_path: Path) -> None:
    image = nifti(tmp_path / "image.nii", hand().astype(np.int16), STRAIGHT)
    with pytest.raises(DataError, match="no mask"):
        on_own_grid(case_of(image, None))

    stack = nifti(tmp_path / "stack.nii", np.stack([hand() == 1, hand() == 2], -1).astype(np.uint8), STRAIGHT)
    with pytest.raises(DataError, match=r"2 volumes"):
        on_own_grid(case_of(image, stack))
    with pytest.raises(DataError, match=r"4D mask \(2 volumes\)(?s:.)*regions"):
        on_own_grid(case_of(image, stack), policy=ReadPolicy(volume="channels"))

    with pytest.raises(DataError, match="absent"):
        on_own_grid(case_of(image, tmp_path / "absent.nii"))


def hand_series(**tags: object) -> list[object]:
    """14 slices of 11 x 9 pixels whose stored values are the hand's."""
    turn = rotation()
    oblique = tuple(float(value) for value in np.concatenate([turn[:, 0], turn[:, 1]]).round(9))
    return series(hand().astype(np.uint16), orientation=oblique, **{"RescaleIntercept": 0, **tags})  # type: ignore[arg-type,return-value]


def test_a_series_with_a_nifti_mask_and_with_a_seg_gives_the_same_maps(tmp_path: Path) -> None:
    folder = saved_series(hand_series(StudyInstanceUID="1.2.826.0.1.6")[::-1], tmp_path / "series")  # type: ignore[arg-type]
    grid = source_grid(folder)
    own = hand().transpose(2, 1, 0)  # columns, rows, slices
    cases = [
        case_of(folder, write_nifti(own, grid, tmp_path / "m.nii.gz")),
        case_of(folder, write_seg(own, grid, tmp_path / "m.dcm", classes=["palm", "thumb", "tips"])),
    ]

    for case in cases:
        np.testing.assert_array_equal(on_own_grid(case), values_of(case))
        np.testing.assert_array_equal(truth_on_file(case, grid, THREE, STRICT), own)
        whole = whole_of(case)
        seen = Resample([0.7, 0.5, 1.25])(whole)
        found = map_on_grid(case, whole, seen.shape, seen.affine, THREE, STRICT)
        expected = onto_grid(values_of(case), whole.affine, _grid_of(seen))
        np.testing.assert_array_equal(found, expected)


def _grid_of(seen: Placed) -> object:
    from medxfer.data.formats.grids import SourceGrid

    return SourceGrid(path=Path(), kind="NIfTI", shape=seen.shape, affine=seen.affine)


def test_a_seg_of_uneven_slices_lies_where_its_slices_do(tmp_path: Path) -> None:
    """The reader puts the slices on even steps; the mask of each goes with it."""
    images = [
        one
        for number, one in enumerate(hand_series(StudyInstanceUID="1.2.826.0.1.6"))
        if number not in (6, 7)
    ]
    folder, policy = saved_series(images, tmp_path / "series"), ReadPolicy(on_geometry="resample")  # type: ignore[arg-type]
    grid = source_grid(folder, policy=policy)
    own = np.delete(hand(), (6, 7), axis=0).transpose(2, 1, 0)
    case = case_of(folder, write_seg(own, grid, tmp_path / "m.dcm", classes=["palm", "thumb", "tips"]))

    found = on_own_grid(case, policy=policy)

    whole = whole_of(case, policy)
    assert found.shape == whole.shape != grid.shape
    np.testing.assert_array_equal(onto_grid(found, whole.affine, grid), own)
    np.testing.assert_array_equal(truth_on_file(case, grid, THREE, policy), own)


def test_a_seg_beside_a_picture_or_with_overlaps_is_refused(tmp_path: Path) -> None:
    folder = saved_series(hand_series(StudyInstanceUID="1.2.826.0.1.6"), tmp_path / "series")  # type: ignore[arg-type]
    grid = source_grid(folder)
    own = hand().transpose(2, 1, 0)
    seg = write_seg(np.stack([own > 0, own == 2]), grid, tmp_path / "m.dcm", classes=["hand", "thumb"])
    with pytest.raises(DataError, match="overlap"):
        on_own_grid(case_of(folder, seg))

    image = nifti(tmp_path / "image.nii", hand().astype(np.int16), STRAIGHT)
    with pytest.raises(DataError, match="not DICOM"):
        on_own_grid(case_of(image, seg))


def picture_case(folder: Path, mask: Pillow.Image) -> Case:
    Pillow.fromarray((hand()[:, :, 3] * 50).astype(np.uint8)).save(folder / "image.png")
    mask.save(folder / "mask.png")
    return case_of(folder / "image.png", folder / "mask.png")


def test_masks_of_pictures_of_every_kind_hold_the_same_numbers(tmp_path: Path) -> None:
    plane = hand()[:, :, 3]
    paletted = Pillow.fromarray(plane).convert("L")
    paletted.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    assert paletted.mode == "P"
    kinds = {
        "grey": Pillow.fromarray(plane),
        "rgb": Pillow.fromarray(np.dstack([plane] * 3)),
        "palette": paletted,
    }

    for name, mask in kinds.items():
        case = picture_case(tmp_path, mask)
        np.testing.assert_array_equal(on_own_grid(case), plane, err_msg=name)
        truth = truth_on_file(case, source_grid(case.images[0]), THREE, STRICT)
        np.testing.assert_array_equal(truth, plane, err_msg=name)
        whole = whole_of(case)
        seen = whole.scaled(torch.zeros(1, 28, 22))
        found = map_on_grid(case, whole, seen.shape, seen.affine, THREE, STRICT)
        np.testing.assert_array_equal(found, plane.repeat(2, 0).repeat(2, 1), err_msg=name)


def test_masks_of_pictures_in_colours_or_of_other_sizes_are_refused(tmp_path: Path) -> None:
    plane = hand()[:, :, 3]
    case = picture_case(tmp_path, Pillow.fromarray(np.dstack([plane * 60, plane, plane])))
    with pytest.raises(DataError, match=r"colour \(3 channels\)"):
        on_own_grid(case)

    case = picture_case(tmp_path, Pillow.fromarray(plane.T.copy()))
    with pytest.raises(DataError, match=r"11 x 14 pixels(?s:.)*14 x 11 pixels"):
        on_own_grid(case)


def test_a_one_bit_mask_has_the_values_0_and_255(tmp_path: Path) -> None:
    plane = hand()[:, :, 3] > 0
    case = picture_case(tmp_path, Pillow.fromarray(plane))

    np.testing.assert_array_equal(on_own_grid(case, MaskRule(classes=1, values={255: 1})), plane)
    with pytest.raises(DataError, match="unknown label value 255"):
        on_own_grid(case, MaskRule(classes=1))


def test_an_origin_leads_back_to_the_file(tmp_path: Path) -> None:
    case = pair(tmp_path, OBLIQUE)

    grid = Origin(case=case, affine=whole_of(case).affine, policy=STRICT).grid()

    assert grid.shape == hand().shape
    np.testing.assert_allclose(grid.affine, OBLIQUE, atol=1e-5)


def test_a_palette_of_greys_keeps_its_levels_for_init_too(tmp_path: Path) -> None:
    plane = (hand()[:, :, 3] > 0).astype(np.uint8)
    colours, greys = Pillow.fromarray(plane), Pillow.fromarray(plane)
    colours.putpalette([0, 0, 0, 200, 30, 0])
    greys.putpalette([0, 0, 0, 255, 255, 255])

    for picture, value in ((colours, 1), (greys, 255)):
        case = picture_case(tmp_path, picture)
        assert isinstance(case.label, Path)
        np.testing.assert_array_equal(on_own_grid(case, MaskRule(classes=1, values={value: 1})), plane)
        assert set(np.unique(stored_values(case.label, case.images[0]))) == {0, value}
