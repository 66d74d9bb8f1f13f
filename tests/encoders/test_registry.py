"""Discovery without imports; broken, clashing and unknown encoders; building."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.encoders import registry
from medxfer.encoders.registry import Listing, build, card_of, list_encoders
from medxfer.errors import PluginError

CARD = """
{name}:
  parameters: {{2: 8}}
  channels: [8]
  strides: [2]
  licence: MIT
  citation: none
"""
BUILD = """
import torch
from torch import nn
from medxfer.plugin import Encoder, Normalise

class Tiny(Encoder):
    def __init__(self, in_channels, width):
        super().__init__()
        self.spatial_dims, self.in_channels = 2, in_channels
        self.channels, self.strides = (width,), ((2, 2),)
        self.normalise = Normalise([0.5] * in_channels, [0.5] * in_channels)
        self.stages = nn.ModuleList([nn.Conv2d(in_channels, width, 3, 2, 1)])

def build(*, spatial_dims, in_channels):
    if spatial_dims != 2:
        raise ValueError("2D only")
    return Tiny(in_channels, 8)

def build_anything(**kwargs):
    return Tiny(1, 8)

def build_nothing(*, spatial_dims, in_channels):
    return None

def adapt(name, *, spatial_dims, in_channels):
    if spatial_dims != 2:
        raise ValueError("2D only")
    return Tiny(in_channels, int(name))
"""


class Site:
    """A folder on the path with distributions as pip leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, name: str, *, encoders: dict[str, str], code: str = BUILD, cards: str | None = None
    ) -> None:
        package = name.replace("-", "_")
        (self.folder / package).mkdir()
        (self.folder / package / "__init__.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
        )
        points = "[medxfer.encoders]\n" + "".join(f"{key} = {value}\n" for key, value in encoders.items())
        if cards is not None:
            (self.folder / package / "cards.yaml").write_text(cards, encoding="utf-8")
            points += f"[medxfer.cards]\n{package} = {package}:cards.yaml\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Site(folder)


def listed(name: str) -> Listing:
    return next(listing for listing in list_encoders() if listing.id == name)


def test_builtin_encoders_come_through_entry_points() -> None:
    listings = {listing.id: listing for listing in list_encoders()}

    for name in ("resnet18", "densenet121"):
        assert listings[name].distribution == "medxfer"
        assert listings[name].error is None
        assert listings[name].card is not None


