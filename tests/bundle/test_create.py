"""`init` writes a bundle that loads as it stands, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import medxfer.export
from medxfer.bundle.create import ordered_classes, write_bundle
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import DataFacts, PatientSpec
from medxfer.errors import ConfigError, MedxferError

BUNDLES = Path(__file__).parents[2] / "bundles"


def facts(source: Path, **changes: Any) -> DataFacts:
    given_facts: dict[str, Any] = {
        "source": source,
        "layout": "class_folders",
        "classes": {"NORMAL": 10, "PNEUMONIA": 30},
        "images": 40,
        "patients": 35,
        "splits": {"train": 30, "test": 10},
        "channels": 1,
        "median_size": (224, 200),
        "patient": PatientSpec(pattern=r"(person\d+)"),
        "notes": ("2 files are not images", "test: another\nresolution"),
    }
    return DataFacts(**given_facts | changes)


def test_bundle_says_what_was_seen(tmp_path: Path) -> None:
    folder = write_bundle(facts(tmp_path), tmp_path / "mine", task="classification", modality="xray")

    bundle = load_bundle(folder)

    assert bundle.name == "mine"
    assert bundle.data.source == str(tmp_path)
    assert bundle.data.layout == "class_folders"
    assert bundle.data.patient.pattern == r"(person\d+)"
    assert bundle.task.arguments["classes"] == ["NORMAL", "PNEUMONIA"]
    assert (bundle.encoder.id, bundle.encoder.weights) == ("efficientnet_lite0", "imagenet")
    assert [phase.name for phase in bundle.phases] == ["probe", "finetune"]
    text = (folder / "configs" / "train.yaml").read_text(encoding="utf-8")
    assert 25 <= len(text.splitlines()) <= 45
    assert "NORMAL 10, PNEUMONIA 30" in text
    assert "train, test came with the data" in text
    assert (folder / "docs" / "README.md").read_text(encoding="utf-8").startswith("# mine\n")


@pytest.mark.parametrize("size", [(40, 30), (100, 90), (128, 20), (3000, 2500)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_size_and_channels_follow_the_data(size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    seen = facts(tmp_path, median_size=size, channels=channels)

    bundle = load_bundle(write_bundle(seen, tmp_path / "b", task="classification", modality="xray"))

    assert bundle.images.size == {40: 32, 100: 96}.get(size[0], 128)
    assert bundle.encoder.in_channels == (3 if channels >= 3 else 1)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("NORMAL", "PNEUMONIA"), ("NORMAL", "PNEUMONIA")),
        (("Covid", "normal"), ("normal", "Covid")),
        (("nodule", "no_nodule"), ("no_nodule", "nodule")),
        (("0", "1"), ("0", "1")),
        (("yes", "no"), ("no", "yes")),
        (("abnormal", "normal"), ("normal", "abnormal")),
        (("a", "b", "normal"), ("a", "b", "normal")),
        (("north", "nose"), ("north", "nose")),
    ],
)
def test_finding_comes_second(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert ordered_classes(names) == expected


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"classes": {"a": 3}}, {}, "1 class: a"),
        ({"classes": {}}, {}, "no labels"),
        ({}, {"task": "clasification"}, "did you mean classification"),
        ({}, {"modality": "ray"}, "did you mean xray"),
        ({"dims": 3, "median_size": (40, 40, 20)}, {}, "the data are volumes"),
    ],
)
def test_refusal_leaves_nothing(
    changes: dict[str, Any], options: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        write_bundle(
            facts(tmp_path, **changes),
            tmp_path / "b",
            **{"task": "classification", "modality": "xray"} | options,
        )

    assert told in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()

    with pytest.raises(ConfigError, match="exists already"):
        write_bundle(facts(tmp_path), tmp_path / "b", task="classification", modality="xray")

    assert list((tmp_path / "b").iterdir()) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=4, unique=True),
    st.none() | st.text(min_size=1, max_size=9),
    st.text(max_size=30),
)
def test_any_class_name_is_written_or_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], column: str | None, note: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    seen = facts(root, classes=dict.fromkeys(names, 5), column=column, notes=(note,))
    try:
        folder = write_bundle(seen, root / "b", task="classification", modality="xray")
    except MedxferError:
        assert list(root.iterdir()) == []
        assert any(word[:1] in "$@%" for word in (*names, column or ""))
        return

    bundle = load_bundle(folder)

    assert sorted(bundle.task.arguments["classes"]) == sorted(names)
    assert bundle.data.column == column


def test_metadata_follow_the_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="checks metadata.json against the schema")
    schema = json.loads(
        (Path(medxfer.export.__path__[0]) / "metadata_schema.json").read_text(encoding="utf-8")
    )
    written = write_bundle(
        facts(tmp_path, channels=3), tmp_path / "b", task="classification", modality="xray"
    )

    for folder in (written, *(path for path in BUNDLES.iterdir() if path.is_dir())):
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        jsonschema.validate(metadata, schema)
        bundle = load_bundle(folder)
        formats = metadata["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
        assert image["num_channels"] == len(image["channel_def"]) == bundle.encoder.in_channels
        assert image["spatial_shape"] == list(bundle.images.shape)
        background = ["background"] if bundle.task.target == "Segmentation" else []
        assert list(pred["channel_def"].values()) == [*background, *bundle.task.arguments["classes"]]
