"""How much a piece of code may take; never how long, which is the machine's affair."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_below(megabytes: float) -> Iterator[None]:
    """Fail where Python and NumPy allocate more at any moment inside."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 1e6, f"{peak / 1e6:.0f} MB at the peak, {megabytes} MB allowed"
