"""The plugin on the page "Bring your own encoder" works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "bring-your-own-encoder.md"

USE = """
import sys
from medxfer.encoders.registry import card_of, list_encoders
assert "tinyconv" in [one.id for one in list_encoders()]
card = card_of("tinyconv")
assert "medxfer_tinyconv" not in sys.modules, "the card was not read without the package"

import torch
import medxfer
for dims in sorted(card.spatial_dims):
    encoder, receipt = medxfer.create_encoder("tinyconv", in_channels=3, spatial_dims=dims)
    assert sum(p.numel() for p in encoder.parameters()) == card.parameters[dims], "parameters"
    sizes = (64, 96, 32)[:dims]
    maps = encoder(torch.rand(2, 3, *sizes))
    assert tuple(one.shape[1] for one in maps) == card.channels == encoder.channels, "channels"
    assert card.strides_in(dims) == encoder.strides, "strides"
    for one, strides in zip(maps, encoder.strides):
        assert tuple(one.shape[2:]) == tuple(n // s for n, s in zip(sizes, strides)), "sizes"
print("sound")
"""


def block_after(text: str, name: str) -> str:
    """The code block that follows the line naming a file."""
    found = re.search(rf"^`{re.escape(name)}`:\n\n```[a-z]+\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"the page shows no {name}"
    return found[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as an installation would leave it: the package, and what its pyproject declares."""
    text = PAGE.read_text(encoding="utf-8")
    package = tmp_path / "medxfer_tinyconv"
    about = tmp_path / "medxfer_tinyconv-0.1.0.dist-info"
    package.mkdir()
    about.mkdir()
    for name in ("__init__.py", "cards.yaml"):
        (package / name).write_text(block_after(text, f"medxfer_tinyconv/{name}"), encoding="utf-8")
    project = tomllib.loads(block_after(text, "pyproject.toml"))["project"]
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_the_plugin_on_the_page_is_found_built_and_as_its_card_says(site: Path) -> None:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "sound", done.stderr
