"""Segmentation by the same function as everything else: two tiny runs, 3D with patches and 2D with whole images.

Each run exports two programs, hence over 5 s.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from medxfer.bundle.parser import load_bundle
from medxfer.data.formats.dicom_seg import read_seg, write_seg
from medxfer.data.formats.grids import source_grid
from medxfer.data.regrid import onto_grid
from medxfer.data.synthetic.ct_series import write_ct_series
from medxfer.data.synthetic.hippocampus_mri import write_hippocampi
from medxfer.data.writers import write_nifti
from medxfer.errors import ConfigError, DataError
from medxfer.pipeline import Request, resume_run, run_bundle
from medxfer.progress import Advance, Progress
from medxfer.run_folder import RunFolder
from medxfer.trained import evaluate_on, open_run

QUIET = Progress(quiet=True)
SIZE = (24, 32, 48)  # the last side is longer than any volume
BUNDLE_3D = """\
name: tiny_seg
seed: 1
data: {source: %s, split: {test: 0.25, val: 0.25}}
images: {preset: mri, dims: 3, size: [24, 32, 48], patches: {count: 2, foreground: 0.5}}
encoder: {id: unet, weights: none, in_channels: 1, options: {width: 8, stages: 3}}
task: {_target_: Segmentation, classes: [anterior, posterior], decoder: {width: 8, deep_supervision: true}}
phases:
  - {name: warm_up, train: head, lr: 1.0e-2, epochs: 1}
  - {name: all, train: all, lr: 1.0e-2, epochs: 2}
training: {batch: 4, precision: fp32, memory_format: contiguous}
"""
BUNDLE_2D = """\
name: tiny_regions
seed: 0
data: {source: %s, split: {test: 0.25, val: 0.25}}
images: {preset: xray, size: 32, augment: []}
encoder: {id: tinyconv, weights: none, in_channels: 1}
task:
  _target_: Segmentation
  classes: [rim, core]
  values: {rim: [100], core: [200]}
  regions: {whole: [rim, core], core: [core]}
  ignore: 50
  decoder: {width: 8}
  flips: [1]
  keep_largest: true
  fill_holes: true
phases:
  - {name: warm_up, train: head, lr: 1.0e-2, epochs: 4}
  - {name: all, train: all, lr: 1.0e-2, epochs: 4}
