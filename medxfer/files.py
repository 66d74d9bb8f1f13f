"""Files written whole or not at all, locks, hashes, free space and the place where medxfer keeps things."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import ConfigError, RunError

AT_ONCE = 2**20  # bytes of a file read by `read_small`
_BINARY = getattr(os, "O_BINARY", 0)  # of Windows


def home() -> Path:
    """`MEDXFER_HOME`, or the platform's cache folder for medxfer. Made when absent."""
    given = os.environ.get("MEDXFER_HOME")
    if given:
        folder = Path(given).expanduser()
    else:
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("medxfer", appauthor=False))
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # cached images of patients
    return folder


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into a RunError that names the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            todo = "free some space, or name another folder with --out or MEDXFER_HOME"
            raise RunError(str(path), "no space left on the device", "room for the file", todo) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            todo = "change the folder's permissions, or name another one with --out or MEDXFER_HOME"
            raise RunError(
                str(path), f"cannot write here: {error.strerror}", "a writable folder", todo
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise RunError(
                str(path), f"{error.strerror}", "a folder", "name another folder with --out"
            ) from error
        raise RunError(
            str(path), f"{error.strerror or error}", "a readable and writable disk", "check the disk"
        ) from error


def write_atomic(path: Path, content: str | bytes | Callable[[Path], None]) -> Path:
    """Write a file so that readers find the old content or the new one, never a mix.

    Args:
        path: Where it goes; the folder is made.
        content: Text (UTF-8), bytes, or a function that writes to the temporary path it is given.

    Returns:
        `path`.

    Raises:
        ConfigError: `path` is a folder.
        RunError: No space, no permission, or another fault of the disk; nothing is left behind.
    """
    if path.is_dir() or not path.name:
        raise ConfigError(str(path), "a folder", "the name of a file", "name a file in it")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; a no-op where folders cannot be opened (Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: object) -> Path:
    """Write plain data as indented JSON, atomically."""
    return write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=True) + "\n")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content; a large file is read in pieces."""
    size = path.stat().st_size
    if size <= AT_ONCE:
        return hashlib.sha256(read_small(path, size)[0]).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path, size: int) -> tuple[bytes, os.stat_result]:
    """Content of a file that is `size` bytes long, and what the open file is then.

    By the system's calls: a third of the time of `open`, which counts where a data set is many small pictures.
    """
    handle = os.open(path, os.O_RDONLY | _BINARY)
    try:
        content = os.read(handle, size + 1)
        while len(content) != size and (more := os.read(handle, AT_ONCE)):
            content += more
        return content, os.fstat(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, size_bytes: int) -> None:
    """Refuse to begin what will not fit.

    Raises:
        RunError: Less than `size_bytes` is free where `folder` is or will be.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size_bytes:
        needed = f"{size_bytes / 1e6:.0f} MB free"
        todo = "free some space, or name another folder with --out or MEDXFER_HOME"
        raise RunError(str(folder), f"{free / 1e6:.0f} MB free", needed, todo)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; a dead holder's lock is free at once.

    Raises:
        RunError: Another process holds it; its number and machine are named.
    """
    import fcntl

    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            todo = "wait for it to end, or stop it; then run the same command again"
            raise RunError(
                str(path.parent), f"in use by {holder}", "one process a run folder", todo
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
