"""What others may import is small, listed, sorted, documented and annotated."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

import medxfer
from tests.guards.source import PACKAGE

PUBLIC = ["medxfer", "medxfer.plugin"]
if (PACKAGE / "testing" / "__init__.py").stat().st_size:  # a promise once it holds something
    PUBLIC.append("medxfer.testing")


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_public_names_are_sorted_and_there(module: ModuleType) -> None:
    names = list(module.__all__)

    assert names == sorted(names), f"{module.__name__}.__all__ is not sorted"
    assert not [name for name in names if not hasattr(module, name)]


def test_public_names_are_documented_and_annotated(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        assert inspect.getdoc(value), f"{module.__name__}.{name} has no docstring"
        if inspect.isfunction(value):
            parameters = inspect.signature(value).parameters
            bare = [key for key, each in parameters.items() if each.annotation is inspect.Parameter.empty]
            assert not bare, f"{module.__name__}.{name}: {bare} without types"
            assert "return" in value.__annotations__, f"{module.__name__}.{name} does not say what it returns"


def test_nothing_else_of_ours_is_public(module: ModuleType) -> None:
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }

    assert own <= set(module.__all__), (
        f"{module.__name__}: {sorted(own - set(module.__all__))} not in __all__"
    )


def test_names_are_found_on_first_use_and_an_unknown_one_is_an_attribute_error() -> None:
    assert set(medxfer.__all__) <= set(dir(medxfer))

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = medxfer.no_such_name
