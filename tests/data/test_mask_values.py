"""`init` on masks: what their values mean, and a bundle that fits."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medxfer.bundle.components import build, check_components
from medxfer.bundle.create import write_bundle
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Bundle, DataFacts
from medxfer.cli import main
from medxfer.data.cases import find_cases
from medxfer.data.inspect import facts_of
from medxfer.data.presets import fill_in
from medxfer.errors import DataError

from .faults import chest, class_folders, picture


def pictures(root: Path, values: list[list[int]], side: int = 64) -> Path:
    """A picture for each list; its mask holds stripes of these values on a background of 0."""
    for number, own in enumerate(values):
        picture(root / "images" / f"c{number:02}.png", chest(number, side))
        mask = np.zeros((side, side), np.uint8)
        for place, value in enumerate(own):
            mask[place * side // 64 : (place + 1) * side // 64 or 1, : side // 2] = value
        picture(root / "masks" / f"c{number:02}.png", mask)
    return root


def volumes(
    root: Path, shape: tuple[int, int, int] = (35, 50, 36), millimetres: float = 1.0, **content: object
) -> Path:
    for number in range(4):
        affine = np.diag([millimetres, millimetres, millimetres, 1.0])
        voxels = np.random.default_rng(number).uniform(0, 90, shape).astype(np.float32)
        labels = np.zeros(shape, np.uint8)
        labels[5:9, 5:9, 5:9], labels[9:12, 5:9, 5:9] = 1, 2
        for folder, array in (("imagesTr", voxels), ("labelsTr", labels)):
            name = f"v{number}_0000.nii.gz" if folder == "imagesTr" else f"v{number}.nii.gz"
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / name)  # type: ignore[attr-defined]
    if content:
        (root / "dataset.json").write_text(json.dumps(content))
    return root


def seen(root: Path, modality: str = "xray") -> DataFacts:
    return facts_of(root, "segmentation", modality)


def bundle_of(facts: DataFacts, folder: Path, modality: str = "xray") -> Bundle:
    loaded = load_bundle(write_bundle(facts, folder, task="segmentation", modality=modality))
    check_components(loaded)
    build(loaded.task, kind="task")
    fill_in(loaded)
    assert len(find_cases(loaded.data, Path(loaded.data.source)).cases) == facts.images
    return loaded


@pytest.mark.parametrize(
    ("values", "classes", "meaning"),
    [
        ([[255], [255], [255]], {"structure": 3}, "nonzero"),
        ([[1], [], [1]], {"structure": 2}, "nonzero"),
        ([[1, 2], [1, 2, 3], [2]], {"class_1": 2, "class_2": 3, "class_3": 1}, "number"),
        ([[85, 170], [85]], {"class_1": 2, "class_2": 1}, {"class_1": (85,), "class_2": (170,)}),
        ([list(range(1, 40)), list(range(1, 9))], {"structure": 2}, "nonzero"),
        ([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]], {"structure": 4}, "nonzero"),
        ([[255] * 50 + list(range(10, 24)), [255, 7, 9, 8]], {"structure": 2}, "nonzero"),
    ],
    ids=["0-255", "0-1", "few numbers", "spread", "many objects", "objects from 1", "grey edges"],
)
def test_values_become_classes(
    tmp_path: Path, values: list[list[int]], classes: dict[str, int], meaning: object
) -> None:
    facts = seen(pictures(tmp_path / "data", values))
    loaded = bundle_of(facts, tmp_path / "bundle")

    assert dict(facts.classes) == classes
    assert facts.values == meaning
    assert loaded.task.arguments["classes"] == list(classes)
    assert loaded.data.layout == "mask_folders"


def test_what_was_guessed_is_said(tmp_path: Path) -> None:
    edges = seen(pictures(tmp_path / "a", [[255] * 40 + list(range(5, 25))])).notes
    objects = seen(pictures(tmp_path / "b", [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]])).notes
    numbers = seen(pictures(tmp_path / "c", [[1, 2]])).notes

    assert any("grey edges (33.3% of the foreground" in note for note in edges)
    assert any("each mask counts from 1, up to 1 to 4" in note for note in objects)
    assert any("name the classes" in note for note in numbers)


def test_empty_and_interpolated_masks_are_refused(tmp_path: Path) -> None:
    root = volumes(tmp_path / "b")
    soft = np.full((35, 50, 36), 0.5, np.float32)
    nibabel.save(nibabel.Nifti1Image(soft, np.eye(4)), root / "labelsTr/v0.nii.gz")  # type: ignore[attr-defined]

    with pytest.raises(DataError, match="2 masks looked at, all empty"):
        seen(pictures(tmp_path / "a", [[], []]))
    with pytest.raises(DataError, match=r"the value 0\.5 in a mask"):
        seen(root, "mri")


@pytest.mark.parametrize(
    ("labels", "classes", "values", "ignore"),
    [
        ({"background": 0, "anterior": 1, "posterior": 2}, ["anterior", "posterior"], "number", None),
        ({"0": "background", "1": "anterior", "2": "posterior"}, ["anterior", "posterior"], "number", None),
        ({"background": 0, "anterior": 1, "ignore": 2}, ["anterior"], "number", 2),
        ({"background": 0, "left": 7}, ["class_1", "class_2"], "number", None),
    ],
)
def test_names_come_from_dataset_json(
    tmp_path: Path, labels: dict[str, object], classes: list[str], values: str, ignore: int | None
) -> None:
    root = volumes(tmp_path / "data", labels=labels, channel_names={"0": "MRI"}, file_ending=".nii.gz")

    facts = seen(root, "mri")
    loaded = bundle_of(facts, tmp_path / "bundle", "mri")

    assert (list(facts.classes), facts.values, facts.ignore) == (classes, values, ignore)
    assert loaded.task.arguments.get("ignore") == ignore


def test_pictures_get_a_pretrained_encoder_and_a_warm_up(tmp_path: Path) -> None:
    loaded = bundle_of(seen(pictures(tmp_path / "data", [[255]] * 4, side=300)), tmp_path / "bundle")

    assert (loaded.images.preset, loaded.images.size, loaded.images.patches) == ("xray", 256, None)
    assert (loaded.encoder.id, loaded.encoder.weights) == ("efficientnet_lite0", "imagenet")
    assert [phase.train for phase in loaded.phases] == ["head", "all"]
    metadata = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert (pred["format"], pred["num_channels"]) == ("segmentation", 2)
    assert pred["channel_def"] == {"0": "background", "1": "structure"}


def test_volumes_get_patches_that_hold_the_median_one(tmp_path: Path) -> None:
    loaded = bundle_of(seen(volumes(tmp_path / "data"), "mri"), tmp_path / "bundle", "mri")

    assert (loaded.images.dims, loaded.images.size, loaded.images.spacing) == (3, (40, 56, 40), None)
    assert loaded.images.patches is not None
    assert (loaded.encoder.id, loaded.encoder.weights, loaded.encoder.in_channels) == ("unet", "none", 1)
    assert [phase.train for phase in loaded.phases] == ["all"]


def test_large_volumes_are_brought_to_a_coarser_grid(tmp_path: Path) -> None:
    facts = seen(volumes(tmp_path / "data", shape=(140, 40, 20), millimetres=0.5), "ct")
    loaded = bundle_of(facts, tmp_path / "bundle", "ct")

    assert loaded.images.spacing == (1.5, 1.5, 1.5)
    assert loaded.images.size == (48, 16, 16)


def test_the_task_decides_between_masks_and_a_table_of_classes(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data", [[255]] * 6)
    (tmp_path / "data/list.csv").write_text(
        "image,label\n" + "".join(f"images/c{n:02}.png,{'ab'[n % 2]}\n" for n in range(6))
    )

    masks = facts_of(root, "segmentation", "xray")
    classes = facts_of(root, "classification", "xray")

    assert (masks.layout, dict(masks.classes)) == ("mask_folders", {"structure": 6})
    assert (classes.layout, dict(classes.classes)) == ("csv", {"a": 3, "b": 3})
    bundle_of(masks, tmp_path / "bundle")


def test_classes_are_no_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put the masks into a folder beside the images"):
        facts_of(class_folders(tmp_path), "segmentation", "xray")


def test_the_command_says_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "data", [[1, 2]] * 3)

    with pytest.raises(SystemExit) as left:
        main(["init", str(tmp_path / "mine"), "--data", str(root), "--task", "segmentation"])

    assert left.value.code == 0
    assert "class_1 3, class_2 3 (of 3 masks looked at)" in capsys.readouterr().err
    assert "# Where are class_1, class_2 in one image." in (tmp_path / "mine/configs/train.yaml").read_text()


def test_real_folders(shared: Path) -> None:
    hippocampi = facts_of(shared / "data/hippocampus_mri", "segmentation", "mri")
    nuclei = facts_of(shared / "data/nuclei_seg", "segmentation", "pathology")

    assert list(hippocampi.classes) == ["Anterior", "Posterior"]
    assert (hippocampi.layout, hippocampi.values, hippocampi.masks) == ("decathlon", "number", 20)
    assert (nuclei.channels, dict(nuclei.classes), nuclei.values) == (3, {"structure": 20}, "nonzero")


def test_masks_in_colour_are_refused_as_a_run_would(tmp_path: Path) -> None:
    root = pictures(tmp_path, [[1], [1]])
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[:9, :9, 0] = 255
    picture(root / "masks/c01.png", colour)

    with pytest.raises(
        DataError, match=r"c01\.png\n(?s:.*)a mask in colour \(3 channels\)(?s:.*)one label map"
    ):
        seen(root)


@pytest.mark.parametrize(
    ("values", "classes", "ignore"),
    [
        ([[1, 2, 255], [2, 255]], ["class_1", "class_2"], 255),
        ([[1, 1, 255], [1]], ["structure"], 255),
        ([[1, 255, 255]], ["class_1", "class_2"], None),
        ([[85, 255]], ["class_1", "class_2"], None),
    ],
    ids=["two classes", "one class", "a trace of 1 in a mask of 255", "spread"],
)
def test_255_beside_small_values_counts_on_neither_side(
    tmp_path: Path, values: list[list[int]], classes: list[str], ignore: int | None
) -> None:
    facts = seen(pictures(tmp_path / "data", values))
    loaded = bundle_of(facts, tmp_path / "bundle")

    assert (list(facts.classes), facts.ignore) == (classes, ignore)
    assert loaded.task.arguments.get("ignore") == ignore
    assert any("255 beside small values" in note for note in facts.notes) is (ignore is not None)


def test_an_image_that_cannot_be_read_is_named_and_no_run_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = volumes(tmp_path / "data")
    path = root / "imagesTr/v1_0000.nii.gz"
    voxels = np.asarray(nibabel.load(path).dataobj).copy()  # type: ignore[attr-defined]
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[attr-defined]
    words = ["--data", str(root), "--task", "segmentation", "--modality", "mri"]

    with pytest.raises(SystemExit):
        main(["init", str(tmp_path / "mine"), *words])

    said = capsys.readouterr().err
    assert "v1_0000.nii.gz: 1 value is NaN or infinite" in said
    assert "`medxfer run` stops there" in said
    assert "next: mend what cannot be read" in said


@pytest.mark.parametrize("kind", ["flat", "folder of images", "table without masks"])
def test_without_masks_it_is_said_where_they_are_looked_for(tmp_path: Path, kind: str) -> None:
    folder = tmp_path if kind == "flat" else tmp_path / "images"
    for number in range(3):
        picture(folder / f"c{number}.png", chest(number))
    if kind.startswith("table"):
        (tmp_path / "list.csv").write_text("image,age\nimages/c0.png,3\n")

    with pytest.raises(DataError) as caught:
        seen(tmp_path)

    assert caught.value.seen == "no folder of images beside a folder of masks"
    assert "images/ and masks/" in caught.value.accepted
    assert "columns image and mask" in caught.value.todo
