"""Bundles that read volumes, whole or cut into slices: plain MONAI gives medxfer's voxels and probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Bundle, Component, DataSpec, ImagesSpec
from medxfer.data.case import Case
from medxfer.data.presets import fill_in, prepared, steps_of
from medxfer.data.sampling import digest_of, read_case, reading_of
from medxfer.encoders.loading import create_encoder
from medxfer.export.answering import answering_for
from medxfer.export.inference import inference_yaml
from medxfer.export.reading import reading_for
from medxfer.export.trained_export import export_as_bundle
from medxfer.networks.network import Network
from medxfer.tasks.base import RowAnswer
from medxfer.tasks.classification import Classification
from medxfer.trained import Trained, open_run

from .conftest import CLASSES, TEMPERATURE, run_here, run_monai_bundle
from .images import write_all as write_pictures
from .test_monai_bundle import NOISE, SCHEMA
from .volumes import write_all, write_refused, write_series

CT = """\
images:
  {preset: ct, dims: 3, size: [20, 22, 16], spacing: [1.3, 1.1, 2.8], adjust: {HUWindow: {windows: [lung, bone]}}}
"""
SLICES = "images: {preset: mri, size: [40, 32], spacing: [1.1, 0.9]}\n"
REST = """\
name: test
encoder: {id: cnn, in_channels: 2}
task: {_target_: Classification, classes: [normal, 'pneumonia, any']}
phases: [{name: all, train: all, lr: 1.0e-3, epochs: 1}]
"""


def bundle_of(folder: Path, data: str, images: str, rest: str = REST) -> Bundle:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "train.yaml").write_text(f"data: {data}\n{images}{rest}", encoding="utf-8")
    return fill_in(load_bundle(folder))


def trained_of(bundle: Bundle, scans: Path | None = None) -> Trained:
    """Random weights; with `scans` a head whose answers for them differ."""
    torch.manual_seed(0)
    encoder, _ = create_encoder(bundle.encoder, spatial_dims=bundle.images.dims)
    task = Classification(classes=list(CLASSES))
    network = Network(encoder, task.head(encoder)).eval()
    if scans is not None:
        _spread(network, bundle, scans)
    return Trained(
        bundle=bundle,
        task=task,
        network=network,
        steps=steps_of(bundle.images, bundle.encoder.in_channels),
        calibration={"temperature": TEMPERATURE},
    )


def _spread(network: nn.Module, bundle: Bundle, scans: Path) -> None:
    paths = [*scans.glob("[a-z]*.nii*"), *(scans / "ct").iterdir()]
    channels = bundle.encoder.in_channels
    made = [values for path in paths for _, values in in_medxfer(path, bundle.data, bundle.images, channels)]
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    with torch.no_grad():
        logits = network(torch.stack(made))
        width = (logits[:, 1] - logits[:, 0]).std()
        last.bias.copy_((last.bias - logits.mean(0)) / width)
        last.weight.div_(width)


def in_monai(root: Path, data: DataSpec, images: ImagesSpec | None, channels: int = 1) -> dict[str, Any]:
    """File -> a function that gives what MONAI makes of it; medxfer's steps, none where `images` is None."""
    from monai.bundle.config_parser import ConfigParser

    steps = () if images is None else steps_of(images, channels)
    dims = 3 if images is None else images.dims
    reading = reading_for(data, dims)
    answering = answering_for(RowAnswer(classes=CLASSES), reading, (), {})
    parser = ConfigParser(yaml.safe_load(inference_yaml(reading, answering, steps, "none")))
    parser["dataset_dir"] = str(root)
    items = parser.get_parsed_content("data")
    read = parser.get_parsed_content("preprocessing")
    return {item["file"]: lambda item=item: read(item) for item in items}


def in_medxfer(path: Path, data: DataSpec, images: ImagesSpec | None, channels: int = 1) -> list[Any]:
    case = Case(id=path.name, images=(path,), patient="")
    parts = read_case(case, digest_of(case), reading_of(data)).images
    steps = () if images is None else steps_of(images, channels)
    return [(part.suffix, prepared(part.image, steps).values) for part in parts]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "all"
    write_all(folder)
    return folder


