"""Where weights may lie on this machine: packages, files, `MEDXFER_HOME`, the caches of two hubs. No network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..cards import WeightsCard
from ..errors import RunError, WeightsError
from ..files import home, sha256_of, write_atomic, write_json

# Publishers put the first digits of a file's hash before its ending, as torch.hub wants it: resnet18-5c106cde.pth.
# Eight digits that are a date are one.
_NAMED_HASH = re.compile(r"-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.[^.]+$")
_BUNDLED = ("models/model.safetensors", "models/model.pt")


def candidates(card: WeightsCard) -> Iterator[Path]:
    """Files on this machine that should be those weights, likeliest first; nothing of them is read.

    Where the card has a hash or a size, a hub's file of that name need not be the right one: hash it.
    """
    if isinstance(card.source, tuple):
        places = [kept_path(card)]
    elif card.source.startswith("package:"):
        places = [path] if (path := in_package(card.source)) else []
    elif url_of(card.source):
        places = [kept_path(card), *_in_hub_cache(card), *_in_torch_cache(card)]
    else:
        places = [Path(card.source).expanduser()]
    yield from (place for place in places if place.is_file())


def locate(card: WeightsCard) -> Path | None:
    """Where the file lies on this machine, or None; nothing is imported, fetched, joined or hashed."""
    return next(candidates(card), None)


def on_this_machine(card: WeightsCard) -> bool:
    """Whether `require` would get by without the network; shards count when all of them are here."""
    if locate(card) is not None:
        return True
    return isinstance(card.source, tuple) and all(in_package(one) is not None for one in card.source)


def kept_path(card: WeightsCard) -> Path:
    """Where a fetched or joined file belongs: `MEDXFER_HOME/weights`, digits of its hash before its own name.

    Without a hash on the card they are digits of the source's.
    """
    text = "\n".join(card.source) if isinstance(card.source, tuple) else card.source
    digits = card.sha256 or hashlib.sha256(text.encode()).hexdigest()
    return home() / "weights" / f"{digits[:12]}-{_file_name(card)}"


def url_of(source: str | tuple[str, ...]) -> str | None:
    """What to fetch, or None for what is not fetched."""
    if isinstance(source, tuple):
        return None
    if source.startswith(("https://", "http://")):
        return source
    if not source.startswith("hf:"):
        return None
    repository, revision, path = _hub_parts(source)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{repository}/resolve/{revision}/{path}"


def in_package(source: str) -> Path | None:
    """`package:IMPORT_NAME/path/in/it`, found by `find_spec` of the top-level name, which runs no code of it.

    A source without `package:` is a path.
    """
    if not source.startswith("package:"):
        path = Path(source).expanduser()
        return path if path.is_file() else None
    package, _, inner = source.removeprefix("package:").partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / inner
        if path.is_file():
            return path
    return None


def known_sha256(card: WeightsCard) -> str | None:
    """The hash on the card, else the one recorded when the file was first used here, else None."""
    if card.sha256:
        return card.sha256
    with contextlib.suppress(OSError, IndexError):
        return record_path(card).read_text(encoding="utf-8").split()[0]
    return None


def record_path(card: WeightsCard) -> Path:
    """Where the hash of weights whose publisher states none is kept; `sha256sum -c` reads it."""
    kept = kept_path(card)
    return kept.with_name(kept.name + ".sha256")


def record_sha256(card: WeightsCard, digest: str) -> None:
    """Keep the hash of a first use: another content is refused from then on."""
    write_atomic(record_path(card), f"{digest}  {kept_path(card).name}\n")


def digits_named(card: WeightsCard) -> str:
    """The first digits of the hash in the name of a file that is fetched; empty where it has none."""
    named = _NAMED_HASH.search(_file_name(card)) if url_of(card.source) else None
    return named.group(1) if named else ""


def remembered_sha256(path: Path) -> str:
    """Hash of a file, kept in `MEDXFER_HOME` by path, size and time of change: it is read once only."""
    known = _memory().get(str(path.resolve()))
    if isinstance(known, list) and known[:2] == _stamp(path) and isinstance(known[-1], str):
        return known[-1]
    digest = sha256_of(path)
    remember_sha256(path, digest)
    return digest


def remember_sha256(path: Path, digest: str) -> None:
    """Keep the hash of a file whose content was just seen."""
    # Remembering is a convenience: a read-only or damaged memory means hashing again, nothing worse.
    with contextlib.suppress(RunError):
        memory = {**_memory(), str(path.resolve()): [*_stamp(path), digest]}
        write_json(home() / "weights" / "verified.json", memory)


def bundle_weights(folder: Path) -> tuple[Path, str]:
    """The weights in a MONAI bundle folder.

    Returns:
        The file, and a sentence that names the bundle, by its `configs/metadata.json`.

    Raises:
        WeightsError: No weights in it, or only a TorchScript program.
    """
    path = next((folder / name for name in _BUNDLED if (folder / name).is_file()), None)
    if path is None:
        models = sorted(one.name for one in (folder / "models").glob("*") if one.is_file())
        seen = f"a folder with models/{', models/'.join(models)}" if models else "a folder without models/"
        todo = "name the file itself, or fetch the bundle with its weights"
        if models and all(name.endswith(".ts") for name in models):
            todo = "a TorchScript program holds code: fetch the bundle's model.pt or model.safetensors"
        raise WeightsError(str(folder), seen, " or ".join(_BUNDLED), todo)
    about: Any = {}
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    name = version = None
    if isinstance(about, dict):
        name, version = about.get("name"), about.get("version")
    named = f"{name or folder.resolve().name}{f' {version}' if version else ''}"
    described = "" if name else ", which has no name in configs/metadata.json"
    return path, f"{path.relative_to(folder)} of the MONAI bundle {named}{described}"


def _memory() -> dict[str, Any]:
    with contextlib.suppress(RunError, OSError, ValueError):
        content = json.loads((home() / "weights" / "verified.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _file_name(card: WeightsCard) -> str:
    if isinstance(card.source, tuple):  # shards are all called alike
        package, _, inner = card.source[0].removeprefix("package:").partition("/")
        return f"{package}{Path(inner).suffix}"
    return Path(unquote(urlsplit(card.source.partition("?")[0]).path)).name or "weights"


def _hub_parts(source: str) -> tuple[str, str, str]:
    """`hf:owner/name[@revision]/path` as repository, revision, path."""
    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise WeightsError(source, "not a file on the hub", "hf:owner/name/file", "complete the card")
    name, _, revision = parts[1].partition("@")
    return f"{parts[0]}/{name}", revision or "main", parts[2]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _in_hub_cache(card: WeightsCard) -> Iterator[Path]:
    """The file in Hugging Face's cache: of the revision asked for, with a hash on the card of any."""
    if isinstance(card.source, tuple) or not card.source.startswith("hf:"):
        return
    place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if place:
        cache = Path(place).expanduser()
    elif os.environ.get("HF_HOME"):
        cache = Path(os.environ["HF_HOME"]).expanduser() / "hub"
    else:
        cache = _user_cache() / "huggingface" / "hub"
    repository, revision, path = _hub_parts(card.source)
    folder = cache / f"models--{repository.replace('/', '--')}"
    commit = revision
    with contextlib.suppress(OSError):
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    wanted = folder / "snapshots" / commit / path
    yield wanted
    if card.sha256:
        others = (one / path for one in sorted((folder / "snapshots").glob("*")))
        yield from (one for one in others if one != wanted)


def _in_torch_cache(card: WeightsCard) -> Iterator[Path]:
    """The file in torch hub's cache. It goes by name alone: without a hash on the card or in its name, left."""
    if isinstance(card.source, tuple) or card.source.startswith("hf:"):
        return
    place = os.environ.get("TORCH_HOME")
    cache = Path(place).expanduser() if place else _user_cache() / "torch"
    path = cache / "hub" / "checkpoints" / _file_name(card)
    if card.sha256 or digits_named(card):
        yield path
