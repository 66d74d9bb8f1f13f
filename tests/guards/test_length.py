"""Advice, never a failure: modules over 400 lines and functions over 60 are listed as a warning."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest

from tests.guards.source import MODULES, PLUGIN_MODULES, name_of, tree_of


class LengthAdvice(UserWarning):
    """Something grew longer than a reader holds in mind."""


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def functions_of(path: Path) -> list[tuple[int, str]]:
    return [
        (length_of(node), f"{name_of(path)}:{node.lineno} {node.name}")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.filterwarnings("default")
def test_lengths_are_told() -> None:
    paths = [*MODULES, *PLUGIN_MODULES]
    modules = sorted(
        ((len(path.read_text(encoding="utf-8").splitlines()), name_of(path)) for path in paths), reverse=True
    )
    functions = sorted((each for path in paths for each in functions_of(path)), reverse=True)

    long_modules = [f"{name} ({lines} lines)" for lines, name in modules if lines > 400]
    long_functions = [f"{name} ({lines} lines)" for lines, name in functions if lines > 60]

    if long_modules or long_functions:
        told = f"{len(long_modules)} modules over 400 lines, {len(long_functions)} functions over 60: "
        warnings.warn(LengthAdvice(told + ", ".join(long_modules[:3] + long_functions[:3])), stacklevel=1)
