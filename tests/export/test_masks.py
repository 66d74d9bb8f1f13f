"""Bundles whose answer is a mask: plain MONAI writes medxfer's mask on the file's own grid."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medxfer.bundle.schema import Component, DataSpec, ImagesSpec, PatchSpec, SliceSpec
from medxfer.data.formats.grids import source_grid
from medxfer.data.writers import volume_row
from medxfer.errors import ConfigError
from medxfer.export.answering import answering_for
from medxfer.export.inference import install_line, packages_of
from medxfer.export.reading import reading_for
from medxfer.export.trained_export import export_trained
from medxfer.tasks.base import MaskAnswer
from medxfer.trained import open_run

from .conftest import run_apart, softmax, start_here
from .images import blocks, write_dicom
from .images import write_all as write_pictures
from .masks import MadeMasks, export_masks
from .test_monai_bundle import NOISE, SCHEMA
from .volumes import write_all

CLASSES = ("anterior part", "posterior")


def steps(*listed: tuple[str, dict[str, Any]]) -> tuple[Component, ...]:
    return tuple(Component(target=name, arguments=arguments) for name, arguments in listed)


# images of about 21 x 23 x 19: several windows along two axes, padded along one
VOLUMES = ImagesSpec(
    preset="ct", dims=3, size=(16, 32, 16), patches=PatchSpec(),
    transforms=steps(
        ("HUWindow", {"windows": [[-900, 900]]}), ("Channels", {"count": 1}), ("CropBody", {"above": 0.1, "margin": 0}),
        ("Resample", {"spacing": [1.0, 0.9, 2.0]}), ("Quantise", {"store": "uint8"}),
    ),
)  # fmt: skip


# coronal planes, two CT windows as channels
PLANES = ImagesSpec(
    preset="ct", dims=3, size=(16, 1, 24), patches=PatchSpec(),
    transforms=steps(
        ("HUWindow", {"windows": [[-900, 900], [-300, 700]]}), ("Channels", {"count": 2}),
        ("Resample", {"spacing": [1.0, 1.3, 1.1]}), ("Quantise", {"store": "uint8"}),
    ),
)  # fmt: skip


# the middle of each image: what lies around it is background
MIDDLE = ImagesSpec(
    preset="ct", dims=3, size=(20, 16, 16),
    transforms=steps(
        ("HUWindow", {"windows": [[-900, 900]]}), ("Resample", {"spacing": [0.9, 1.2, 1.7]}),
        ("FitTo", {"size": [20, 16, 16]}),
    ),
)  # fmt: skip
PICTURES = ImagesSpec(
    preset="xray", size=(48, 40), patches=PatchSpec(),
    transforms=steps(
        ("Channels", {"count": 1}), ("PadToSquare", {}), ("Resize", {"size": 75}), ("PercentileWindow", {}),
        ("Quantise", {"store": "uint8"}),
    ),
)  # fmt: skip
SMALL = ImagesSpec(size=16, patches=PatchSpec(), transforms=steps(("PercentileWindow", {})))
REGIONS = {"all of it": list(CLASSES), "back": ["posterior"]}


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "all"
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> MadeMasks:
    return export_masks(
        tmp_path_factory.mktemp("volumes"), VOLUMES, [scans / "oblique.nii"], classes=CLASSES, overlap=0.4
    )


def read_mask(out: Path, row: dict[str, str]) -> np.ndarray:
    """What a row names: a volume, a picture, or a stack (K, *spatial) of overlapping classes."""
    paths = [out / one for one in row["mask"].split(";")]
    if paths[0].suffix == ".gz":
        volume = np.asarray(load(paths[0]).dataobj)
        return volume if volume.ndim == 3 else np.moveaxis(volume, -1, 0)
    pictures = [np.asarray(Image.open(path)) for path in paths]
    return pictures[0] if len(pictures) == 1 else np.stack(pictures)


def load(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def require_same(given: np.ndarray, expected: np.ndarray, name: str) -> None:
    """At most one voxel of 10,000 apart, and no mask of one class, which would prove nothing."""
    assert given.dtype == np.uint8
    classes = list(expected) if expected.dtype == bool else [expected == number for number in (0, 1, 2)]
    assert min(one.mean() for one in classes) > 0.005, name
    assert np.mean(given.reshape(expected.shape) != expected) <= 1e-4, name


def test_masks_of_volumes_are_medxfers_where_medxfer_is_not_installed(
    volumes: MadeMasks, scans: Path, tmp_path: Path
) -> None:
    """About 12 s: a process of its own imports MONAI."""
    run_apart(volumes.folder, scans, tmp_path / "out")

    rows = rows_of(tmp_path / "out")
    files = {
        path.relative_to(scans).as_posix()
        for path in [*scans.glob("[a-z]*.[nm]*"), *(scans / "ct").iterdir()]
    }
    assert set(rows) == files
    for name, row in rows.items():
        grid, given = source_grid(scans / name), read_mask(tmp_path / "out", row)
        require_same(given, volumes.mask_of(scans / name), name)
        unit = 1000 if name == "metre.nii" else 1
        affine = np.diag([unit, unit, unit, 1]) @ load(tmp_path / "out" / row["mask"]).affine
        np.testing.assert_allclose(affine, grid.affine, atol=1e-4, err_msg=name)
        sizes = volume_row(given.reshape(grid.shape), grid, CLASSES)
        assert [float(row[column]) for column in sizes] == pytest.approx(list(sizes.values()), abs=2e-4), name
    assert rows["a.mha"]["mask"] == "masks/a.mha.nii.gz", "three files are named `a`"
    assert rows["ct/series"]["mask"] == "masks/ct/series.nii.gz"


@NOISE
def test_masks_are_those_that_predict_writes_and_carry_the_files_header(
    volumes: MadeMasks, scans: Path, tmp_path: Path
) -> None:
    source = load(scans / "metre.nii")
    source.header["descrip"] = b"Jane Doe"
    source.header.set_sform(source.affine, 2)
    source.header.set_qform(source.affine, 1)
    (tmp_path / "scans").mkdir()
    nibabel.save(source, tmp_path / "scans" / "a.nii")
    shutil.copy(scans / "scaled.nii.gz", tmp_path / "scans")

    start_here(volumes.folder, tmp_path / "scans", tmp_path / "out")

    assert open_run(volumes.folder).predict([tmp_path / "scans"], folder=tmp_path / "own")
    for name in ("a.nii.gz", "scaled.nii.gz"):
        given, own = load(tmp_path / "out" / "masks" / name), load(tmp_path / "own" / name)
        np.testing.assert_array_equal(np.asarray(given.dataobj), np.asarray(own.dataobj))
        for key in HEADER:
            np.testing.assert_array_equal(given.header[key], own.header[key], err_msg=key)


HEADER = (
    "dim",
    "pixdim",
    "sform_code",
    "qform_code",
    "srow_x",
    "xyzt_units",
    "descrip",
    "datatype",
    "cal_max",
)


@NOISE
def test_masks_of_volumes_seen_plane_by_plane_are_those_that_predict_writes(
    scans: Path, tmp_path: Path
) -> None:
    some = ("oblique.nii", "a.nrrd")
    (tmp_path / "scans").mkdir()
    for name in some:
        shutil.copy(scans / name, tmp_path / "scans")
    made = export_masks(
        tmp_path / "source", PLANES, [scans / some[0]], channels=2, classes=CLASSES, overlap=0.3, flips=[0]
    )

    start_here(made.folder, tmp_path / "scans", tmp_path / "out")

    own = open_run(made.folder).predict([tmp_path / "scans" / name for name in some], folder=tmp_path / "own")
    rows = rows_of(tmp_path / "out")
    for name, row in zip(some, own, strict=True):
        given = read_mask(tmp_path / "out", rows[name])
        require_same(given, np.asarray(load(tmp_path / "own" / str(row["mask"])).dataobj), name)
        require_same(given, made.mask_of(scans / name), name)


@NOISE
def test_cleaned_regions_of_whole_volumes_with_background_around_them(scans: Path, tmp_path: Path) -> None:
    some = ("oblique.nii", "a.nrrd", "one_of_one.nii")
    (tmp_path / "scans").mkdir()
    for name in some:
        shutil.copy(scans / name, tmp_path / "scans")
    cleaning: dict[str, Any] = {"keep_largest": True, "fill_holes": True, "flips": [0], "regions": REGIONS}
    made = export_masks(tmp_path / "source", MIDDLE, [scans / some[0]], classes=CLASSES, **cleaning)

    start_here(made.folder, tmp_path / "scans", tmp_path / "out")

    rows = rows_of(tmp_path / "out")
    assert sorted(rows) == sorted(some)
    for name, row in rows.items():
        given = read_mask(tmp_path / "out", row)
        require_same(given, made.mask_of(scans / name), name)
        rough = made.mask_of(scans / name, cleaned_too=False)
        assert (given != rough).any(), "there was nothing to clean"
        edges = [np.take(given, (0, -1), axis).any() for axis in (1, 2, 3)]
        assert not all(edges), "the image is larger than what the network sees"


@NOISE
def test_masks_of_pictures_are_pictures(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "images")
    samples = [tmp_path / "images" / name for name in names[::4]]
    made = export_masks(tmp_path / "source", PICTURES, samples, classes=CLASSES, fill_holes=True)

    start_here(made.folder, tmp_path / "images", tmp_path / "out")

    rows = rows_of(tmp_path / "out")
    assert sorted(rows) == names
    for name, row in rows.items():
        grid, given = source_grid(tmp_path / "images" / name), read_mask(tmp_path / "out", row)
        require_same(given, made.mask_of(tmp_path / "images" / name), name)
        assert sizes_in(row).items() >= volume_row(given, grid, CLASSES).items(), name
    assert rows["grey.dcm"]["mask"] == "masks/grey.png"


@NOISE
def test_overlapping_regions_of_a_picture_are_a_picture_each(small: MadeMasks, tmp_path: Path) -> None:
    write_dicom(small.folder.parent / "images" / "spaced.dcm", blocks(2), PixelSpacing=[0.5, 0.4])
    images = small.folder.parent / "images"

    start_here(small.folder, images, tmp_path / "out")

    rows = rows_of(tmp_path / "out")
    for name, row in rows.items():
        given, grid = read_mask(tmp_path / "out", row), source_grid(images / name)
        require_same(given, small.mask_of(images / name), name)
        assert sizes_in(row).items() >= volume_row(given.astype(bool), grid, small.answer.classes).items()
    assert rows["grey.dcm"]["mask"] == "masks/grey_all_of_it.png;masks/grey_back.png"
    assert rows["grey.dcm"]["cm2_back"] == "", "the size of its pixels is unknown"
    assert float(rows["spaced.dcm"]["cm2_back"]) == pytest.approx(
        0.002 * int(rows["spaced.dcm"]["pixels_back"])
    )


def sizes_in(row: dict[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in row.items() if name not in ("file", "mask") and text}


def test_monais_own_checks_pass_and_the_guide_says_what_is_written(volumes: MadeMasks) -> None:
    from monai.bundle.scripts import verify_metadata, verify_net_in_out

    meta, config = (str(volumes.folder / "configs" / name) for name in ("metadata.json", "inference.yaml"))

    verify_metadata(meta_file=meta, **SCHEMA)
    verify_net_in_out(
        net_id="network_def",
        meta_file=meta,
        config_file=config,
        device="cpu",
        bundle_root=str(volumes.folder),
    )

    said = json.loads(Path(meta).read_text(encoding="utf-8"))["network_data_format"]
    assert said["inputs"]["image"]["is_patch_data"]
    assert said["outputs"]["pred"]["format"] == "segmentation"
    assert said["outputs"]["pred"]["channel_def"] == {"0": "background", "1": CLASSES[0], "2": CLASSES[1]}
    guide = " ".join((volumes.folder / "docs" / "README.md").read_text(encoding="utf-8").split())
    assert "then `ml_anterior part`, `ml_posterior` and the `mask` written for it. Each mask (NIfTI" in guide
    assert "logits of a patch of 16 x 32 x 16" in guide
    assert "overlap 0.4, Gaussian weights" in guide
    assert "p_" not in guide
    assert "emperature" not in guide


def test_packages_of_cleaning_are_required() -> None:
    reading = reading_for(DataSpec(source=""), 3)

    both = answering_for(
        MaskAnswer(classes=CLASSES, keep_largest=True, fill_holes=True), reading, (8, 8, 8), {}
    )
    none = answering_for(MaskAnswer(classes=CLASSES), reading, (8, 8, 8), {})

    assert install_line(reading, both, []).split("'")[1] == "monai[fire,ignite,itk,nibabel,scipy,skimage]"
    assert packages_of(reading, both, []) == ["itk", "nibabel", "scikit-image", "scipy"]
    assert packages_of(reading, none, []) == ["itk", "nibabel"]


def test_slices_of_volumes_have_no_file_for_a_mask() -> None:
    reading = reading_for(DataSpec(source="", slices=SliceSpec(plane="axial")), 2)

    with pytest.raises(ConfigError, match="cuts volumes into pictures"):
        answering_for(MaskAnswer(classes=CLASSES), reading, (32, 32), {})


def test_task_whose_probabilities_contradict_its_answer_is_refused() -> None:
    part = answering_for(
        MaskAnswer(classes=CLASSES, threshold=0.5), reading_for(DataSpec(source=""), 2), (32, 32), {}
    )

    with pytest.raises(ConfigError, match="other probabilities"):
        part.activate(softmax, 2)

    assert part.gives == "logits"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MadeMasks:
    folder = tmp_path_factory.mktemp("small")
    (folder / "images").mkdir()
    sample = write_dicom(folder / "images" / "grey.dcm", blocks(1))
    return export_masks(folder, SMALL, [sample], classes=CLASSES, regions=REGIONS, flips=[1])


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_single_files_give_logits_of_a_patch_and_say_so(small: MadeMasks, tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="extra `onnx` is not installed")
    told: list[str] = []

    path = export_trained(small.folder, kind, tmp_path / "model", told.append)

    patches = torch.rand(2, 1, 16, 16)
    expected = small.trained.network(patches).detach()
    torch.testing.assert_close(RUN[kind](path, patches), expected, atol=1e-3, rtol=1e-3)
    assert "The program gives logits of a patch of 16 x 16." in told[-1]


def _run_onnx(path: Path, patches: Tensor) -> Tensor:
    from onnx.reference import ReferenceEvaluator

    (given,) = ReferenceEvaluator(str(path)).run(["logits"], {"image": patches.numpy()})
    return torch.as_tensor(np.asarray(given))


RUN: dict[str, Callable[[Path, Tensor], Tensor]] = {
    "onnx": _run_onnx,
    "torchscript": lambda path, patches: torch.jit.load(str(path))(patches),
}