training: {batch: 4, precision: fp32, memory_format: contiguous}
"""


def bundle_of(folder: Path, text: str, source: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "train.yaml").write_text(text % source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_hippocampi(folder, count=8, seed=2)
    for path in sorted((folder / "imagesTr").iterdir())[:4]:  # as a scanner stores them, on a tilted grid
        turned = np.array([[-1.0, 0.1, 0, 5], [-0.1, -1.0, 0, 7], [0, 0, 1.0, -3], [0, 0, 0, 1]])
        turned[:3, :3] /= np.linalg.norm(turned[:3, :3], axis=0)
        for one in (path, folder / "labelsTr" / path.name):
            image = nibabel.load(one)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1, ::-1], turned), one)
    return folder


@pytest.fixture(scope="module")
def bundle_3d(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("bundles") / "tiny_seg", BUNDLE_3D, volumes)


@pytest.fixture(scope="module")
def run_3d(bundle_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "run"
    return run_bundle(load_bundle(bundle_3d), Request(out=out, device="cpu"), QUIET)


def test_the_run_folder_holds_what_a_run_of_any_task_does(run_3d: RunFolder) -> None:
    scores, history = run_3d.read("scores.json"), run_3d.read("history.csv")

    assert run_3d.read("run.json")["status"] == "done"
    assert [row["phase"] for row in history] == ["warm_up", "all", "all"]
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    assert set(scores["by_class"]) == {"val", "test"}
    assert set(scores["by_class"]["test"]) == {"anterior", "posterior"}
    for name in ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml"):
        assert scores["test"][name]["n"] == 2
        assert scores["by_class"]["test"]["anterior"][name]["n"] == 2
    assert 0 < scores["baseline"]["test"]["dice"]["value"] < 1
    assert "mean training mask" in scores["baseline_rule"]
    for name in ("report.html", "model_card.md", "bundle/models/model.pt2", "bundle/configs/inference.yaml"):
        assert (run_3d.root / name).stat().st_size > 1000
    assert "anterior" in run_3d.read("report.html")


def test_masks_of_the_test_cases_lie_on_their_files_own_grid(run_3d: RunFolder, volumes: Path) -> None:
    rows = run_3d.read("predictions/test.csv")

    assert len(rows) == 2
    for row in rows:
        source = nibabel.load(row["file"])
        written = nibabel.load(run_3d.root / "predictions" / row["mask"])
        assert written.shape == source.shape
        np.testing.assert_array_equal(written.affine, source.affine)
        assert written.header.get_xyzt_units() == source.header.get_xyzt_units()
        mask = np.asarray(written.dataobj)
        true = np.asarray(nibabel.load(volumes / "labelsTr" / Path(row["file"]).name).dataobj)
        for number, name in enumerate(("anterior", "posterior"), start=1):
            both = np.count_nonzero((mask == number) & (true == number))
            dice = 2 * both / (np.count_nonzero(mask == number) + np.count_nonzero(true == number))
            assert float(row[f"dice_{name}"]) == pytest.approx(dice, abs=1e-4)
            assert float(row[f"true_volume_ml_{name}"]) == pytest.approx(
                np.count_nonzero(true == number) * abs(np.linalg.det(source.affine[:3, :3])) / 1000, abs=1e-4
            )
    assert len(list((run_3d.root / "predictions" / "masks").rglob("*.nii.gz"))) == 4  # of val, too


def test_the_run_says_that_volumes_are_smaller_than_the_patch(run_3d: RunFolder) -> None:
    notes = " ".join(run_3d.read("run.json")["data"]["notes"])

    assert "8 of 8 images are smaller than the patch of 24 x 32 x 48" in notes
    assert "padded with 0 on both sides" in notes


def test_an_opened_run_gives_the_runs_own_masks(run_3d: RunFolder, tmp_path: Path) -> None:
    told = run_3d.read("predictions/test.csv")

    rows = open_run(run_3d.root).predict([row["file"] for row in told], folder=tmp_path / "out")

    assert [row["status"] for row in rows] == ["ok", "ok"]
    for row, own in zip(rows, told, strict=True):
        mine, theirs = tmp_path / "out" / str(row["mask"]), run_3d.root / "predictions" / own["mask"]
        assert mine.read_bytes() == theirs.read_bytes()
        assert float(str(row["ml_anterior"])) == pytest.approx(float(own["volume_ml_anterior"]), abs=1e-4)
    assert list(rows[0]) == ["file", "ml_anterior", "ml_posterior", "mask", "status", "reason"]


def test_the_exported_bundle_gives_them_too(run_3d: RunFolder, tmp_path: Path) -> None:
    row = run_3d.read("predictions/test.csv")[0]

    (found,) = open_run(run_3d.root / "bundle").predict([row["file"]], folder=tmp_path)

    own = run_3d.root / "predictions" / row["mask"]
    assert (tmp_path / str(found["mask"])).read_bytes() == own.read_bytes()


def test_a_mask_is_never_written_over_its_image(run_3d: RunFolder, volumes: Path, tmp_path: Path) -> None:
    images = volumes / "imagesTr"
    before = {path: path.read_bytes() for path in images.iterdir()}
    trained, one = open_run(run_3d.root), sorted(before)[0]

    with pytest.raises(ConfigError, match="folder of the images"):
        trained.predict([one], folder=images)
    trained.predict([one], folder=tmp_path)
    with pytest.raises(ConfigError, match="would be overwritten"):
        trained.predict([one], folder=tmp_path, overwrite=False)
    trained.predict([one], folder=tmp_path)

    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_images_of_one_name_get_masks_of_different_names(
    run_3d: RunFolder, volumes: Path, tmp_path: Path
) -> None:
    content = sorted((volumes / "imagesTr").iterdir())[0].read_bytes()
    files = [
        tmp_path / "data" / name
        for name in ("a/x.nii.gz", "b/x.nii.gz", "b/X.nii.gz", "c d/x y.nii.gz", "c_d/x_y.nii.gz")
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    rows = open_run(run_3d.root).predict(files, folder=tmp_path / "out")

    names = [str(row["mask"]).lower() for row in rows]
    assert len(set(names)) == len(files)
    assert {path.name.lower() for path in (tmp_path / "out").iterdir()} == set(names)


def test_the_training_data_measured_again_give_the_same_scores(run_3d: RunFolder, volumes: Path) -> None:
    scores = evaluate_on(run_3d.root, volumes)

    per_case = [float(row["dice"]) for row in run_3d.read("predictions/test.csv")]
    assert scores["all"]["dice"]["n"] == 8
    assert 0 < scores["all"]["dice"]["value"] < 1
    assert "trained or tuned" in scores["alarms"][0]
    assert min(per_case) < 1


def test_images_trained_on_are_known_again_whatever_their_masks(
    run_3d: RunFolder, volumes: Path, tmp_path: Path
) -> None:
    used = next(row for row in run_3d.read("split.csv") if row["split"] == "train")
    name = Path(used["file"]).name
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / name).write_bytes(Path(used["file"]).read_bytes())
    mask = nibabel.load(volumes / "labelsTr" / name)
    other = np.asarray(mask.dataobj)[::-1]
    nibabel.save(nibabel.Nifti1Image(other, mask.affine), tmp_path / "masks" / name)

    scores = evaluate_on(run_3d.root, tmp_path)

    assert "1 of 1 images were trained or tuned on" in scores["alarms"][0]


class Stopping(Progress):
    """As if Ctrl-C were pressed after so many steps of a part of the run."""

    def __init__(self, steps: int, part: str = "phase") -> None:
        super().__init__(quiet=True)
        self.left, self.part = steps, part

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        def advance(steps: int = 1, note: str = "") -> None:  # noqa: ARG001
            if title.startswith(self.part):
                self.left -= steps
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.parametrize("steps", [4])  # in the second epoch of all but the first phase's
def test_an_interrupted_run_goes_on_bit_for_bit(
    run_3d: RunFolder, bundle_3d: Path, volumes: Path, tmp_path: Path, steps: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_bundle(load_bundle(bundle_3d), Request(out=tmp_path / "run", device="cpu"), Stopping(steps))
    assert len(RunFolder(tmp_path / "run").read("history.csv")) == 2
    mask = next((volumes / "labelsTr").iterdir())
    content = mask.read_bytes()
    image = nibabel.load(mask)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:, :, ::-1], image.affine), mask)
    with pytest.raises(DataError, match="changed"):  # a mask is part of the data
        resume_run(tmp_path / "run", device="cpu", say=QUIET)
    mask.write_bytes(content)

    with pytest.raises(KeyboardInterrupt):  # after training: the rest follows from the weights
        resume_run(tmp_path / "run", device="cpu", say=Stopping(0, "predictions"))

    resumed = RunFolder(tmp_path / "run")
    assert resumed.read("history.csv") == run_3d.read("history.csv")
    one, two = (torch.load(run.path("checkpoints/best.pt"), weights_only=True) for run in (run_3d, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def run_dicom(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Six series beside their masks, three as DICOM SEG and three as NIfTI."""
    root = tmp_path_factory.mktemp("dicom")
    for number in range(6):
        folder = root / "data" / "images" / f"case{number}"
        written = write_ct_series(
            folder, number, shape=(24, 22, 16), spacing=(14.0, 14.0, 13.0), turn_deg=(4.0, 0.0, 3.0 * number)
        )
        truth, grid = written.organs * (written.organs < 3), source_grid(folder)
        masks = root / "data" / "masks"
        if number % 2:
            write_seg(truth, grid, masks / f"case{number}.dcm", classes=["a", "b"])
        else:
            write_nifti(truth, grid, masks / f"case{number}.nii.gz")
    text = BUNDLE_3D.replace("preset: mri", "preset: ct").replace(
        "warm_up, train: head", "warm_up, train: all"
    )
    bundle = bundle_of(root / "tiny_ct", text, root / "data")
    loaded = load_bundle(bundle, overrides=["phases.1.epochs=0", "images.size=16"])
    return run_bundle(loaded, Request(out=root / "run", device="cpu"), QUIET)


