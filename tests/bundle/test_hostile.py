"""Configuration that would run code is refused with exit code 5 before anything happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medxfer.bundle.parser import load_bundle, to_yaml
from medxfer.errors import ConfigError, MedxferError, UnsafeError
from tests.bounds import memory_below

GOOD = """\
data: {source: images}
encoder: {id: resnet18}
task: {_target_: Classification, classes: [a, b]}
phases:
  - {name: probe, train: head, lr: 1e-3, epochs: 2}
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def write(folder: Path, text: str, name: str = "train.yaml") -> Path:
    file = folder / "bundle" / "configs" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return folder / "bundle"


def hostile_values(marker: Path) -> dict[str, object]:
    """What reliability asks to refuse, as values of a key."""
    touch = f"touch {marker}"
    calls = {
        "os.system": {"command": touch},
        "subprocess.check_call": {"args": ["touch", str(marker)]},
        "builtins.open": {"file": str(marker), "mode": "w"},
        "monai.utils.module.os.system": {"command": touch},
        "medxfer.cli.os.system": {"command": touch},
        "medxfer.bundle.components.importlib.import_module": {"name": "os"},
        "torch.hub.load": {"repo_or_dir": ".", "model": "x", "source": "local"},
        "runpy.run_path": {"path_name": "x.py"},
        "torch.save": {"obj": 1, "f": str(marker)},
        "torch.load": {"f": "x.pt"},
        "numpy.load": {"file": "x.npy"},
        "posix.system": {"command": touch},
        " os.system": {"command": touch},
        "os.system ": {"command": touch},
        "": {"command": touch},
        "eval": {"source": "1"},
        "__import__": {"name": "os"},
        "medxfer.tasks.classification.Classification": {"classes": ["a", "b"]},
    }
    values: dict[str, object] = {
        f"_target_ {name!r}": {"_target_": name, **given} for name, given in calls.items()
    }
    texts = [
        f"$__import__('os').system('{touch}')",
        "$import os",
        "$os.system('x')",
        "$[c for c in ().__class__.__base__.__subclasses__()]",
        "$().__class__",
        "$f'{1}'",
        "$lambda x: x",
        "$2 ** 9",
        "$'a' if True else 'b'",
        "$[1, 2]",
        "${'a': 1}",
        "$'abc'[0]",
        "$(x := 1)",
        "$1 < 2",
        "$None",
        "$1j",
        "$b'x'",
        "$not True",
        "$",
        "$" + "(" * 99 + "1" + ")" * 99 + "+1" * 40,
        "$1" + "+1" * 150,
        "$'$' + '1 + 1'",
        "$reference_number_0",
        "$'@seed'",
        "%/etc/passwd::x",
        "%other.yaml::task",
    ]
    values |= {text[:30]: text for text in texts}
    part = {"_target_": "Classification", "classes": ["a", "b"]}
    values |= {
        "_requires_": {**part, "_requires_": f"$__import__('os').system('{touch}')"},
        "_requires_ part": {**part, "_requires_": {"_target_": "Classification"}},
        "_disabled_": {**part, "_disabled_": f"$__import__('os').system('{touch}')"},
        "disabled part": {"_target_": "os.system", "command": touch, "_disabled_": True},
        "_mode_ debug": {**part, "_mode_": "debug"},
        "_mode_ callable": {**part, "_mode_": "callable"},
        "_mode_ callable, unlisted": {"_target_": "os.system", "_mode_": "callable"},
        "nested": {**part, "balance": [{"deep": {"_target_": "os.system", "command": touch}}]},
        "nested $": {**part, "balance": {"x": f"$__import__('os').system('{touch}')"}},
        "computed": {"_target_": "$'os.' + 'system'", "command": touch},
    }
    return values


NAMES = list(hostile_values(Path("marker")))


