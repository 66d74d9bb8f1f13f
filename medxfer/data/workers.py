"""Work on many cases side by side, in order, with memory that does not grow with their number.

Small files are read in processes, since what is done around their decoding needs the interpreter, which one thread
of a process has at a time; large ones in threads, whose results need not be carried over.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import RunError

READERS = 2  # threads or processes
FORKED_FROM = 256  # rows: two processes start in 20 ms, what 100 small pictures take
_AHEAD = 2  # pieces that wait for a reader, or for their turn, beside those worked on
_MOST = 64  # rows of a piece: handing over costs as much as reading one small picture
_PIECE_BYTES = 2**21  # of a piece's files: its results stay below a few tens of MB
_SAMPLE = 64  # cases whose files are weighed

_Result = TypeVar("_Result")
_Work = Callable[[list[Any]], list[_Result]]


def in_order(function: Callable[..., _Result], *columns: Sequence[Any]) -> Iterator[_Result]:
    """`map` in threads: results in order, few of them kept at a time, and none begun after a fault or Ctrl-C.

    Args:
        function: Takes one value of each column.
        columns: Equally long.
    """
    most = min(16, 1 + len(columns[0]) // 256)
    with at_work(lambda rows: [function(*row) for row in rows], *columns, most=most, forked=False) as results:
        yield from results


@contextlib.contextmanager
def at_work(
    function: _Work[_Result], *columns: Sequence[Any], most: int, forked: bool | None = None
) -> Iterator[Iterator[_Result]]:
    """Results of `function` in order, few of them kept at a time; the readers are gone when the block is left.

    Work has begun when the block is entered: processes are forked before a bar starts its thread.

    Args:
        function: From rows, tuples of one value of each column, to as many results, the same wherever it runs.
        columns: Equally long.
        most: Rows that it is given at once, by `rows_at_once`.
        forked: Whether processes do it; None: where there are many rows of small files, and the platform forks.

    Raises:
        RunError: From the results, where a process was killed.
    """
    rows = list(zip(*columns, strict=True))
    if forked is None:
        forked = most > 1 and len(rows) >= FORKED_FROM and can_fork()
    task = _Task(function, rows)
    pool: Executor | None = _processes(task) if forked else None
    work: Callable[[int, int], list[_Result]] = _piece_of_task
    if pool is None:
        pool, work = ThreadPoolExecutor(READERS), task.piece
    try:
        yield _results(pool, work, len(rows), most)
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: Executor, work: Callable[[int, int], list[_Result]], count: int, most: int
) -> Iterator[_Result]:
    """Begin at once; give results piece by piece, and a reader the next piece for each that was taken."""
    begins = iter(range(0, count, most))
    waiting: deque[tuple[int, Future[list[_Result]]]] = deque()

    def submit(number: int) -> None:
        for begin in itertools.islice(begins, number):
            waiting.append((begin, pool.submit(work, begin, begin + most)))

    def results() -> Iterator[_Result]:
        while waiting:
            begin, last = waiting[0][0], min(waiting[-1][0] + most, count)
            try:
                done = waiting[0][1].result()
                waiting.popleft()
                submit(1)
            except BrokenProcessPool:
                raise _killed(begin, last, count) from None
            yield from done

    with warnings.catch_warnings():
        # Python 3.12 remarks on forks beside threads, such as a bar's: a reader takes no lock that they may hold.
        warnings.filterwarnings("ignore", r".*multi-threaded.*fork", DeprecationWarning)
        submit(READERS + _AHEAD)
    return results()


def rows_at_once(files: Sequence[Sequence[Path]]) -> int:
    """How many cases are worked on at once: many of small pictures, one of large files and of folders.

    Args:
        files: Of each case; some of them are weighed.
    """
    sizes = [1]
    for paths in files[:: max(1, len(files) // _SAMPLE)]:
        with contextlib.suppress(OSError, ValueError):  # the reader says what is wrong with it
            sizes.append(sum(_PIECE_BYTES if one.is_dir() else one.stat().st_size for one in paths))
    # At least 16 pieces a reader of small sets, so that none waits for the other at the end.
    return max(1, min(_MOST, 1 + len(files) // (16 * READERS), _PIECE_BYTES // max(sizes)))


def can_fork() -> bool:
    """Whether processes begin with what this one has in memory: Linux, and no worker itself."""
    # macOS has fork as well, but its own libraries do not survive it.
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


@dataclass(frozen=True, slots=True)
class _Task:
    """The work and its rows, in a forked process without being sent there."""

    function: _Work[Any]
    rows: list[Any]

    def piece(self, begin: int, end: int) -> list[Any]:
        return self.function(self.rows[begin:end])


_OWN: list[_Task] = []  # of a forked process, one for its whole life


def _processes(task: _Task) -> Executor | None:
    """Processes that will have the task; None where the system has no means for them."""
    try:
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(READERS, mp_context=context, initializer=_begin, initargs=(task,))
    except (OSError, NotImplementedError):  # no semaphores: a container without /dev/shm
        return None


def _begin(task: _Task) -> None:
    """Make a forked process a quiet reader that never outlives its parent."""
    import torch

    _OWN.append(task)
    gc.freeze()  # what was inherited is not looked through again: its pages stay shared
    # glibc raises what it keeps to what was freed once (mallopt(3), M_MMAP_THRESHOLD; 32 MB at most); else the
    # arrays of every piece are given back to the system and taken again, page by page: a tenth of the time.
    np.empty(2**25 - 2**16, np.uint8)
    torch.set_num_threads(1)  # OpenMP's threads are not forked
    # The parent is told as well, and ends the pool: by SIGTERM where a reader was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _piece_of_task(begin: int, end: int) -> list[Any]:
    return _OWN[0].piece(begin, end)


def _killed(begin: int, end: int, count: int) -> RunError:
    return RunError(
        "reading",
        f"a process that read was killed, at one of the cases {begin + 1} to {end} of {count}",
        "memory enough, and files at which no decoder crashes",
        "free some memory and run again; where it ends there again, look at these files with `medxfer inspect` and "
        "list the one at fault in data.exclude",
    )