def test_a_run_on_dicom_series_writes_segs_that_refer_to_them(run_dicom: RunFolder) -> None:
    rows = run_dicom.read("predictions/test.csv")

    assert run_dicom.read("run.json")["data"]["patient_key"] == "DICOM PatientID"
    for row in rows:
        grid = source_grid(Path(row["file"]))
        mask, names = read_seg(run_dicom.root / "predictions" / row["mask"], grid)
        assert names == {1: "anterior", 2: "posterior"}
        for number, name in names.items():
            size = np.count_nonzero(mask == number) * grid.voxel / 1000
            assert float(row[f"volume_ml_{name}"]) == pytest.approx(size, abs=1e-3)
            assert float(row[f"true_volume_ml_{name}"]) > 0


def test_a_dicom_series_gets_a_seg_that_is_the_mask_of_its_nifti_twin(
    run_3d: RunFolder, tmp_path: Path
) -> None:
    written = write_ct_series(
        tmp_path / "series", 3, shape=(30, 26, 20), spacing=(1.0, 1.0, 1.5), turn_deg=(5.0, -8.0, 12.0)
    )
    nibabel.save(nibabel.Nifti1Image(written.hu.astype(np.float32), written.affine), tmp_path / "twin.nii.gz")

    rows = open_run(run_3d.root).predict(
        [tmp_path / "series", tmp_path / "twin.nii.gz"], folder=tmp_path / "out"
    )

    assert [str(row["mask"]).split(".", 1)[1] for row in rows] == ["dcm", "nii.gz"]
    grid = source_grid(tmp_path / "series")
    seg, names = read_seg(tmp_path / "out" / str(rows[0]["mask"]), grid)
    twin = nibabel.load(tmp_path / "out" / str(rows[1]["mask"]))
    moved = onto_grid(np.asarray(twin.dataobj), twin.affine, grid)
    assert names == {1: "anterior", 2: "posterior"}
    assert seg.any()
    assert np.mean(seg != moved) < 1e-4
    assert rows[0]["ml_posterior"] == pytest.approx(rows[1]["ml_posterior"], rel=1e-3, abs=0.01)


