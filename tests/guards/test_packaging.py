"""The wheel holds what the code reads; what is imported is declared, what is declared is imported."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.guards.source import MODULES, PACKAGE, PLUGIN_MODULES, REPOSITORY, imports_of, name_of

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Import name -> distribution, where the two differ.
DISTRIBUTION = {
    "PIL": "pillow", "SimpleITK": "simpleitk", "ignite": "pytorch-ignite", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip
# Declared and never imported by us, with who imports it.
LOADED_BY_OTHERS = {
    "onnx": "torch.onnx.export writes through it",
    "onnxscript": "torch.onnx.export(dynamo=True) is written on it",
    "pylibjpeg": "pydicom finds decoders by name",
    "pylibjpeg-libjpeg": "pydicom finds decoders by name",
    "pylibjpeg-openjpeg": "pydicom finds decoders by name",
}
PLUGINS = sorted((REPOSITORY / "plugins").glob("*/pyproject.toml"))


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    found = {re.match(r"[A-Za-z0-9._-]+", line) for line in requirements}
    return {normal(each[0]) for each in found if each}


def distributions_imported(paths: list[Path]) -> dict[str, str]:
    """Distribution -> one file that imports it."""
    found: dict[str, str] = {}
    for path in paths:
        for name in imports_of(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names:
                found[normal(DISTRIBUTION.get(top, top))] = name_of(path)
    return found


DECLARED = names_of(PROJECT["dependencies"])
EXTRAS = {name: names_of(lines) for name, lines in PROJECT["optional-dependencies"].items()}
RUNTIME_EXTRAS = set().union(*(names for extra, names in EXTRAS.items() if extra != "dev"))


def test_each_import_is_declared() -> None:
    # The kit in `testing` is called by tests: pytest is there, and imported nowhere else.
    kit = {path for path in MODULES if path.parent == PACKAGE / "testing"}
    allowed = DECLARED | RUNTIME_EXTRAS | {"medxfer"}

    missing = distributions_imported([path for path in MODULES if path not in kit]).keys() - allowed
    missing |= distributions_imported(sorted(kit)).keys() - allowed - {"pytest"}

    assert not missing, f"imported and not in pyproject.toml: {sorted(missing)}"


def test_each_dependency_is_imported_somewhere() -> None:
    imported = set(distributions_imported(MODULES))

    idle = (DECLARED | RUNTIME_EXTRAS) - imported - set(LOADED_BY_OTHERS)

    assert not idle, f"in pyproject.toml and imported nowhere: {sorted(idle)}"


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_a_plugin_declares_what_it_imports(path: Path) -> None:
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    modules = [module for module in PLUGIN_MODULES if path.parent in module.parents]

    missing = (
        set(distributions_imported(modules)) - names_of(project["dependencies"]) - {normal(project["name"])}
    )

    assert not missing, f"{name_of(path)} does not declare {sorted(missing)}"


def test_dependencies_have_a_range_and_a_reason() -> None:
    lines = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    requirements = [line for line in lines if re.match(r'\s+"[A-Za-z].*[<>=]=?\d.*",', line)]

    assert len(requirements) >= len(DECLARED)
    assert not [
        line for line in requirements if "#" not in line and "pytest" not in line and ">=" not in line
    ]
    assert not [line for line in PROJECT["dependencies"] if ">=" not in line]


def test_constraints_pin_every_dependency_from_the_index() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    odd = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)]
    assert not odd, f"neither a place on a disk nor a local version belongs here: {odd}"
    wanted = DECLARED | set().union(*EXTRAS.values()) - {"medxfer"}
    assert not wanted - names_of(pins), f"not pinned: {sorted(wanted - names_of(pins))}"
    assert "torch==2.13.0" in pins


def test_entry_points_are_installed_as_declared() -> None:
    installed = {
        (entry.group, entry.name): entry.value
        for entry in importlib.metadata.distribution("medxfer").entry_points
    }

    declared = {("console_scripts", name): value for name, value in PROJECT["scripts"].items()}
    for group, entries in PROJECT["entry-points"].items():
        declared |= {(group, name): value for name, value in entries.items()}

    assert installed == declared, "pyproject.toml changed since the installation: run `make test` again"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names inside the wheel, built from the working tree without network (about 1 s)."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def test_the_wheel_holds_code_and_data(wheel_names: set[str]) -> None:
    kept = {
        path.relative_to(REPOSITORY).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert not kept - wheel_names, f"not in the wheel: {sorted(kept - wheel_names)}"
    assert "medxfer/encoders/cards.yaml" in wheel_names
    for pattern in (r"medxfer/encoders/keymaps/", r"medxfer/reports/templates/", r".*schema.*\.json$"):
        assert any(re.match(pattern, name) for name in wheel_names), f"the wheel holds nothing like {pattern}"
    assert any(name.endswith("licenses/LICENSE") for name in wheel_names)


def test_the_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"medxfer"}
