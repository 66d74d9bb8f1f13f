"""Card files: read strictly, with a remedy for each fault."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from medxfer.cards import read_cards
from medxfer.errors import PluginError

GOOD: dict[str, Any] = {
    "foo": {
        "spatial_dims": [3],
        "parameters": {3: 1000},
        "channels": [8, 16],
        "strides": [[2, 2, 1], [4, 4, 2]],
        "options": {"width": 1.0},
        "modalities": ["ct"],
        "licence": "MIT",
        "citation": "Foo et al. 2020",
        "weights": {
            "chest": {
                "source": "package:foo/weights.safetensors",
                "sha256": "0" * 64,
                "size_bytes": 12,
                "licence": "MIT",
                "citation": "Foo et al. 2020",
                "trained_on": "12 phantoms",
                "in_channels": 1,
                "mean": [0.5],
                "std": [0.25],
            }
        },
    }
}


def write(folder: Path, content: Any) -> Path:
    path = folder / "cards.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_complete_card_is_read(tmp_path: Path) -> None:
    card = read_cards(write(tmp_path, GOOD))["foo"]

    assert card.spatial_dims == {3}
    assert card.strides_in(3) == ((2, 2, 1), (4, 4, 2))
    assert card.options == {"width": 1.0}
    assert card.weights[0].value_range == (0.0, 1.0)
    assert card.weights_tagged("chest") is card.weights[0]
    assert card.weights_tagged("abdomen") is None


def test_one_number_a_stage_is_for_every_axis(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"] |= {"strides": [2, 4], "parameters": {2: 10, 3: 20}, "spatial_dims": [2, 3]}

    card = read_cards(write(tmp_path, content))["foo"]

    assert card.strides_in(2) == ((2, 2), (4, 4))
    assert card.strides_in(3) == ((2, 2, 2), (4, 4, 4))


def test_weights_are_for_the_encoders_dimensions_unless_their_card_says_less(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"] |= {"strides": [2, 4], "parameters": {2: 10, 3: 20}, "spatial_dims": [2, 3]}
    content["foo"]["weights"]["volumes"] = {**content["foo"]["weights"]["chest"], "spatial_dims": [3]}

    card = read_cards(write(tmp_path, content))["foo"]

    assert [weights.spatial_dims for weights in card.weights] == [(2, 3), (3,)]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("foo", "weights", "chest", "spatial_dims"), [2], r"chest\.spatial_dims.*\(3,\)|\[3\]"),
        (("foo", "weights", "chest", "spatial_dims"), "3D", "chest.spatial_dims"),
        (("foo", "key_maps"), 3, "foo.key_maps"),
        (("foo", "chanels"), [8, 16], "foo.chanels.*did you mean channels"),
        (("foo", "licence"), None, "no `licence`.*SPDX"),
        (("foo", "channels"), [8, 16, 32], "2 strides, 3 channels"),
        (("foo", "channels"), [8, "many"], "foo.channels"),
        (("foo", "parameters"), {4: 1}, "keys of `parameters`"),
        (("foo", "spatial_dims"), [2, 3], "keys of `parameters`"),
        (("foo", "strides"), [[2, 2], [4, 4]], "one number an axis"),
        (("foo", "weights", "chest", "std"), [0.0], "above 0"),
        (("foo", "weights", "chest", "mean"), [0.5, 0.5], "2 means"),
        (("foo", "weights", "chest", "mean"), [float("nan")], "foo.weights.chest.mean"),
        (("foo", "weights", "chest", "sha256"), "abc", "64 hexadecimal"),
        (("foo", "weights", "chest", "size_bytes"), -1, "a whole number"),
        (("foo", "weights", "chest", "value_range"), [1, 0], "low, high"),
        (("foo", "weights", "chest"), None, "nothing"),
    ],
)
def test_faulty_card_is_refused(tmp_path: Path, path: tuple[str, ...], value: Any, words: str) -> None:
    content = copy.deepcopy(GOOD)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    with pytest.raises(PluginError, match=f"(?s){words}"):
        read_cards(write(tmp_path, content))


def test_absent_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("foo: [1,", encoding="utf-8")

    with pytest.raises(PluginError, match="not YAML"):
        read_cards(broken)
    with pytest.raises(PluginError, match="No such file"):
        read_cards(tmp_path / "none.yaml")


def test_unstated_hash_and_size_are_said_to_be_unstated(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"]["weights"]["chest"] |= {"sha256": None, "size_bytes": None}

    weights = read_cards(write(tmp_path, content))["foo"].weights[0]

    assert weights.sha256 is None
    assert weights.size_bytes is None


@pytest.mark.parametrize("name", ["sha256", "size_bytes"])
def test_forgotten_hash_or_size_is_refused(tmp_path: Path, name: str) -> None:
    content = copy.deepcopy(GOOD)
    del content["foo"]["weights"]["chest"][name]

    with pytest.raises(PluginError, match=rf"(?s)no `{name}`.*{name}: null"):
        read_cards(write(tmp_path, content))


def test_several_packages_are_shards(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    shards = ["package:foo_p1/part.bin", "package:foo_p2/part.bin"]
    content["foo"]["weights"]["chest"]["source"] = shards

    assert read_cards(write(tmp_path, content))["foo"].weights[0].source == tuple(shards)


@pytest.mark.parametrize("source", [[], ["https://example.org/a", "package:foo/b"], [1]])
def test_shards_are_packages(tmp_path: Path, source: list[object]) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"]["weights"]["chest"]["source"] = source

    with pytest.raises(PluginError, match=r"chest\.source"):
        read_cards(write(tmp_path, content))


def test_weights_name_the_options_they_need(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"]["weights"]["chest"]["options"] = {"width": 0.5}

    assert read_cards(write(tmp_path, content))["foo"].weights[0].options == {"width": 0.5}


def test_options_of_weights_are_options_of_the_encoder(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["foo"]["weights"]["chest"]["options"] = {"widht": 0.5}

    with pytest.raises(PluginError, match=r"(?s)options\.widht.*did you mean width"):
        read_cards(write(tmp_path, content))
