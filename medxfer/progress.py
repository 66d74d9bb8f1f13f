"""What people see while work goes on: a bar on a terminal, plain lines elsewhere, nothing when silent."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

# Without a handler Python itself would print warnings a second time.
logging.getLogger("medxfer").addHandler(logging.NullHandler())


class Advance(Protocol):
    """Called as work goes on; `note` is short text such as `loss 0.31`."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """So many steps are done."""


class Progress:
    """Says things on stderr.

    Args:
        quiet: Warnings only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._log = logging.getLogger("medxfer")

    def __call__(self, text: str) -> None:
        """Say a sentence."""
        self._log.info(text)
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Say what the user should change; said even when quiet."""
        self._log.warning(text)
        sys.stderr.write(f"warning: {text}\n")
        sys.stderr.flush()

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Show `total` steps of work with rate and time left.

        Yields:
            A function to call after each step, or with a number of steps.
        """
        if self.quiet or total == 0:
            yield _nothing
        elif sys.stderr.isatty():
            yield from self._rich_bar(title, total)
        else:
            yield from self._plain_lines(title, total)

    def _rich_bar(self, title: str, total: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        start, done = time.monotonic(), 0
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(title, total=total, note="", rate="")

            def advance(steps: int = 1, note: str = "") -> None:
                nonlocal done
                done += steps
                shown.update(task, advance=steps, note=note, rate=_rate(done, time.monotonic() - start))

            yield advance
        self._finished(title, done, start)

    def _plain_lines(self, title: str, total: int) -> Iterator[Advance]:
        start, done, said = time.monotonic(), 0, time.monotonic()

        def advance(steps: int = 1, note: str = "") -> None:
            nonlocal done, said
            done += steps
            now = time.monotonic()
            if now - said > 10 and done < total:
                said = now
                left = (now - start) / done * (total - done)
                rate = _rate(done, now - start)
                self(f"{title}: {done} of {total}, {rate}, {left:.0f} s left{', ' + note if note else ''}")

        yield advance
        self._finished(title, done, start)

    def _finished(self, title: str, done: int, start: float) -> None:
        self._log.debug("%s: %d in %.1f s", title, done, time.monotonic() - start)


def _rate(done: int, seconds: float) -> str:
    """Steps a second, or seconds a step where those are many."""
    rate = done / max(seconds, 1e-9)
    return f"{rate:.1f}/s" if rate >= 0.5 else f"{1 / max(rate, 1e-9):.1f} s each"


def _nothing(steps: int = 1, note: str = "") -> None:
    """The bar of a silent run."""


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Keep everything that is said, and the developers' debug lines, in a file as well."""
    logger = logging.getLogger("medxfer")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
