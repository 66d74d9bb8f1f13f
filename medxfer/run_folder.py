"""The files of one run: names, formats, lock and status. Plain data in and out."""

from __future__ import annotations

import contextlib
import csv
import hmac
import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError, DataError
from .files import explained, locked, write_atomic, write_json

FileName = Literal[
    "run.json",
    "config.yaml",
    "split.csv",
    "receipt.json",
    "history.csv",
    "scores.json",
    "figures.json",
    "cases.json",
    "training_images.json",
    "report.html",
    "model_card.md",
    "log.txt",
    "predictions/val.csv",
    "predictions/test.csv",
    "checkpoints/last.pt",
    "checkpoints/previous.pt",
    "checkpoints/best.pt",
]

Rows = Sequence[Mapping[str, object]]


class RunFolder:
    """Knows names and formats, not what a score is, so that every layer may use it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path | None, name: str) -> RunFolder:
        """Make the folder of a new run.

        Args:
            root: The folder named by the user; None: `runs/NAME-DATE-TIME` in the working folder.
            name: The bundle's name.

        Raises:
            ConfigError: The named folder exists and is not empty.
            RunError: It cannot be made.
        """
        if root is None:
            root = default_root(name)
        elif root.exists() and not _is_free(root):
            todo = f"name another folder, or go on with it: medxfer run --resume {root}"
            raise ConfigError(f"--out {root}", "exists already", "a folder that is absent or empty", todo)
        with explained(root):
            if not root.is_dir():
                root.mkdir(parents=True)
                root.chmod(0o700)  # pictures and manifests of patients
            (root / "checkpoints").mkdir(exist_ok=True)
            (root / "predictions").mkdir(exist_ok=True)
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open a run again.

        Raises:
            DataError: The folder is absent or is not a run; what is missing is named.
        """
        if not root.is_dir():
            raise DataError(
                str(root), "no such folder", "a run folder", "name the folder that `medxfer run` printed"
            )
        if _is_free(root) and (root / "checkpoints").is_dir():
            todo = "run the same command again, with --out naming this folder or none"
            raise DataError(
                str(root), "nothing in it to go on from: it was stopped before training", "a run", todo
            )
        for name in ("run.json", "config.yaml"):
            if not (root / name).is_file():
                todo = "name the folder that `medxfer run` printed"
                raise DataError(str(root), f"no {name} in it", "a run folder", todo)
        return cls(root)

    def pseudonym(self, prefix: str, text: str) -> str:
        """A name for a case or patient that tells nothing: ten digits of a keyed hash (HMAC-SHA256).

        The key is made at the first use and lies in the run folder for its owner alone; nobody can go back without it.
        """
        place = self.root / "key"
        if not place.is_file():
            write_atomic(place, secrets.token_hex(32))
            place.chmod(0o600)
        key = place.read_text(encoding="utf-8").encode()
        return f"{prefix}_{hmac.new(key, text.encode(errors='surrogateescape'), 'sha256').hexdigest()[:10]}"

    def path(self, name: FileName) -> Path:
        """Where a file of the run is or will be."""
        return self.root / name

    def has(self, name: FileName) -> bool:
        """Whether a file was written."""
        return self.path(name).is_file()

    def write(self, name: FileName, value: object) -> Path:
        """Write plain data in the format that the name's suffix says, atomically."""
        path = self.path(name)
        if path.suffix == ".json":
            return write_json(path, value)
        if path.suffix == ".csv":
            return write_atomic(path, csv_text(value))  # type: ignore[arg-type]  # rows by contract
        return write_atomic(path, str(value))

    def read(self, name: FileName) -> Any:
        """Read plain data back: dict or list from JSON, list of dicts from CSV, text otherwise.

        Raises:
            DataError: The file is absent or damaged.
        """
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".json":
                return json.loads(text)
            if path.suffix == ".csv":
                return list(csv.DictReader(io.StringIO(text)))
        except FileNotFoundError:
            todo = f"finish the run first: medxfer run --resume {self.root}"
            raise DataError(str(path), "no such file", "a finished run", todo) from None
        except ValueError as error:
            raise DataError(
                str(path), f"not readable: {error}", "the file as it was written", "run again"
            ) from error
        return text

    def update(self, **values: object) -> dict[str, Any]:
        """Change some entries of run.json."""
        current: dict[str, Any] = self.read("run.json") if self.has("run.json") else {}
        current.update(values)
        self.write("run.json", current)
        return current

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while this one writes."""
        with locked(self.root / "lock"):
            yield


def default_root(name: str) -> Path:
    """`runs/NAME-DATE-TIME` in the working folder, numbered where it exists."""
    stem = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    root, number = stem, 2
    while root.exists():
        root, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return root


def _is_free(root: Path) -> bool:
    """Whether a folder is empty but for what a run that was killed before its first decision leaves."""
    if not root.is_dir():
        return False
    left = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    return left <= {
        "checkpoints",
        "predictions",
        "lock",
        "log.txt",
        "run.json",
        "split.csv",
        "receipt.json",
        "key",
    }


def csv_text(rows: Rows) -> str:
    """Rows as CSV; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