def test_a_series_with_a_seg_of_truth_is_measured(run_3d: RunFolder, tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "images" / f"case{number}"
        written = write_ct_series(folder, number, shape=(30, 26, 20), spacing=(11.0, 12.0, 10.0))
        grid = source_grid(folder)
        truth = written.organs * (written.organs < 3)
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_seg(truth, grid, tmp_path / "masks" / f"case{number}.dcm", classes=["a", "b"])

    scores = evaluate_on(run_3d.root, tmp_path)

    assert scores["all"]["dice"]["n"] == 2
    assert scores["by_class"]["all"]["anterior"]["volume_error_ml"]["n"] == 2


def test_without_highdicom_the_mask_of_a_series_is_nifti(
    run_3d: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct_series(tmp_path / "series", 3, shape=(30, 26, 20), spacing=(1.0, 1.0, 1.5))
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)

    (row,) = open_run(run_3d.root).predict([tmp_path / "series"], folder=tmp_path / "out")

    assert (row["status"], row["mask"]) == ("ok", "series.nii.gz")
    assert nibabel.load(tmp_path / "out" / "series.nii.gz").shape == source_grid(tmp_path / "series").shape


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs with brighter cores, on pictures of different sizes; 50 in the masks: not to count."""
    folder = tmp_path_factory.mktemp("discs")
    random = np.random.default_rng(3)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(12):
        rows, columns = 40 + int(random.integers(20)), 40 + int(random.integers(20))
        y, x = np.mgrid[:rows, :columns]
        far = np.hypot(y - random.integers(18, rows - 18), x - random.integers(18, columns - 18))
        mask = np.where(far < 6, 200, np.where(far < 12, 100, 0)).astype(np.uint8)
        mask[:3] = 50
        image = 40 + 0.8 * mask + random.normal(0, 5, mask.shape)
        Pillow.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number:02}.png")
        Pillow.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def run_2d(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    bundle = bundle_of(tmp_path_factory.mktemp("bundles") / "tiny_regions", BUNDLE_2D, discs)
    out = tmp_path_factory.mktemp("runs") / "run"
    return run_bundle(load_bundle(bundle), Request(out=out, device="cpu"), QUIET)


def test_regions_of_whole_pictures_are_trained_on_cached_maps_and_on_all(run_2d: RunFolder) -> None:
    scores, rows = run_2d.read("scores.json"), run_2d.read("predictions/test.csv")

    assert set(scores["by_class"]["test"]) == {"whole", "core"}
    assert scores["test"]["dice"]["value"] > 0.6
    assert {"hd95_pixels", "area_error_pixels"} < set(scores["test"])
    for row in rows:
        source = np.asarray(Pillow.open(row["file"]))
        names = row["mask"].split(";")
        assert [name.rpartition("_")[2] for name in names] == ["whole.png", "core.png"]
        parts = [np.asarray(Pillow.open(run_2d.root / "predictions" / name)) for name in names]
        assert [part.shape for part in parts] == [source.shape] * 2
        true = np.asarray(Pillow.open(row["file"].replace("images", "masks")))
        counts = true != 50
        called, disc = (parts[0] > 0) & counts, true >= 100
        dice = 2 * np.count_nonzero(called & disc) / (np.count_nonzero(called) + np.count_nonzero(disc))
        assert float(row["dice_whole"]) == pytest.approx(dice, abs=1e-4)


def test_a_head_learns_the_same_from_maps_kept_in_memory_and_from_images(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(tmp_path / "tiny_regions", BUNDLE_2D, discs)
    histories = []
    for room in ("1000000000", "0"):
        monkeypatch.setenv("MEDXFER_FEATURE_BYTES", room)
        out = tmp_path / room
        with pytest.raises(KeyboardInterrupt):  # after training
            run_bundle(
                load_bundle(bundle, overrides=["phases.1.epochs=0"]),
                Request(out=out, device="cpu"),
                Stopping(0, "predictions"),
            )
        histories.append(RunFolder(out).read("history.csv"))
        log = (out / "log.txt").read_text()
        assert ("not cached" in log) == (room == "0")

    for one, other in zip(*histories, strict=True):
        for name in ("train_loss", "val_loss", "val_dice"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-3)
    assert len(histories[0]) == 4


def test_a_table_of_pictures_without_masks_is_answered(
    run_2d: RunFolder, discs: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [*sorted((discs / "images").iterdir())[:3], tmp_path / "broken.png"]

    rows = open_run(run_2d.root).predict(files, folder=tmp_path / "out")

    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "refused"]
    assert rows[3]["pixels_whole"] is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{number:02}_{name}.png" for number in range(3) for name in ("core", "whole")
    ]
    with run_2d.path("predictions/test.csv").open(encoding="utf-8") as file:
        assert "mask" in next(csv.reader(file))


def test_evaluate_refuses_volumes_for_a_network_of_pictures_and_images_without_masks(
    run_2d: RunFolder, volumes: Path, discs: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for path in list((discs / "images").iterdir())[:2]:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())

    with pytest.raises(DataError, match=r": a volume(?s:.*)a picture\n(?s:.*)this network looks at pictures"):
        evaluate_on(run_2d.root, volumes, say=QUIET)
    with pytest.raises(
        DataError, match=r"no folder of images beside a folder of masks(?s:.*)images/ and masks/"
    ):
        evaluate_on(run_2d.root, tmp_path, say=QUIET)