@NOISE
def test_reading_volumes_gives_medxfers_voxels_exactly(tmp_path: Path) -> None:
    names = write_all(tmp_path / "scans")
    data = DataSpec(source="")

    read = in_monai(tmp_path / "scans", data, None)

    assert list(read) == names
    for name, function in read.items():
        ((_, expected),) = in_medxfer(tmp_path / "scans" / name, data, None)
        image = function()["image"]
        assert type(image) is torch.Tensor
        np.testing.assert_array_equal(image.numpy(), expected.numpy(), err_msg=name)


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "ct by spacing": ("{source: x}", {"preset": "ct", "dims": 3, "size": (20, 20, 16), "spacing": (1.3, 1.3, 3.0)}),
    "mri": ("{source: x}", {"preset": "mri", "dims": 3, "size": 16, "store": "float16"}),
    "mri, bias and body": (
        "{source: x}",
        {
            "preset": "mri", "dims": 3, "size": 16,
            "transforms": (
                ("RemoveBiasField", {"shrink": 3, "iterations": 2}), ("CropBody", {"above": 300.0, "margin": 1}),
                ("Resample", {"spacing": [1.0, 1.0, 2.0]}), ("FitTo", {"size": [18, 18, 14]}), ("ForegroundZScore", {}),
            ),
        },
    ),
    "coronal slices of ct": (
        "{source: x, slices: {plane: coronal, every: 7, context: 1}}",
        {"preset": "ct", "size": 32, "spacing": (1.1, 0.9)},
    ),
    "sagittal slices of mri": (
        "{source: x, slices: {plane: sagittal, every: 9, context: 1}}", {"preset": "mri", "size": (24, 32)},
    ),
}  # fmt: skip


@NOISE
@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_medxfers_numbers_in_monai(tmp_path: Path, scans: Path, name: str) -> None:
    text, given = PRESETS[name]
    if "bias" in name:
        pytest.importorskip("SimpleITK", reason="extra `n4` is not installed")
        listed = tuple(Component(target=one, arguments=own) for one, own in given["transforms"])
        given = {**given, "transforms": listed}
    rest = REST.replace("in_channels: 2", "in_channels: 3")
    data = bundle_of(tmp_path, text, "", rest).data
    images, channels = ImagesSpec(**given), 3 if data.slices else 1

    read = in_monai(scans, data, images, channels)

    for file, function in read.items():
        expected = in_medxfer(scans / file, data, images, channels)
        made = function()
        made = made if isinstance(made, list) else [made]
        assert [one["file"] for one in made] == [file + suffix for suffix, _ in expected]
        for one, (_, values) in zip(made, expected, strict=True):
            np.testing.assert_allclose(one["image"].numpy(), values.numpy(), atol=1e-6, err_msg=file)


@NOISE
def test_stain_normalisation_gives_medxfers_numbers_in_monai(tmp_path: Path) -> None:
    names = write_pictures(tmp_path / "images")
    data, images = DataSpec(source=""), ImagesSpec(preset="pathology", size=48)

    read = in_monai(tmp_path / "images", data, images, 3)

    assert list(read) == names
    for name, function in read.items():
        ((_, expected),) = in_medxfer(tmp_path / "images" / name, data, images, 3)
        np.testing.assert_allclose(function()["image"].numpy(), expected.numpy(), atol=1e-5, err_msg=name)


@NOISE
def test_what_itk_would_read_wrongly_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    reasons = write_refused(tmp_path / "scans")

    read = in_monai(tmp_path / "scans", DataSpec(source=""), None)

    assert sorted(read) == sorted(reasons)
    for name, function in read.items():
        with pytest.raises(SystemExit) as refused:
            function()
        assert reasons[name] in str(refused.value)
        assert name in str(refused.value)


@NOISE
def test_policies_that_monai_can_follow_are_followed(tmp_path: Path) -> None:
    write_refused(tmp_path / "scans")
    data = DataSpec(source="", on_geometry="warn", on_nonfinite="zero", volume=1)

    read = in_monai(tmp_path / "scans", data, None)

    for name in ("gap", "tilted", "nan.nii", "two_volumes.nii"):
        own = (
            data
            if name == "two_volumes.nii"
            else DataSpec(source="", on_geometry="warn", on_nonfinite="zero")
        )
        ((_, expected),) = in_medxfer(tmp_path / "scans" / name, own, None)
        np.testing.assert_array_equal(read[name]()["image"].numpy(), expected.numpy(), err_msg=name)


def test_policies_that_monai_cannot_follow_are_stated_in_the_guide() -> None:
    data = DataSpec(source="", on_geometry="resample", series={"modality": "CT"}, select={"EchoTime": 30})

    limits = " ".join(reading_for(data, 3).limits)

    assert "`data.series: {'modality': 'CT'}` is medxfer's alone" in limits
    assert "`data.select: {'EchoTime': 30}` is medxfer's alone" in limits
    assert "`data.on_geometry: resample` is medxfer's alone" in limits


