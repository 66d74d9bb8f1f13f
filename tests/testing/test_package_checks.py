"""Faults of a plugin's package: entry point, import, card, weights; each is caught by its check."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medxfer.files import sha256_of
from medxfer.testing import CHECKS, Check, CheckFailed, Subject, all_checks

from .sites import TINY, Site, card

BY_NAME = {check.__name__: check for check in CHECKS}
WEIGHTS = """  weights:
    own:
      source: package:{package}/{file}
      sha256: {sha256}
      size_bytes: {size}
      licence: MIT
      citation: A paper.
      trained_on: ten photographs
      in_channels: 3
      mean: [0.5, 0.5, 0.5]
      std: [0.5, 0.5, 0.5]
"""
SIDE_EFFECTS = {
    "prints": ("print('welcome')", "printed 'welcome'"),
    "warns": ("import warnings; warnings.warn('old')", "warned `old`"),
    "seeds": (
        "import torch; torch.manual_seed(0)",
        "changed torch's random state; move the call into `build`",
    ),
    "seeds_python": ("import random; random.seed(0)", "changed Python's random state"),
    "threads": ("import torch; torch.set_num_threads(3)", "changed torch's number of threads"),
    "dtype": ("import torch; torch.set_default_dtype(torch.float64)", "changed torch's default dtype"),
    "writes": ("open(__file__ + '.log', 'w').close()", "wrote the file writes.py.log"),
    "reads": (
        "import os; open(os.path.join(os.path.dirname(__file__), 'cards.yaml')).close()",
        "opened the file",
    ),
    "connects": (
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError:\n    pass",
        "connected to",
    ),
    "fails": ("import module_that_is_nowhere", "cannot be imported: ModuleNotFoundError"),
    "clean": ("import torch", ""),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Site(folder)


def fault(encoder_id: str, name: str) -> str:
    """What the author reads of a failed check."""
    with pytest.raises(CheckFailed) as caught:
        BY_NAME[name](Subject(encoder_id, 2))
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("build_anything", "takes **kwargs; name its options"),
        ("build_unsaid", "takes `depth`, no option of the card"),
        ("build_other_default", "`width` is 16 in"),
        ("build_fixed", "takes no `spatial_dims`, `in_channels`"),
        ("absent", "cannot be loaded: AttributeError"),
    ],
)
def test_entry_point(site: Site, function: str, words: str) -> None:
    name = function.replace("build_", "entry-").replace("absent", "entry-absent")
    site.add(name, encoders={"entry": f"{name.replace('-', '_')}:{function}"}, cards=card("entry"))

    assert words in fault("entry", "check_entry_point")


def test_broken_card_and_clash_are_told_by_the_entry_point(site: Site) -> None:
    site.add("half-carded", encoders={"half": "half_carded:build"}, cards="half: {channels: [8]}\n")
    site.add("one-of-two", encoders={"double": "one_of_two:build"}, cards=card("double"))
    site.add("two-of-two", encoders={"double": "two_of_two:build"}, cards=card("double"))

    assert "no `parameters`" in fault("half", "check_entry_point")
    assert "one-of-two 1.0 and two-of-two 1.0" in fault("double", "check_entry_point")


def test_side_effects_of_an_import(site: Site) -> None:
    """One fresh process for all modules of the distribution."""
    modules = {name: code + TINY for name, (code, _) in SIDE_EFFECTS.items()}
    encoders = {f"effect_{name}": f"effects_net.{name}:build" for name in modules}
    site.add("effects-net", encoders=encoders, modules=modules, code="", cards=card("effect_prints"))

    for name, (_, words) in SIDE_EFFECTS.items():
        if words:
            assert words in fault(f"effect_{name}", "check_import"), name
    BY_NAME["check_import"](Subject("effect_clean", 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"licence": "MIT License"}, "has the licence 'MIT License'; add an SPDX id"),
        ({"licence": "unknown"}, "has the licence 'unknown'"),
        ({"licence": "see their page"}, "has the licence 'see their page'"),
        ({"citation": "not stated"}, "has no citation"),
    ],
)
def test_card_values(site: Site, given: dict[str, str], words: str) -> None:
    site.add("card-values", encoders={"valued": "card_values:build"}, cards=card("valued", **given))

    assert words in fault("valued", "check_card_file")


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0 OR (MIT)", "see https://example.org/terms"])
def test_licences_that_are_enough(site: Site, licence: str) -> None:
    site.add("licensed", encoders={"licensed": "licensed:build"}, cards=card("licensed", licence=licence))

    BY_NAME["check_card_file"](Subject("licensed", 2))


def test_missing_card_licence_and_hash(site: Site) -> None:
    site.add("cardless", encoders={"cardless": "cardless:build"})
    without = card("unlicensed").replace("  licence: MIT\n", "")
    site.add("unlicensed", encoders={"unlicensed": "unlicensed:build"}, cards=without)
    packaged = WEIGHTS.format(package="unhashed", file="own.safetensors", sha256="null", size=8)
    site.add("unhashed", encoders={"unhashed": "unhashed:build"}, cards=card("unhashed", weights=packaged))

    assert "has no card for `cardless`" in fault("cardless", "check_card_file")
    assert "no `licence`; add an SPDX id" in fault("unlicensed", "check_entry_point")
    assert "is packaged and has no sha256" in fault("unhashed", "check_card_file")


def with_weights(site: Site, name: str, fault: str) -> None:
    """A plugin with a weights file in its package that has one fault."""
    file = f"own.{'pth' if fault == 'pickle' else 'safetensors'}"
    place = site.add(name, encoders={name: f"{name}:build"}, cards="")
    tensors = importlib.import_module(name).build(spatial_dims=2, in_channels=3).state_dict()
    if fault == "names":
        tensors = {f"layer{i}": value for i, value in enumerate(tensors.values())}
    if fault == "shape":
        tensors["stages.0.bias"] = torch.zeros(4)
    if fault == "pickle":
        (place / file).write_bytes(pickle.dumps(Path("anything")))
    else:
        save_file(tensors, place / file)
    digest = "a" * 64 if fault == "hash" else sha256_of(place / file)
    size = (place / file).stat().st_size
    text = WEIGHTS.format(package=name, file=file, sha256=digest, size=size)
    (place / "cards.yaml").write_text(card(name, weights=text), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("hash", "sha256"),
        ("names", "0.0% of the parameters found in the file"),
        ("shape", "leaves 1 tensors as built, `stages.0.bias`"),
        ("pickle", "holds pickled objects"),
    ],
)
def test_weights(site: Site, kind: str, words: str) -> None:
    with_weights(site, f"weighted_{kind}", kind)

    assert words in fault(f"weighted_{kind}", "check_weights")


def test_sound_plugin_with_weights_passes_everything_of_its_package(site: Site) -> None:
    with_weights(site, "sound_net", "")

    names = ("entry_point", "card_file", "weights")
    checks = [check for check in all_checks("sound_net") if check.function.__name__[6:] in names]

    assert {check.outcome().state for check in checks} == {"passed"}
    assert [check.outcome().text for check in checks][-1] == "loaded: own"


def test_everything_follows_from_an_entry_point_that_cannot_be_loaded(site: Site) -> None:
    site.add("gone-net", encoders={"gone": "gone_net:build"}, code="import module_that_is_nowhere\n")

    found = [check.outcome() for check in all_checks("gone")]

    assert [one.check for one in found if one.state == "failed"] == ["entry_point"]
    assert {(one.root, one.text) for one in found if one.state == "follows"} == {
        ("entry_point", "not looked at")
    }


def test_failed_build_is_told_by_a_check_of_its_own(site: Site) -> None:
    code = TINY.replace("return Tiny(in_channels, width)", "raise OSError('no such\\ndevice')", 1)
    site.add("unbuilt-net", encoders={"unbuilt": "unbuilt_net:build"}, code=code, cards=card("unbuilt"))

    found = {one.check: one for one in (check.outcome() for check in all_checks("unbuilt"))}

    assert [name for name, one in found.items() if one.state == "failed"] == ["builds"]
    assert "encoder unbuilt of unbuilt-net 1.0" in found["builds"].text
    assert "OSError: no such\ndevice" in found["builds"].text
    assert found["maps"].root == "builds"


def test_plugin_that_ends_the_process_is_told_as_one(site: Site) -> None:
    site.add("exit-net", encoders={"exits": "exit_net:build"}, code="raise SystemExit(7)\n")

    assert "cannot be loaded: it calls sys.exit(7)" in fault("exits", "check_entry_point")


def test_unknown_encoder_fails_with_the_way_to_look() -> None:
    found = Check(subject=Subject("nowhere", 2), function=BY_NAME["check_entry_point"]).outcome()

    assert "no encoder `nowhere` is installed" in found.text
