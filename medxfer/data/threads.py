"""Work on many cases in threads, in order, with memory that does not grow with their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

READERS = 2  # threads; Pillow, pydicom and torch release the interpreter while they work

_Result = TypeVar("_Result")


def in_order(
    function: Callable[..., _Result], *columns: Sequence[Any], threads: int = READERS
) -> Iterator[_Result]:
    """`map` in threads: results in order, few of them kept at a time, and none begun after a fault or Ctrl-C.

    Args:
        function: Takes one value of each column.
        columns: Equally long.
        threads: That work at once.
    """
    return pieces_in_order(lambda rows: [function(*row) for row in rows], *columns, threads=threads)


def pieces_in_order(
    function: Callable[[list[Any]], list[_Result]], *columns: Sequence[Any], threads: int = READERS
) -> Iterator[_Result]:
    """`in_order` for a function that gains by several rows at once.

    Many cases go several at once to a thread: handing over a small picture alone costs a tenth of reading it.

    Args:
        function: From rows, tuples of one value of each column, to as many results.
        columns: Equally long.
        threads: That work at once.
    """
    rows = list(zip(*columns, strict=True))
    size = min(16, 1 + len(rows) // 256)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[list[_Result]]] = deque()
    try:
        for begin in range(0, len(rows), size):
            waiting.append(pool.submit(function, rows[begin : begin + size]))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
