"""Lower layers never import upper ones, and the middle does not know which task it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.guards.source import MODULES, PACKAGE, imports_of, name_of, tree_of

LAYERS = [
    ["errors"],
    ["files", "progress", "cards"],
    ["plugin", "run_folder"],
    ["bundle"],
    ["surroundings"],
    ["data"],
    ["encoders"],
    ["networks"],
    ["testing", "evaluation"],
    ["tasks"],
    ["training"],
    ["trained"],
    ["reports", "export"],
    ["pipeline"],
    ["methods", "pretraining"],
    ["cli"],
    ["__init__"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# The same inside `data`. What makes data (synthetic) and what looks at it (inspect) stand on top.
DATA_ORDER = [
    "cases", "splits", "series", "readers", "writers", "presets",
    "cache", "leaks", "augment", "loaders", "inspect",
]  # fmt: skip
DATA_LEVEL = {name: level for level, name in enumerate(DATA_ORDER)}


def parts_imported_by(path: Path) -> set[str]:
    """First-level parts of medxfer that a file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("medxfer.")} - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_lower_layers(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{name_of(path)}: nobody gave `{own}` a layer; add it to LAYERS where it belongs"

    unknown = parts_imported_by(path) - set(LEVEL)
    wrong = {part for part in parts_imported_by(path) - {own} - unknown if LEVEL[part] >= LEVEL[own]}

    assert not unknown, f"{name_of(path)} imports {sorted(unknown)}, which is no part of medxfer"
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}, not below it: pass the value down instead"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").glob("*.py")), ids=name_of)
def test_data_goes_one_way_inside_the_package(path: Path) -> None:
    own = DATA_LEVEL.get(path.stem, len(DATA_ORDER))

    inside = {name.split(".")[2] for name in imports_of(path) if name.startswith("medxfer.data.")}
    wrong = {part for part in inside - {path.stem} if DATA_LEVEL.get(part, -1) >= own}

    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}, not below it: pass the value down instead"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_synthetic_data_are_a_source_and_nothing_more(path: Path) -> None:
    if path.parent.name == "synthetic" or path == PACKAGE / "data" / "sources.py":
        return  # the source itself, and the one place that opens a bundle's data source

    taken = {name for name in imports_of(path) if name.startswith("medxfer.data.synthetic")}

    assert not taken, f"{name_of(path)} imports {sorted(taken)}: only a bundle's data source may"


MIDDLE = [path for path in MODULES if path.name == "pipeline.py" or path.parent.name == "training"]


@pytest.mark.parametrize("path", MIDDLE, ids=name_of)
def test_the_middle_does_not_know_tasks(path: Path) -> None:
    words = {"classification", "segmentation", "Classification", "Segmentation"}

    for node in ast.walk(tree_of(path)):
        values = [getattr(node, field, None) for field in ("id", "attr", "name", "value")]
        found = {value for value in values if isinstance(value, str)} & words
        assert not found, (
            f"{name_of(path)}:{getattr(node, 'lineno', 0)} asks which task it is ({sorted(found)})"
        )
