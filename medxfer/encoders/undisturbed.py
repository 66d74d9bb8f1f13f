"""Run a plugin's code so that nothing of it stays behind or comes out on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put back torch's, Python's and NumPy's random state, on every device in use, and torch's number of threads.

    What is printed inside goes to stderr: stdout belongs to results, JSON among them.
    """
    import random

    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def cause_of(error: BaseException) -> str:
    """An exception in one line: its kind and the first line of its text."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
