"""`medxfer --help` and listing encoders answer at once: nothing heavy is imported for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "monai", "pydicom", "nibabel", "sklearn", "scipy", "matplotlib", "skimage", "itk")
LIGHT = (
    "medxfer",
    "medxfer.errors",
    "medxfer.files",
    "medxfer.progress",
    "medxfer.cards",
    "medxfer.run_folder",
    "medxfer.bundle.schema",
    "medxfer.bundle.parser",
    "medxfer.bundle.components",
    "medxfer.encoders.registry",
    "medxfer.cli",
)


@pytest.mark.parametrize("module", LIGHT)
def test_import_brings_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), (
        f"import {module} brings {done.stdout.split()}: import them inside functions"
    )


def test_listing_encoders_brings_nothing_heavy() -> None:
    code = (
        "import sys\nfrom medxfer.encoders.registry import list_encoders\n"
        f"assert list_encoders()\nprint(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"listing encoders brings {done.stdout.split()}"


def test_help_brings_nothing_heavy() -> None:
    """What keeps `medxfer --help` under half a second; `benchmarks/start_up.py` measures it."""
    code = (
        "import sys\nfrom medxfer.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', *sorted({set(HEAVY)!r} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "heavy:", done.stdout.splitlines()[-1]
