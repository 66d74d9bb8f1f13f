from __future__ import annotations

from pathlib import Path

import pytest

from medxfer.run_folder import RunFolder
from tests.reports.made_run import make_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two classes, synthetic; tests only read it or draw it again."""
    return make_run(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="session")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Real data by name, far better on val than on test."""
    return make_run(tmp_path_factory.mktemp("shifted"), strength={"val": 4.5, "test": 0.1}, kind="given")


@pytest.fixture
def copied(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A run folder to be changed."""
    import shutil

    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")
