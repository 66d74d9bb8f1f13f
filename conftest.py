"""What every test of medxfer and of its plugins runs under: one thread, an own home, no network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported: two workers with a pool of threads each are slower than two with one,
# and sums taken by a varying number of threads differ in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).parent
SHARED = (ROOT / ".." / "shared").resolve()
LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse to leave this machine; an audit hook sees every library that goes through Python's sockets."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path: a socket of this machine
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in LOCAL:
        raise RuntimeError(f"a test asked the network for {host!r}: tests run offline")


sys.addaudithook(_refuse_network)

# No deadline: a busy machine is no defect. The same examples every time: what passed once passes again.
hypothesis.settings.register_profile("medxfer", deadline=None, derandomize=True)
hypothesis.settings.load_profile("medxfer")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty `MEDXFER_HOME`, one for each worker, so that no test finds what an earlier suite left."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDXFER_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and weights beside the repository; tests skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository: real images are not here")
    return SHARED
