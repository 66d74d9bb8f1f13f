from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medxfer.data.synthetic import SOURCES


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A set of a few images, made once; tests only read it."""
    made: dict[tuple[str, int], Path] = {}

    def folder(name: str, count: int) -> Path:
        if (name, count) not in made:
            made[name, count] = tmp_path_factory.mktemp(name)
            SOURCES[f"synthetic.{name}"].write(made[name, count], count=count, seed=4, advance=None)
        return made[name, count]

    return folder
