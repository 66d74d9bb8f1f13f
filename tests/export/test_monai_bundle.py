"""The exported bundle: its files, MONAI's own checks, and its numbers where medxfer is not installed."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from medxfer.bundle.schema import ImagesSpec
from medxfer.data.presets import preprocess, steps_of
from medxfer.data.readers import read_image
from medxfer.errors import ConfigError, RunError
from medxfer.export.guide import BEGIN
from medxfer.export.inference import inference_yaml
from medxfer.export.monai_bundle import complete_metadata, export_bundle, metadata_schema

from .conftest import (
    ANSWERING,
    CLASSES,
    PICTURES,
    ROWS,
    SIZE,
    TEMPERATURE,
    Exported,
    Tiny,
    probabilities_of,
    run_here,
    softmax,
    stir,
)
from .images import write_all

# with its hash, or MONAI warns that nobody checked it
SCHEMA: dict[str, Any] = {
    "filepath": str(metadata_schema()),
    "hash_val": hashlib.sha256(metadata_schema().read_bytes()).hexdigest(),
    "hash_type": "sha256",
}


# MONAI 1.6 says at each LoadImage that an optional reader of NVIDIA is absent. SWIG warns while it makes ITK's
# types, where an exception in its place ends the interpreter (segmentation fault).
NOISE = pytest.mark.filterwarnings(
    "ignore:NvImgCodecPydicomReader", "ignore:nvImageCodec", "ignore:builtin type:DeprecationWarning"
)


def export_tiny(target: Path, network: nn.Module | None = None, **changes: Any) -> Path:
    given: dict[str, Any] = {
        "network": network or stir(Tiny()), "activate": softmax, "reading": PICTURES,
        "steps": steps_of(ImagesSpec(size=32), 1), "in_channels": 1, "shape": (32, 32), "answer": ROWS,
        "calibration": {"temperature": TEMPERATURE, "threshold": {"value": 0.5}},
        "config_yaml": "seed: 0\n", "metadata": {}, "licence_text": None, "docs": "",
    }  # fmt: skip
    return export_bundle(target, **{**given, **changes})


def test_bundle_gives_medxfers_probabilities_for_every_file(
    exported: Exported, images: Path, answers: dict[str, np.ndarray]
) -> None:
    files = sorted(answers)

    expected = probabilities_of(
        exported, [preprocess(read_image(images / name), exported.steps) for name in files]
    )

    given = np.array([answers[name] for name in files])
    assert given[:, 1].std() > 0.02, "answers all alike prove nothing"
    np.testing.assert_allclose(given, expected, atol=1e-4)


def test_bundle_answers_for_every_image_and_nothing_else(
    images: Path, answers: dict[str, np.ndarray]
) -> None:
    others = {"labels.csv", "DICOMDIR"}
    named = {path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file()}

    assert set(answers) == {name for name in named if Path(name).name not in others}


def test_polarity_of_dicom_does_not_matter(answers: dict[str, np.ndarray]) -> None:
    twins = [answers[f"mixed/{name}"] for name in ("grey.dcm", "inverted.dcm", "rescaled.dcm", "no_suffix")]

    np.testing.assert_allclose(twins, [twins[0]] * 4, atol=1e-4)


def test_synthetic_films_of_both_polarities_are_among_the_images(images: Path) -> None:
    applied = [read_image(path).applied for path in (images / "chest").rglob("*.dcm")]

    inverted = sum("MONOCHROME1 inverted" in one for one in applied)

    assert 0 < inverted < len(applied)


@NOISE
def test_reading_gives_medxfers_pixels_exactly(tmp_path: Path) -> None:
    from monai.bundle.config_parser import ConfigParser

    names = write_all(tmp_path / "images")
    parser = ConfigParser(yaml.safe_load(inference_yaml(PICTURES, ANSWERING, [], "none")))
    parser["dataset_dir"] = str(tmp_path / "images")

    items = parser.get_parsed_content("data")
    read = parser.get_parsed_content("preprocessing")

    assert [item["file"] for item in items] == names
    for item in items:
        image = read(item)["image"]
        assert type(image) is torch.Tensor
        np.testing.assert_array_equal(
            image.numpy(), read_image(Path(item["image"])).array, err_msg=item["file"]
        )


def test_monais_own_checks_pass(exported: Exported) -> None:
    from monai.bundle.scripts import verify_metadata, verify_net_in_out

    meta = str(exported.folder / "configs" / "metadata.json")
    config = str(exported.folder / "configs" / "inference.yaml")

    verify_metadata(meta_file=meta, **SCHEMA)
    verify_net_in_out(
        net_id="network_def",
        meta_file=meta,
        config_file=config,
        device="cpu",
        bundle_root=str(exported.folder),
    )


@NOISE
def test_names_that_other_tools_look_up_are_there(exported: Exported, images: Path) -> None:
    from monai.bundle.workflows import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=str(exported.folder / "configs" / "inference.yaml"),
        meta_file=str(exported.folder / "configs" / "metadata.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(exported.folder),
        dataset_dir=str(images),
        device="cpu",
    )
    workflow.initialize()

    assert not workflow.check_properties()
    assert len(workflow.dataset) > 0
    assert isinstance(workflow.network_def, nn.Module)
    config = yaml.safe_load((exported.folder / "configs" / "inference.yaml").read_text(encoding="utf-8"))
    assert {"preprocessing", "postprocessing", "handlers", "dataloader", "initialize", "run"} <= set(config)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": None}, "version"),
        ({"monai_version": "newest"}, "newest"),
        ({"network_data_format": {"inputs": {}}}, "outputs"),
        ({"required_packages_version": None}, "required_packages_version"),
        ({"authors": ""}, "non-empty"),
    ],
)
def test_schema_refuses_incomplete_metadata(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    from monai.bundle.scripts import verify_metadata

    complete = complete_metadata({}, ANSWERING, in_channels=1, shape=(SIZE, SIZE), task="any?")
    metadata = {**complete, **change}
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({name: value for name, value in metadata.items() if value is not None}))

    with pytest.raises(ValueError, match=complaint):
        verify_metadata(meta_file=str(path), **SCHEMA)


def test_metadata_keeps_the_bundles_words_and_states_what_was_exported(exported: Exported) -> None:
    metadata = json.loads((exported.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))

    assert (metadata["task"], metadata["version"]) == ("pneumonia or normal", "0.3.0")
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"]) == (1, [SIZE, SIZE])
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": CLASSES[0],
        "1": CLASSES[1],
    }
    assert {"fire", "itk", "pillow", "pytorch-ignite", "pyyaml"} <= set(metadata["required_packages_version"])


def test_nothing_of_medxfer_is_named_in_what_monai_runs(exported: Exported) -> None:
    text = (exported.folder / "configs" / "inference.yaml").read_text(encoding="utf-8")

    run = [line for line in text.splitlines() if not line.startswith("#")]

    assert not [line for line in run if "medxfer" in line]


def test_weights_config_and_hashes_are_what_was_given(exported: Exported) -> None:
    from safetensors.torch import load_file

    saved = load_file(exported.folder / "models" / "model.safetensors")
    said = json.loads((exported.folder / "configs" / "exported.json").read_text(encoding="utf-8"))

    assert all(torch.equal(tensor, saved[name]) for name, tensor in exported.network.state_dict().items())
    assert said["calibration"] == {"temperature": TEMPERATURE, "threshold": {"value": 0.37}}
    assert said["classes"] == list(CLASSES)
    for name, digest in said["sha256"].items():
        assert hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() == digest
    assert (exported.folder / "LICENSE").read_text(encoding="utf-8") == "Apache-2.0\n"
    assert (exported.folder / "configs" / "train.yaml").read_text(encoding="utf-8") == "seed: 0\n"


def test_readme_of_a_second_export_is_not_longer(exported: Exported, tmp_path: Path) -> None:
    first = (exported.folder / "docs" / "README.md").read_text(encoding="utf-8")

    again = export_tiny(tmp_path / "again", docs=first)

    second = (again / "docs" / "README.md").read_text(encoding="utf-8")
    assert second.startswith("# Pneumonia\n\nSynthetic.")
    assert second.count(BEGIN) == 1


def test_shared_tensors_are_saved_as_two(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = stir(Tiny())
    network.again = network.head  # a second name for one layer

    folder = export_tiny(tmp_path / "bundle", network)

    saved = load_file(folder / "models" / "model.safetensors")
    assert torch.equal(saved["head.weight"], saved["again.weight"])


def test_an_earlier_export_is_replaced_and_a_foreign_folder_is_not(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path / "bundle", licence_text="old")
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("keep", encoding="utf-8")

    export_tiny(folder)
    with pytest.raises(ConfigError) as refused:
        export_tiny(foreign)

    assert not (folder / "LICENSE").exists()
    assert "not written by an export" in refused.value.seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "mine"]
    assert (foreign / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_a_full_disk_leaves_the_earlier_export_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_tiny(tmp_path / "bundle", licence_text="old")
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "train.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="no space left"):
        export_tiny(folder, licence_text="new")

    assert (folder / "LICENSE").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@NOISE
def test_colour_network_and_single_image_batches_run_too(tmp_path: Path) -> None:
    network = stir(Tiny(3))
    folder = export_tiny(
        tmp_path / "bundle",
        network,
        in_channels=3,
        steps=steps_of(ImagesSpec(size=32), 3),
        calibration={"temperature": TEMPERATURE},
    )
    names = write_all(tmp_path / "images")

    given = run_here(folder, tmp_path / "images", tmp_path / "out", **{"dataloader#batch_size": 1})

    assert sorted(given) == names
    steps = steps_of(ImagesSpec(size=32), 3)
    read = torch.stack([preprocess(read_image(tmp_path / "images" / name), steps) for name in names])
    expected = (network(read) / TEMPERATURE).softmax(1).detach().numpy()
    np.testing.assert_allclose([given[name] for name in names], expected, atol=1e-4)
