"""Bad input of a segmentation: its exit code, four lines, no traceback, nothing half-written; and `predict -o`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from medxfer.bundle.schema import ImagesSpec, PatchSpec
from medxfer.cli import main
from medxfer.data.advice import advice_on_grids
from medxfer.data.cache import Arrays
from medxfer.data.ragged import rows_of
from tests.data.phantom import hand

BUNDLE = """\
name: hands
data: {source: nowhere, split: {test: 0.25, val: 0.25}}
images: {preset: mri, dims: 3, size: 16, patches: {count: 1}}
encoder: {id: unet, weights: none, in_channels: 1, options: {width: 8, stages: 3}}
task: {_target_: Segmentation, classes: [palm, thumb, tips], decoder: {width: 8}}
phases:
  - {name: all, train: all, lr: 1.0e-3, epochs: 1}
training: {batch: 4, precision: fp32, memory_format: contiguous}
"""
AFFINE = np.diag([0.8, 0.6, 1.5, 1.0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "hands"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "train.yaml").write_text(BUNDLE, encoding="utf-8")
    return folder


def write_hands(root: Path, count: int = 8) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        image = (60 * hand() + 40 * random.random(hand().shape)).astype(np.float32)
        save(root / f"images/h{number}.nii.gz", image)
        save(root / f"masks/h{number}.nii.gz", hand())
    return root


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture
def hands(tmp_path: Path) -> Path:
    return write_hands(tmp_path / "data")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    said = capsys.readouterr()
    return int(left.value.code or 0), said.err, said.out


def elsewhere() -> np.ndarray:
    moved = AFFINE.copy()
    moved[0, 3] = 4.0
    return moved


def _shape(root: Path) -> None:
    save(root / "masks/h3.nii.gz", hand((14, 11, 8)))


def _place(root: Path) -> None:
    save(root / "masks/h3.nii.gz", hand(), elsewhere())


def _value(root: Path) -> None:
    save(root / "masks/h3.nii.gz", np.where(hand() == 2, 4, hand()).astype(np.uint8))


def _soft(root: Path) -> None:
    soft = hand().astype(np.float32)
    soft[5, 4, 4] = 0.9999
    save(root / "masks/h3.nii.gz", soft)


def _empty(root: Path) -> None:
    for path in (root / "masks").iterdir():
        save(path, np.zeros_like(hand()))


def _absent_class(root: Path) -> None:
    for path in (root / "masks").iterdir():
        save(path, np.where(hand() == 2, 1, hand()).astype(np.uint8))


def _four_axes(root: Path) -> None:
    save(root / "masks/h3.nii.gz", np.stack([hand(), hand()], -1))


def _gone(root: Path) -> None:
    (root / "masks/h3.nii.gz").unlink()


def _cut(root: Path) -> None:
    path = root / "masks/h3.nii.gz"
    path.write_bytes(path.read_bytes()[:100])


def _picture(root: Path) -> None:
    (root / "masks/h3.nii.gz").unlink()
    Pillow.fromarray(hand()[:, :, 3]).save(root / "masks/h3.png")


def _image_itself(root: Path) -> None:
    (root / "masks/h3.nii.gz").write_bytes((root / "images/h3.nii.gz").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _shape,
            ["h3", "14 x 11 x 8 voxels with the affine [", "14 x 11 x 9 voxels with the affine [", "nearest"],
        ),
        (_place, ["h3", "[0.8 0 0 4; 0 0.6 0 0", "[0.8 0 0 0; 0 0.6 0 0"]),
        (_value, ["h3", "unknown label value 4", "0, 1, 2, 3", "task.values"]),
        (_soft, ["h3", "0.9999", "nearest neighbour"]),
        (_empty, ["training masks", "only background", "task.values"]),
        (_absent_class, ["training masks", "no voxel of thumb"]),
        (_four_axes, ["h3", "2 volumes"]),
        (_gone, ["without a mask", "h3"]),
        (_cut, ["h3", "truncated"]),
        (_picture, ["h3", "14 x 11 pixels", "14 x 11 x 9 voxels"]),
        (_image_itself, ["h3", "the image itself"]),
    ],
)
def test_bad_masks_are_refused_before_training(
    capsys: pytest.CaptureFixture[str], bundle: Path, hands: Path, tmp_path: Path, home: Path,
    spoil: Callable[[Path], None], words: list[str],
) -> None:  # fmt: skip
    spoil(hands)

    code, text, _ = run(
        capsys, "run", str(bundle), "--data", str(hands), "--out", str(tmp_path / "run"), "--quiet"
    )

    assert code == 3, text
    assert all(word in text for word in words), text
    assert [part.split(":")[0].strip() for part in text.strip().splitlines()[-3:]] == [
        "seen",
        "accepted",
        "do",
    ]
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()
    assert not [path for path in home.rglob("*") if ".tmp-" in path.name]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["images.size=[16, 16, 1]", "task.flips=[2]"], 2, ["task.flips", "axis 2", "0, 1"]),
        (
            ["images={size: 64}", "data.slices={plane: coronal}"],
            2,
            ["data.slices", "images.size=[64, 1, 64]", "coronal"],
        ),
        (
            ["images.size=[16, 16, 1]", "encoder={id: resnet10, weights: medicalnet}"],
            3,
            ["resnet10.medicalnet", "asked for in 2D", "no side of images.size to 1"],
        ),
    ],
)
def test_planes_that_cannot_be_are_refused(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    hands: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    words: list[str],
) -> None:
    given = [part for one in options for part in ("--set", one)]

    found, text, _ = run(
        capsys, "run", str(bundle), "--data", str(hands), "--out", str(tmp_path / "run"), *given
    )

    assert found == code, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("task.flips=[3]", ["task.flips"]),
        ("task.loss=dice", ["dice_ce"]),
        ("task.classes=palm", ["classes", "a list"]),
        ("task.classes=[palm, palm]", ["task.classes"]),
        ("task.regions={all: [foot]}", ["foot", "palm"]),
        ("task.overlap=1", ["0.95"]),
        ("task.decoder.widht=4", ["widht", "width"]),
        ("task.decoder.width=0", ["width"]),
        ("task.tolerance=[2]", ["tolerance"]),
        ("images.patches.count=0", ["count", "from 1"]),
        ("images.patches.foreground=1.5", ["foreground", "from 0 to 1"]),
        ("images.size=[16, 16]", ["images.dims is 3"]),
        ("images.size=[16, 1, 1]", ["2 of 3 sides are 1", "[160, 160, 1]"]),
        ("images.size=1", ["3 of 3 sides are 1", "[160, 160, 1]"]),
        ("images={dims: 3, preset: mri, size: [16, 16, 1]}", ["images.patches beside a side of 1"]),
        ("images={size: [16, 1]}", ["1 of 2 sides are 1", "such as [160, 160]"]),
        ("data.slices={plane: axial}", ["slices"]),
        ("task={_target_: Classification, classes: [a, b]}", ["images.patches"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    hands: Path,
    tmp_path: Path,
    option: str,
    words: list[str],
) -> None:
    code, text, _ = run(
        capsys, "run", str(bundle), "--data", str(hands), "--out", str(tmp_path / "run"), "--set", option
    )

    assert code == 2, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


def test_bad_masks_are_left_out_when_asked(
    capsys: pytest.CaptureFixture[str], bundle: Path, hands: Path, tmp_path: Path
) -> None:
    _shape(hands)
    _empty_one = hands / "masks/h5.nii.gz"
    save(_empty_one, np.zeros_like(hand()))  # an empty mask is an answer, not a fault

    code, text, _ = run(
        capsys, "run", str(bundle), "--data", str(hands), "--out", str(tmp_path / "run"), "--quiet",
        "--set", "data.on_bad_image=skip",
    )  # fmt: skip

    assert code == 0, text
    assert "left out: images/h3.nii.gz: a mask of 14 x 11 x 8" in text
    with (tmp_path / "run" / "split.csv").open(encoding="utf-8") as file:
        assert sorted(row["case"] for row in csv.DictReader(file)) == [
            f"images/h{number}.nii.gz" for number in (0, 1, 2, 4, 5, 6, 7)
        ]


@pytest.fixture(scope="module")
def finished(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    write_hands(root / "data")
    with pytest.raises(SystemExit) as left:
        main(["run", str(bundle), "--data", str(root / "data"), "--out", str(root / "run"), "--quiet"])
    assert not left.value.code
    return root


def test_predict_into_a_folder_writes_masks_and_the_table(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    images, out = finished / "data" / "images", tmp_path / "out"

    code, text, said = run(capsys, "predict", str(finished / "run"), str(images), "-o", str(out), "--quiet")

    assert (code, said) == (0, ""), text
    assert {path.name for path in out.iterdir()} == {"predictions.csv", *(f"h{n}.nii.gz" for n in range(8))}
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "ml_palm", "ml_thumb", "ml_tips", "mask", "status", "reason"]
    for row in rows:
        mask = nibabel.load(out / row["mask"])
        assert mask.shape == hand().shape
        voxels = np.count_nonzero(np.asarray(mask.dataobj) == 1)
        assert float(row["ml_palm"]) == pytest.approx(voxels * 0.72 / 1000, abs=1e-4)


def test_predict_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    images, out = finished / "data" / "images", tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    ask = ("predict", str(finished / "run"), str(images / "h1.nii.gz"), "-o", str(out))

    assert run(capsys, *ask)[0] == 0  # another file in it does not matter
    before = {path: path.read_bytes() for path in out.iterdir()}
    again, text, _ = run(capsys, *ask)
    (out / "predictions.csv").unlink()
    masks, told, _ = run(capsys, *ask)
    beside, said, _ = run(capsys, "predict", str(finished / "run"), str(images), "-o", str(images))
    (out / "h1.nii.gz").unlink()
    (out / "H1.NRRD").write_text("another's mask of the same name")
    other, _, _ = run(capsys, *ask)

    assert (again, masks, beside, other) == (2, 2, 2, 2)
    assert "predictions.csv is there already" in text
    assert "h1.nii.gz" in told
    assert "the folder of the images" in said
    assert "Traceback" not in text + told + said
    assert {path: path.read_bytes() for path in out.iterdir() if path in before} == {
        path: content for path, content in before.items() if path.name == "notes.txt"
    }
    assert sorted(path.name for path in images.iterdir()) == [f"h{number}.nii.gz" for number in range(8)]


def test_a_path_ending_in_csv_gets_the_table_only_and_none_prints_it(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    one = str(finished / "data" / "images" / "h1.nii.gz")
    ask = ("predict", str(finished / "run"), one, "--quiet")

    code, _, said = run(capsys, *ask, "-o", str(tmp_path / "t.csv"))
    _, _, printed = run(capsys, *ask)
    _, _, as_json = run(capsys, *ask, "--json")
    into, _, _ = run(capsys, *ask, "--json", "-o", str(tmp_path / "out"))

    assert (code, into, said) == (0, 0, "")
    assert (tmp_path / "t.csv").read_text() == printed
    assert "mask" not in printed.splitlines()[0]
    assert json.loads(as_json)[0]["ml_palm"] == float(printed.splitlines()[1].split(",")[1])
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())[0]["mask"] == "h1.nii.gz"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.csv"]


def test_a_file_in_place_of_the_folder_is_refused(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").write_text("a file")

    code, text, _ = run(
        capsys,
        "predict",
        str(finished / "run"),
        str(finished / "data" / "images"),
        "-o",
        str(tmp_path / "masks"),
    )

    assert code == 2, text
    assert (tmp_path / "masks").read_text() == "a file"


def test_a_bad_file_is_a_row_and_the_others_get_their_masks(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.nii").write_bytes(b"none")
    Pillow.fromarray(hand()[:, :, 3]).resize((40, 40)).save(tmp_path / "in" / "flat.png")
    save(tmp_path / "in" / "good.nii", hand().astype(np.float32))

    code, text, _ = run(
        capsys, "predict", str(finished / "run"), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quiet"
    )

    assert code == 4, text
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "bad.nii": "refused", "flat.png": "refused", "good.nii": "ok",
    }  # fmt: skip
    assert "volume" in rows["flat.png"]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.nii.gz", "predictions.csv"]


def test_evaluate_names_masks_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], finished: Path, hands: Path
) -> None:
    code, text, said = run(capsys, "evaluate", str(finished / "run"), "--data", str(hands), "--quiet")
    assert code == 0, text
    assert json.loads(said)["all"]["dice"]["n"] == 8

    _place(hands)
    code, text, _ = run(capsys, "evaluate", str(finished / "run"), "--data", str(hands), "--quiet")
    assert code == 3
    assert "voxels with the affine [" in text
    assert "Traceback" not in text


def arrays_of(affine: np.ndarray, *shapes: tuple[int, int, int], maps: bool = True) -> Arrays:
    total = sum(int(np.prod(shape)) for shape in shapes)
    return Arrays(
        images=rows_of(np.zeros(total, np.uint8), [(1, *shape) for shape in shapes]),
        maps=rows_of(np.zeros(total, np.uint8), shapes) if maps else None,
        cases=(), sha256=(), affines=np.stack([affine] * len(shapes)),
    )  # fmt: skip


def test_voxels_much_longer_than_wide_bring_advice() -> None:
    images, even = ImagesSpec(dims=3), np.diag([0.7, 0.7, 2.0, 1.0])
    long = np.array([[0, 0, -5.0, 0], [0.7, 0.1, 0, 0], [-0.1, 0.7, 0, 0], [0, 0, 0, 1]])

    (advice,) = advice_on_grids(arrays_of(long, (9, 9, 9)), images, has_dicom=False)

    assert "7.1 times as long as wide (0.707 x 0.707 x 5 mm, median)" in advice
    assert "set images.spacing" in advice
    assert "[1.67, 1.67, 5]" in advice
    assert not advice_on_grids(arrays_of(even, (9, 9, 9)), images, has_dicom=False)
    assert not advice_on_grids(arrays_of(long, (9, 9, 9), maps=False), images, has_dicom=False)


def test_images_smaller_than_the_patch_are_counted() -> None:
    spec = ImagesSpec(dims=3, size=(16, 20, 16), patches=PatchSpec())

    (advice,) = advice_on_grids(
        arrays_of(np.eye(4), (16, 20, 16), (30, 19, 40), (40, 40, 12)), spec, has_dicom=False
    )

    assert "2 of 3 images are smaller than the patch of 16 x 20 x 16 (smallest sides 16 x 19 x 12)" in advice