def placed(where: str, value: object) -> dict[str, object]:
    """A configuration with a hostile value somewhere."""
    tree: dict[str, object] = {
        "data": {"source": "images"},
        "encoder": {"id": "resnet18"},
        "task": {"_target_": "Classification", "classes": ["a", "b"]},
        "phases": [{"name": "probe", "train": "head", "lr": 0.001, "epochs": 2}],
    }
    if where == "task":
        tree["task"] = value
    elif where == "in a list":
        tree["images"] = {"transforms": [value]}
    elif where == "argument":
        tree["task"] = {"_target_": "Classification", "classes": ["a", "b"], "balance": value}
    elif where == "unknown key":
        tree["evil"] = value
    else:
        tree["encoder"] = {"id": "resnet18", "options": {"x": {"y": [value]}}}
    return tree


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["task", "in a list", "argument", "unknown key", "free mapping"])
def test_hostile_value_is_unsafe(where: str, name: str, tmp_path: Path, marker: Path) -> None:
    tree = placed(where, hostile_values(marker)[name])
    yaml_folder = write(tmp_path, json.dumps(tree))
    json_folder = write(tmp_path / "json", json.dumps(tree), "train.json")

    for folder in (yaml_folder, json_folder):
        with pytest.raises(UnsafeError) as refused:
            load_bundle(folder)

        assert refused.value.exit_code == 5
        assert "train." in refused.value.where
        assert all((refused.value.seen, refused.value.accepted, refused.value.todo))
        assert len(str(refused.value).splitlines()) == 4
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["task", "images.augment", "encoder.options.x", "task.loss", "evil"])
def test_hostile_override_is_unsafe(key: str, name: str, tmp_path: Path, marker: Path) -> None:
    value = hostile_values(marker)[name]
    text = value if isinstance(value, str) else json.dumps(value)
    folder = write(tmp_path, GOOD)

    with pytest.raises(UnsafeError) as refused:
        load_bundle(folder, overrides=[f"{key}={text}"])

    assert refused.value.where.startswith("--set ")
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "task: !!python/object/apply:os.system ['touch {marker}']",
        "task: !!python/name:os.system ''",
        "task: !!python/object/new:os.system ['touch {marker}']",
        "!!python/tuple [1]",
        "? !!python/object/apply:os.system ['touch {marker}']\n: 1",
        "!!python/object/apply:os.system x: 1",
        "task: !Custom {{a: 1}}",
        "task: !<tag:example.org,2020:x> 1",
    ],
)
def test_tag_that_builds_objects_is_unsafe(text: str, tmp_path: Path, marker: Path) -> None:
    folder = write(tmp_path, text.format(marker=marker))

    for trust in (False, True):
        with pytest.raises((UnsafeError, ConfigError)) as refused:
            load_bundle(folder, trust=trust)

        assert refused.value.exit_code == (2 if text.startswith("?") else 5)
    assert not marker.exists()


def test_tag_in_an_override_is_unsafe(tmp_path: Path, marker: Path) -> None:
    folder = write(tmp_path, GOOD)

    with pytest.raises(UnsafeError):
        load_bundle(folder, overrides=[f"seed=!!python/object/apply:os.system ['touch {marker}']"])

    assert not marker.exists()


def bombs() -> dict[str, str]:
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
    )
    references = "encoder:\n  id: x\n  options:\n    r0: [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"    r{i}: [" + ", ".join([f"'@encoder::options::r{i - 1}'"] * 9) + "]\n" for i in range(1, 10)
    )
    doubling = (
        "encoder:\n  id: x\n  options:\n    r0: "
        + "x" * 100
        + "\n"
        + "".join(
            f'    r{i}: "$@encoder::options::r{i - 1} + @encoder::options::r{i - 1}"\n' for i in range(1, 14)
        )
    )
    squaring = "encoder:\n  id: x\n  options:\n    r0: 99999\n" + "".join(
        f'    r{i}: "$@encoder::options::r{i - 1} * @encoder::options::r{i - 1}"\n' for i in range(1, 14)
    )
    return {
        "aliases": aliases,
        "references": references,
        "doubled text": doubling,
        "squared numbers": squaring,
        "depth, flow": "a: " + "[" * 100_000,
        "depth, block": "- " * 100_000,
        "depth, mapping": "{a: " * 100_000,
        "width": "[" + "1," * 400_000 + "]",
        "itself": "a: &a [*a]",
        "itself, mapping": "&a {b: *a}",
        "digits": "seed: " + "9" * 100_000,
        "digits of a real": "seed: 1." + "9" * 100_000,
        "large file": "#" * (1 << 21),
    }