def test_listing_imports_nothing_heavy() -> None:
    code = """
import sys
from medxfer.encoders.registry import list_encoders
names = [listing.id for listing in list_encoders()]
heavy = {"torch", "monai", "numpy", "medxfer_efficientnet_lite"} & set(sys.modules)
assert "resnet18" in names and not heavy, (names, heavy)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr


def test_plugin_is_listed_without_being_imported(site: Site) -> None:
    site.add("foo-net", encoders={"foo": "foo_net:build"}, cards=CARD.format(name="foo"))

    listing = listed("foo")

    assert listing.brought_by == "foo-net 1.0"
    assert listing.card is not None
    assert "foo_net" not in sys.modules


def test_plugin_without_card_is_built_to_tell_its_shape(site: Site) -> None:
    site.add("unlabelled", encoders={"bare": "unlabelled:build"})

    assert listed("bare").card is None
    assert listed("bare").error is None
    card = card_of("bare")

    assert card.spatial_dims == {2}
    assert card.channels == (8,)
    assert card.strides == (2,)
    assert card.parameters == {2: 8 * 3 * 9 + 8}


def test_adapter_takes_the_rest_of_the_id(site: Site) -> None:
    site.add("naming-net", encoders={"adapter": "naming_net:adapt"})

    assert build("adapter:12", spatial_dims=2, in_channels=1).channels == (12,)
    assert card_of("adapter:5").channels == (5,)


def test_plugin_that_cannot_be_imported_is_named_and_others_go_on(site: Site) -> None:
    site.add("bad-net", encoders={"bad": "bad_net:build"}, code="import module_that_is_nowhere\n")

    with pytest.raises(PluginError, match=r"(?s)bad of bad-net 1.0.*module_that_is_nowhere"):
        build("bad", spatial_dims=2, in_channels=1)
    assert build("resnet18", spatial_dims=2, in_channels=1).in_channels == 1


def test_broken_card_is_named(site: Site) -> None:
    site.add("card-net", encoders={"carded": "card_net:build"}, cards="carded: {chanels: [1]}\n")

    assert "chanels" in (listed("carded").error or "")
    with pytest.raises(PluginError, match=r"(?s)card-net.*chanels"):
        build("carded", spatial_dims=2, in_channels=1)


def test_clash_names_both_distributions(site: Site) -> None:
    site.add("clash-one", encoders={"clash": "clash_one:build"})
    site.add("clash-two", encoders={"clash": "clash_two:build"})

    assert "clash-one 1.0 and clash-two 1.0" in (listed("clash").error or "")
    with pytest.raises(PluginError, match=r"clash-one 1\.0 and clash-two 1\.0"):
        build("clash", spatial_dims=2, in_channels=1)


@pytest.mark.parametrize(
    ("function", "words"),
    [("build_anything", r"takes \*\*kwargs"), ("build_nothing", "NoneType"), ("absent", "absent")],
)
def test_build_outside_the_contract_is_refused(site: Site, function: str, words: str) -> None:
    name = function.replace("_", "-") + "-net"
    site.add(name, encoders={"odd": f"{name.replace('-', '_')}:{function}"})

    with pytest.raises(PluginError, match=words):
        build("odd", spatial_dims=2, in_channels=1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("self.stages =", "self.parts =", "`stages` is missing: set it in __init__"),
        ("self.normalise =", "self.normalize =", "`normalise` is missing"),
        ("self.channels, self.strides", "self.channels, self.steps", "`strides` is missing"),
        ("((2, 2),)", "(2,)", r"strides\[0\] is 2: a tuple of 2, one per axis"),
        ("((2, 2),)", "((2, 2), (4, 4))", "`strides` has 2 entries, `stages` 1: one per stage"),
        ("(width,),", "(width, width),", "`channels` has 2 entries, `stages` 1"),
        ("(width,),", "width,", "`channels` is a int: make it a tuple"),
        ("(width,),", "('8',),", r"channels\[0\] is '8': a whole number above 0"),
        ("nn.ModuleList(", "nn.Sequential(*", "`stages` is a Sequential: make it an nn.ModuleList"),
        ("self.in_channels = 2,", "self.in_channels = 3,", "`spatial_dims` is 3, built with 2"),
        ("= 2, in_channels", "= 2, 7", "`in_channels` is 7, built with 1"),
    ],
)
def test_encoder_without_the_parts_of_the_contract_is_refused(
    site: Site, old: str, new: str, words: str
) -> None:
    assert BUILD.count(old) == 1
    name = f"parts{zlib.crc32((old + new).encode())}"  # modules stay imported: one each
    site.add(name, encoders={"parted": f"{name}:build"}, code=BUILD.replace(old, new))

    with pytest.raises(PluginError, match=rf"(?s)parted of {name} 1\.0.*{words}"):
        build("parted", spatial_dims=2, in_channels=1)


EXITS = {
    "at_import": ("import sys\nsys.exit(7)\n", r"cannot be loaded: it calls sys\.exit\(7\)"),
    "at_build": (
        BUILD.replace('raise ValueError("2D only")', "raise SystemExit").replace("!= 2", "== 2"),
        r"build failed: it calls sys\.exit\(None\)",
    ),
}


@pytest.mark.parametrize("when", EXITS)
def test_plugin_that_ends_the_process_is_a_broken_plugin(site: Site, when: str) -> None:
    code, words = EXITS[when]
    site.add(f"exit-{when}", encoders={"exiting": f"exit_{when}:build"}, code=code)

    with pytest.raises(PluginError, match=rf"(?s)exit-{when} 1\.0.*{words}"):
        build("exiting", spatial_dims=2, in_channels=1)


def test_interruption_while_a_plugin_loads_is_no_fault_of_the_plugin(site: Site) -> None:
    site.add("stop-net", encoders={"stop": "stop_net:build"}, code="raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        build("stop", spatial_dims=2, in_channels=1)


def test_loading_a_plugin_writes_nothing_to_stdout_and_keeps_the_threads(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    loud = "print('welcome')\nimport torch\ntorch.set_num_threads(3)\n" + BUILD
    site.add("loud-net", encoders={"loud": "loud_net:build"}, code=loud)

    build("loud", spatial_dims=2, in_channels=1)

    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "welcome\n")
    assert torch.get_num_threads() == threads


def test_card_under_another_id_names_both(site: Site) -> None:
    site.add("slip-net", encoders={"slip": "slip_net:build"}, cards=CARD.format(name="slipp"))

    assert listed("slip").error == "cards.yaml has `slipp`, the entry point is `slip`; give both one name"


def test_value_of_an_option_that_fails_is_named_with_its_default() -> None:
    with pytest.raises(PluginError) as caught:
        build("tinyconv", spatial_dims=2, in_channels=1, options={"width": 6})

    assert caught.value.seen.startswith("build failed with width=6: ValueError: num_channels")
    assert "width=16" in caught.value.accepted
    assert caught.value.todo.startswith("change `width`")


@pytest.mark.parametrize("value", ["1", "all", "off-net", "OFF_NET", "offed"])
def test_plugins_can_be_disabled(site: Site, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    site.add("off-net", encoders={"offed": "off_net:build"})
    assert listed("offed").distribution == "off-net"

    monkeypatch.setenv("MEDXFER_DISABLE_PLUGINS", value)

    names = [listing.id for listing in list_encoders()]
    assert "offed" not in names
    assert "resnet18" in names
    with pytest.raises(PluginError, match="MEDXFER_DISABLE_PLUGINS is set"):
        build("offed", spatial_dims=2, in_channels=1)


def test_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean resnet18"):
        build("resnt18", spatial_dims=2, in_channels=1)


def test_known_but_absent_encoder_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KNOWN_PACKAGES", {"nimbus": "medxfer-nimbus"})

    with pytest.raises(PluginError, match="pip install medxfer-nimbus"):
        build("nimbus", spatial_dims=2, in_channels=1)


def test_dimensions_and_options_are_checked_against_the_card(site: Site) -> None:
    site.add("opt-net", encoders={"opt": "opt_net:build"}, cards=CARD.format(name="opt"))

    with pytest.raises(PluginError, match=r"(?s)asked for in 3D.*2D.*plane by plane"):
        build("opt", spatial_dims=3, in_channels=1)
    with pytest.raises(PluginError, match="unknown option `depth`"):
        build("resnet18", spatial_dims=2, in_channels=1, options={"depth": 3})


def test_name_behind_a_colon_is_for_adapters_only() -> None:
    with pytest.raises(PluginError, match="takes no further name"):
        build("resnet18:large", spatial_dims=2, in_channels=1)


def test_build_depends_on_the_seed_and_keeps_the_random_state() -> None:
    torch.manual_seed(3)
    random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002

    first = build("resnet18", spatial_dims=2, in_channels=1).state_dict()

    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    again = build("resnet18", spatial_dims=2, in_channels=1).state_dict()
    torch.manual_seed(4)
    other = build("resnet18", spatial_dims=2, in_channels=1).state_dict()
    assert torch.equal(first["stages.0.conv1.weight"], again["stages.0.conv1.weight"])
    assert not torch.equal(first["stages.0.conv1.weight"], other["stages.0.conv1.weight"])