@NOISE
def test_one_file_is_not_taken_for_all_files_of_a_case(tmp_path: Path, scans: Path) -> None:
    data = "{source: x, images: [t1, flair]}"
    trained = trained_of(bundle_of(tmp_path / "source", data, "images: {preset: mri, dims: 3, size: 16}\n"))

    (row,) = trained.predict([scans / "ras.nii"])
    read = in_monai(scans, trained.bundle.data, trained.bundle.images, 2)

    assert (row["status"], "2 channels" in str(row["reason"])) == ("refused", False)
    assert "t1, flair" in str(row["reason"])
    with pytest.raises(SystemExit, match="one file with 2 channels"):
        read["ras.nii"]()


def test_bundle_of_a_3d_network_gives_medxfers_probabilities(tmp_path: Path, scans: Path) -> None:
    """About 10 s: a process of its own imports MONAI."""
    trained = trained_of(bundle_of(tmp_path / "source", "{source: x}", CT), scans)
    folder = export_as_bundle(trained, tmp_path / "bundle", tmp_path / "source")

    given = run_monai_bundle(folder, scans, tmp_path / "out")

    rows = open_run(folder).predict([scans])
    assert all(row["status"] != "refused" for row in rows)
    expected = {Path(str(row["file"])).relative_to(scans).as_posix(): row["p_normal"] for row in rows}
    assert sorted(given) == sorted(expected)
    assert np.std([one[0] for one in given.values()]) > 0.02, "answers all alike prove nothing"
    for name, probability in expected.items():
        assert given[name][0] == pytest.approx(probability, abs=1e-4), name
    _check_documents(folder)


def _check_documents(folder: Path) -> None:
    from monai.bundle.scripts import verify_metadata, verify_net_in_out

    meta, config = folder / "configs" / "metadata.json", folder / "configs" / "inference.yaml"
    verify_metadata(meta_file=str(meta), **SCHEMA)
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(meta),
        config_file=str(config),
        device="cpu",
        bundle_root=str(folder),
    )
    said = json.loads(meta.read_text(encoding="utf-8"))
    assert said["network_data_format"]["inputs"]["image"]["spatial_shape"] == [20, 22, 16]
    assert {"itk", "nibabel"} <= set(said["required_packages_version"])
    readme = " ".join((folder / "docs" / "README.md").read_text(encoding="utf-8").split())
    assert "pip install torch 'monai[fire,ignite,itk,nibabel]' pyyaml" in readme
    assert "Several series" in readme


@NOISE
def test_bundle_that_cuts_volumes_answers_for_each_slice_as_medxfer_does(tmp_path: Path, scans: Path) -> None:
    data = "{source: x, slices: {plane: axial, every: 2, context: 1}}"
    rest = REST.replace("in_channels: 2", "in_channels: 3")
    trained = trained_of(bundle_of(tmp_path / "source", data, SLICES, rest), scans)
    folder = export_as_bundle(trained, tmp_path / "bundle", tmp_path / "source")

    given = run_here(folder, scans, tmp_path / "out")

    rows = open_run(folder).predict([scans])
    expected = {Path(str(row["file"])).relative_to(scans).as_posix(): row["p_normal"] for row in rows}
    assert {"ct/series#axial-000", "ras.nii#axial-014"} <= set(given)
    assert sorted(given) == sorted(expected)
    assert np.std([one[0] for one in given.values()]) > 0.02, "answers all alike prove nothing"
    for name, probability in expected.items():
        assert given[name][0] == pytest.approx(probability, abs=1e-4), name


def test_packages_of_steps_are_required_and_installed_by_the_command(tmp_path: Path) -> None:
    listed = "images: {size: 32, transforms: [{_target_: Channels, count: 2}, {_target_: Resize, size: 32}, "
    listed += "{_target_: PercentileWindow}, {_target_: EqualiseLocally}, {_target_: Quantise}]}\n"
    trained = trained_of(bundle_of(tmp_path / "source", "{source: x}", listed))

    folder = export_as_bundle(trained, tmp_path / "bundle", tmp_path / "source")

    said = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert "scikit-image" in said["required_packages_version"]
    text = (folder / "configs" / "inference.yaml").read_text(encoding="utf-8")
    assert "pyyaml scikit-image" in text
    assert "$import skimage.exposure" in yaml.safe_load(text)["imports"]


def test_a_picture_is_refused_by_a_3d_network_and_the_volume_beside_it_is_not(tmp_path: Path) -> None:
    trained = trained_of(bundle_of(tmp_path / "source", "{source: x}", CT))
    write_series(tmp_path / "scans" / "one")
    write_pictures(tmp_path / "scans" / "pictures")

    rows = trained.predict([tmp_path / "scans" / "one", tmp_path / "scans" / "pictures" / "sub" / "grey.bmp"])

    assert [row["status"] for row in rows] == ["ok", "refused"]
    assert "a picture" in str(rows[1]["reason"])