@pytest.mark.parametrize("name", bombs())
def test_bomb_is_refused_before_it_goes_off(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, bombs()[name])

    with memory_below(100), pytest.raises(ConfigError):
        load_bundle(folder)


def test_pipe_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "train.yaml"
    os.mkfifo(pipe)

    with pytest.raises(ConfigError, match="regular file"):
        load_bundle(pipe)


@pytest.mark.parametrize("labels", ["../labels.csv", "/etc/passwd", "a/../../b.csv"])
def test_labels_outside_of_the_data_are_unsafe(labels: str, tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD.replace("source: images", f"source: images, labels: {labels}"))

    with pytest.raises(UnsafeError, match=r"below data\.source"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden", "a b", "-x", "x\x1b[31m"])
def test_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD + f"name: {json.dumps(name)}\n")

    with pytest.raises(ConfigError):
        load_bundle(folder)


def test_messages_never_carry_terminal_control(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD + '"\\e[31mred": 1\n')

    with pytest.raises(ConfigError) as refused:
        load_bundle(folder)

    assert "\x1b" not in str(refused.value)


def test_refusing_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD.replace("Classification", "torch.hub.load"))
    program = (
        "import sys; from pathlib import Path; from medxfer.bundle.parser import load_bundle\n"
        "from medxfer.errors import UnsafeError\n"
        f"try: load_bundle(Path({str(folder)!r}))\n"
        "except UnsafeError as error:\n"
        "    sys.exit(7 if {'torch', 'monai'} & set(sys.modules) else error.exit_code)\n"
    )

    finished = subprocess.run([sys.executable, "-c", program], check=False)

    assert finished.returncode == 5


def test_trust_runs_what_the_user_has_read(tmp_path: Path) -> None:
    text = GOOD.replace("lr: 1e-3", 'lr: "$float(np.sqrt(1e-6))"').replace(
        "classes: [a, b]", 'x: "$[@seed, 1]"'
    )
    folder = write(tmp_path, "seed: 3\n" + text.replace("Classification", "collections.OrderedDict"))

    with pytest.raises(UnsafeError):
        load_bundle(folder)
    bundle = load_bundle(folder, trust=True)

    assert bundle.trusted
    assert bundle.phases[0].lr == pytest.approx(1e-3)
    assert bundle.task.target == "collections.OrderedDict"
    assert bundle.task.arguments == {"x": "$[3, 1]"}
    (folder / "configs" / "train.yaml").write_text(to_yaml(bundle), encoding="utf-8")
    assert load_bundle(folder, trust=True) == bundle
    with pytest.raises(UnsafeError):
        load_bundle(folder)


def test_trusted_text_that_fails_is_explained(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD.replace("lr: 1e-3", 'lr: "$float(nothing)"'))

    with pytest.raises(ConfigError, match="nothing"):
        load_bundle(folder, trust=True)


def test_every_refusal_is_a_medxfer_error(tmp_path: Path) -> None:
    for text in (
        "\x00",
        "a: \x00",
        "\ud7ff: 1",
        "- 1",
        "a",
        "[",
        "{",
        "a: b: c",
        "\ta: 1",
        "%YAML 9.9\n---\na: 1",
        "--- a\n--- b",
    ):
        with pytest.raises(MedxferError) as refused:
            load_bundle(write(tmp_path, text))
        assert refused.value.exit_code == 2, text
