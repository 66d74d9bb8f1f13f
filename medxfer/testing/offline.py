"""No network while an encoder is checked; what it reaches for is written down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WEIGHTS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".npz", ".h5")
_watched: list[list[str]] = []  # one list for each open `reaching_out`, the innermost last
_installed = False


@contextmanager
def reaching_out() -> Iterator[list[str]]:
    """Refuse the network inside; yields what was reached for, network and weights files, as it comes."""
    global _installed
    if not _installed:
        sys.addaudithook(_audit)  # it stays for good: there is no way to take one off
        _installed = True
    seen: list[str] = []
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched:
        return
    if event == "open" and str(arguments[0]).endswith(_WEIGHTS):
        _watched[-1].append(f"the file {arguments[0]}")
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # a path is a socket of this machine
        _refuse(f"{arguments[1][0]}:{arguments[1][1]}")
    elif event == "socket.getaddrinfo":
        _refuse(str(arguments[0]))


def _refuse(host: str) -> None:
    _watched[-1].append(host)
    raise RuntimeError(f"the network is refused while an encoder is checked; it asked for {host}")
