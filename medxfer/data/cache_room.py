"""The bound of the cache: entries not used for longest go when all together are larger than a limit."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from ..errors import DataError
from ..progress import Progress

LIMIT_BYTES = 50 * 2**30  # of all entries; the variable MEDXFER_CACHE_BYTES replaces it
STALE_S = 24 * 3600  # a half-written entry this old belongs to a process that was killed


def limit_bytes() -> int:
    """What the cache may hold.

    Raises:
        DataError: The variable is no positive whole number.
    """
    text = os.environ.get("MEDXFER_CACHE_BYTES")
    if text is None:
        return LIMIT_BYTES
    if not text.isdecimal() or int(text) == 0:
        todo = f"unset it; the default is {LIMIT_BYTES}"
        raise DataError("MEDXFER_CACHE_BYTES", repr(text), "a positive whole number of bytes", todo)
    return int(text)


def mark_used(entry: Path) -> None:
    """Remember that an entry was used now; a cache that cannot be written is used as it is."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def make_room(cache: Path, kept: Path, say: Progress) -> None:
    """Remove entries, the one not used for longest first, until all of them fit the limit.

    An entry that another process has mapped stays readable for it (POSIX keeps a removed file while it is open); a
    process that was about to open it finds it gone and fills it again.

    Args:
        cache: The folder of all entries.
        kept: The entry of this run, never removed.
        say: Told what was removed.
    """
    limit = limit_bytes()
    entries = []
    for folder in _folders(cache):
        if folder.name.startswith("."):
            if time.time() - _used(folder) > STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
        else:
            entries.append((_used(folder), _size(folder), folder))
    total, gone, freed = sum(size for _, size, _ in entries), 0, 0
    for _, size, folder in sorted(entries, key=lambda entry: entry[0]):
        if total - freed <= limit:
            break
        if folder != kept and _removed(folder):
            gone, freed = gone + 1, freed + size
    if gone:
        say(
            f"cache: removed {gone} entries ({freed / 1e6:.0f} MB) that were not used for longest; it may hold "
            f"{limit / 1e9:.1f} GB (MEDXFER_CACHE_BYTES)"
        )
    if total - freed > limit:
        say.warn(
            f"the cache holds {(total - freed) / 1e9:.2f} GB, more than the {limit / 1e9:.2f} GB of "
            "MEDXFER_CACHE_BYTES: this run's own images are that large"
        )


def _removed(folder: Path) -> bool:
    """Out of sight in one step, so that nobody opens half an entry, then removed."""
    aside = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    try:
        folder.rename(aside)
    except OSError:  # another process was faster, or the system keeps files that are open
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _folders(cache: Path) -> list[Path]:
    return [one for one in cache.iterdir() if one.is_dir()] if cache.is_dir() else []


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total
