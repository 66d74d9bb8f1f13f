"""The doors through which data become code stay shut: eval, exec, pickle, shells. No list of exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guards.source import MODULES, PLUGIN_MODULES, imports_of, name_of, tree_of

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__",
    "builtins.eval", "builtins.exec", "os.system", "os.popen",
    "torch.export.load", "torch.jit.load", "torch.package.PackageImporter",
    "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all",
}  # fmt: skip
FORBIDDEN_IMPORTS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
SAFE_YAML = {"SafeLoader", "CSafeLoader"}


def dotted(node: ast.expr) -> str:
    """`torch.load` for the expression that says so; empty for anything more involved."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def is_constant(call: ast.Call, name: str, value: object) -> bool:
    """Whether a keyword argument is written out as `value`."""
    return any(
        keyword.arg == name and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in call.keywords
    )


def has_safe_loader(call: ast.Call, tree: ast.Module) -> bool:
    """Whether `yaml.load` is given a safe loader, by its name or by one that stands for safe loaders only."""
    given = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "Loader")]
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if given and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            names = {each.id for each in targets if isinstance(each, ast.Name)}
            given = [node.value if dotted(each) in names else each for each in given]
    words = {word for each in given for part in ast.walk(each) if "Loader" in (word := last_word(part))}
    return bool(words) and words <= SAFE_YAML


def last_word(node: ast.AST) -> str:
    """`SafeLoader` for `yaml.SafeLoader`, for `SafeLoader` and for the text "SafeLoader"."""
    word = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", getattr(node, "value", ""))
    return word if isinstance(word, str) else ""


def faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and reason of every call that would run code out of data."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in FORBIDDEN_CALLS:
            yield node.lineno, f"calls {name}"
        if name == "torch.load" and not is_constant(node, "weights_only", True):
            yield node.lineno, "torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and is_constant(node, "allow_pickle", True):
            yield node.lineno, "numpy.load with allow_pickle=True"
        if name in ("yaml.load", "yaml.load_all") and not has_safe_loader(node, tree):
            yield node.lineno, "yaml.load with a loader that is not visibly a safe one"
        if is_constant(node, "shell", True):
            yield node.lineno, "starts a shell"


def brings_code(name: str) -> bool:
    """Whether an import opens a door; an exception alone (`from pickle import UnpicklingError`) does not."""
    return name.split(".")[0] in FORBIDDEN_IMPORTS and not name.endswith("Error")


@pytest.mark.parametrize("path", [*MODULES, *PLUGIN_MODULES], ids=name_of)
def test_no_door_from_data_to_code(path: Path) -> None:
    found = [f"{name_of(path)}:{line} {reason}" for line, reason in faults(tree_of(path))]
    found += [
        f"{name_of(path)} imports {name}"
        for name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN_IMPORTS
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import builtins\nbuiltins.exec('x = 1')",
        "import torch\ntorch.load('a.pt')",
        "import torch\ntorch.load('a.pt', weights_only=False)",
        "import torch\ntorch.load('a.pt', weights_only=flag)",
        "import torch\ntorch.export.load('a.pt2')",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.load(text, Loader=loader)",
        "import yaml\nloader = yaml.FullLoader\nyaml.load(text, Loader=loader)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
    ],
)
def test_the_guard_sees_each_door(source: str) -> None:
    assert list(faults(ast.parse(source)))


def test_the_guard_lets_sound_code_pass() -> None:
    source = """
network.eval()
re.compile("a")
torch.load(path, weights_only=True)
np.load(path)
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
yaml.load(text, Loader=loader)
yaml.load(text, Loader=yaml.SafeLoader)
"""

    assert not list(faults(ast.parse(source)))
