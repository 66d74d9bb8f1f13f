"""What the guards look at: the project's own source files and what they import."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "medxfer"
MODULES = sorted(PACKAGE.rglob("*.py"))
PLUGIN_MODULES = sorted(
    path
    for path in (REPOSITORY / "plugins").rglob("*.py")
    if "tests" not in path.relative_to(REPOSITORY).parts
)


def name_of(path: Path) -> str:
    """A file's path from the repository, as tests show it."""
    return path.relative_to(REPOSITORY).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The parsed source of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _importable(path: Path) -> Path:
    """A file's path from the folder that Python would find its package in."""
    inside = path.relative_to(REPOSITORY)
    return inside.relative_to(Path(*inside.parts[:3])) if inside.parts[2:3] == ("src",) else inside


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports anywhere: in functions and for types only, too."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:  # from ..errors import X
            base = list(_importable(path).parts)[: -node.level]
            names |= {".".join([*base, *(node.module or alias.name).split(".")]) for alias in node.names}
            if node.module:
                names |= {".".join([*base, *node.module.split("."), alias.name]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
