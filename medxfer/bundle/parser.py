"""A bundle's configuration to a typed Bundle, and back.

In this order: text to plain data, overrides, references and `$` texts, table of parts, types. Nothing that
the configuration names is imported here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UnsafeError
from .references import Resolver, check_targets, without_disabled
from .schema import Bundle, Component, DataSpec, PhaseSpec, TrainingSpec
from .source import Document, KeyPath, Mark, dotted, read_file, read_text, write_text
from .typed import NAME, convert, nearest, shown, unknown_key

CONFIG_NAMES = ("train.yaml", "train.yml", "train.json")
_NO_PATH = re.compile(r"[A-Za-z][\w+.-]+:")  # https://..., hf:owner/name/file
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def load_bundle(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    data: str | None = None,
    weights: str | None = None,
    trust: bool = False,
) -> Bundle:
    """Read a bundle.

    Args:
        path: Its folder, or a YAML or JSON file such as a run's `config.yaml`.
        overrides: `phases.1.epochs=5` or `phases::1::epochs=5`; the value is YAML.
        data: In place of `data.source`.
        weights: In place of `encoder.weights`.
        trust: Let `$` texts and `_target_` run code. Only for a bundle that the user has read.

    Raises:
        ConfigError: Absent, malformed, misspelt, of a wrong type or out of range.
        UnsafeError: Something that would run code, and `trust` is off.
    """
    file = _find_config(path)
    folder = file.parent.parent if file.parent.name == "configs" else file.parent
    document = read_file(file)
    if not isinstance(document.value, dict):
        raise ConfigError(
            str(file), "no keys", "keys such as data, encoder, task, phases", "name a bundle's file"
        )
    for override in overrides:
        _override(document, override)
    for option, section, key, value in (
        ("--data", "data", "source", data),
        ("--weights", "encoder", "weights", weights),
    ):
        if value is not None:
            _place(document, (section, key), option)
    resolver = Resolver(document, folder.resolve(), trust)
    tree = resolver.resolve(document.value, (), (), False)
    for section, key, value in (("data", "source", data), ("encoder", "weights", weights)):
        if value is not None:  # literal: a path may begin with any character
            tree[section][key] = value
    check_targets(tree, document, trust)
    tree = without_disabled(tree, (), document)
    for key in ("folder", "trusted"):
        if key in tree:
            raise unknown_key(key, (field.name for field in dataclasses.fields(Bundle)), (), document)
    tree.setdefault("name", _name_of(folder.resolve()))
    tree |= {"folder": folder.resolve(), "trusted": trust}
    bundle: Bundle = convert(tree, Bundle, (), document)
    if not any(phase.epochs for phase in bundle.phases):
        seen = f"{len(bundle.phases)} phases, no epoch in any"
        where = document.blamed(("phases",), *(("phases", n, "epochs") for n in range(len(bundle.phases))))
        raise ConfigError(where, seen, "at least one epoch", "raise phases.0.epochs")
    if bundle.start is not None and bundle.encoder.weights != "none":
        seen = f"start: {shown(bundle.start)} beside encoder.weights: {bundle.encoder.weights}"
        where = document.blamed(("start",), ("encoder", "weights"))
        raise ConfigError(where, seen, "one of both", "set encoder.weights=none")
    return _with_absolute_paths(bundle, document, given=data)


def load_data(plain: Mapping[str, Any], overrides: Sequence[str] = ()) -> DataSpec:
    """How data without a bundle are read.

    Args:
        plain: What is known of the section `data`.
        overrides: `data.KEY=VALUE`, as on the command line; the value is YAML.

    Raises:
        ConfigError: Another key than one of `data`, misspelt, of a wrong type or out of range.
        UnsafeError: Text that would run code.
    """
    require_data_keys(overrides)
    document = Document({"data": dict(plain)}, {(): Mark("data")})
    for override in overrides:
        _override(document, override)
    tree = Resolver(document, Path.cwd(), False).resolve(document.value, (), (), False)
    tree["data"]["source"] = plain["source"]  # literal: a path may begin with any character
    spec: DataSpec = convert(tree["data"], DataSpec, ("data",), document)
    return spec


def require_data_keys(overrides: Sequence[str]) -> None:
    """Refuse `--set` of anything but `data`.

    Raises:
        ConfigError: Another section.
    """
    for one in overrides:
        if not one.startswith(("data.", "data::")):
            raise ConfigError(
                f"--set {shown(one)}", "not about `data`", "data.KEY=VALUE", "nothing else can change here"
            )


def resolve_phases(bundle: Bundle) -> Bundle:
    """Fill in, phase by phase, what a phase leaves to `training`."""
    shared = [field.name for field in dataclasses.fields(PhaseSpec) if field.name in _TRAINING_FIELDS]
    phases = []
    for phase in bundle.phases:
        missing = {name: getattr(bundle.training, name) for name in shared if getattr(phase, name) is None}
        phases.append(dataclasses.replace(phase, **missing))
    return dataclasses.replace(bundle, phases=tuple(phases))


_TRAINING_FIELDS = {field.name for field in dataclasses.fields(TrainingSpec)}


def to_plain(bundle: Bundle) -> dict[str, Any]:
    """A bundle as dictionaries, lists, text, numbers, booleans and None; every default is written out."""
    plain: dict[str, Any] = _plain(bundle)
    return {key: value for key, value in plain.items() if key not in ("folder", "trusted")}


def to_yaml(bundle: Bundle) -> str:
    """A bundle as YAML which, loaded again, gives an equal bundle."""
    return write_text(to_plain(bundle))


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return {"_target_": value.target, **{key: _plain(item) for key, item in value.arguments.items()}}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _find_config(path: Path) -> Path:
    """The file to read: the one given, or the training configuration of a bundle folder."""
    if path.is_dir():
        for name in CONFIG_NAMES:
            if (path / "configs" / name).exists():
                return path / "configs" / name
        accepted = f"a bundle folder with configs/{CONFIG_NAMES[0]}, or a YAML file"
        raise ConfigError(
            str(path),
            f"no configs/{CONFIG_NAMES[0]} in it",
            accepted,
            "name another folder, or: medxfer init",
        )
    if path.exists():
        return path
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    todo = (
        f"did you mean {path.parent / near[0]}?"
        if near
        else "check the path, or make a bundle with: medxfer init"
    )
    raise ConfigError(str(path), "no such file or folder", "a bundle folder or a YAML file", todo)


def _name_of(folder: Path) -> str:
    """Name of a bundle that gives none: its folder's, as far as a name may have its characters."""
    name = re.sub(r"[^\w.-]+", "_", folder.name).lstrip(".-")[:100]
    return name if NAME.fullmatch(name) else "bundle"


# Overrides


def _override(document: Document, text: str) -> None:
    """Apply one `--set KEY=VALUE`."""
    option = f"--set {shown(text)}"
    key, equals, content = text.partition("=")
    parts = re.split(r"::|#" if re.search(r"::|#", key) else r"\.", key.strip())
    if not equals or not all(parts):
        raise ConfigError(option, "no KEY=VALUE", "phases.1.epochs=5", "write a key, `=` and a value")
    # On a command line these begin a reference or an expression, whatever YAML makes of them.
    if content.lstrip()[:1] in ("@", "$", "%", "`"):
        value = Document(content.strip(), {(): Mark(option)})
    else:
        value = read_text(content, option, numbered=False)
    path = _place(document, tuple(parts), option)
    parent: Any = document.value
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value.value
    document.marks |= {(*path, *inner): mark for inner, mark in value.marks.items()}


def _place(document: Document, parts: tuple[str, ...], option: str) -> KeyPath:
    """Find, or make, the place that an option sets; its old value is forgotten."""
    path: KeyPath = ()
    parent: Any = document.value
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        if isinstance(parent, list):
            if not part.isdecimal() or int(part) >= len(parent):
                accepted = f"0 to {len(parent) - 1}" if parent else "nothing: the list is empty"
                raise ConfigError(
                    option, f"`{part}` in the list {dotted(path)}", accepted, "name an entry of the list"
                )
            step: str | int = int(part)
        elif isinstance(parent, dict):
            step = part
            if parent.get(part) is None and not is_last:
                parent[part] = {}
                document.marks[(*path, part)] = Mark(option)
        else:
            seen = f"{dotted(path)} is {shown(parent)}, which holds no `{part}`"
            raise ConfigError(option, seen, "the key of a mapping or list", f"set {dotted(path)} as a whole")
        path = (*path, step)
        if not is_last:
            parent = parent[step]
    document.forget(path)
    document.marks[path] = Mark(option)
    if isinstance(parent, dict):
        parent[path[-1]] = None
    return path


# Paths


def _with_absolute_paths(bundle: Bundle, document: Document, *, given: str | None) -> Bundle:
    """Make paths independent of the working folder; a label file may not leave the data."""
    data, encoder = bundle.data, bundle.encoder
    if data.labels is not None and not bundle.trusted:
        labels = Path(data.labels)
        if labels.is_absolute() or ".." in labels.parts:
            where = document.where(("data", "labels"))
            todo = "put the file into the data folder, or name the folder above both: --data"
            raise UnsafeError(
                where, f"{shown(data.labels)}, outside of the data", "a path below data.source", todo
            )
    if not data.source.startswith("synthetic."):
        source = _absolute(data.source, None if given is not None else bundle.folder)
        data = dataclasses.replace(data, source=source)
    if data.exclude is not None:
        data = dataclasses.replace(data, exclude=_place_of_list(data.exclude, bundle.folder))
    if _is_path(encoder.weights):
        encoder = dataclasses.replace(encoder, weights=_absolute(encoder.weights, bundle.folder))
    start = None if bundle.start is None else _absolute(bundle.start, bundle.folder)
    return dataclasses.replace(bundle, data=data, encoder=encoder, start=start)


def _place_of_list(text: str, folder: Path) -> str:
    """A list of exclusions in the bundle's folder, else below the working folder, else as it is: below the data."""
    path = Path(text).expanduser()
    places = (folder / path, Path.cwd() / path)
    return str(next((place for place in places if place.is_file()), path))


def _is_path(weights: str) -> bool:
    """Whether weights are a file rather than a tag, `none` or an address."""
    if _NO_PATH.match(weights):
        return False
    return "/" in weights or "\\" in weights or weights.startswith("~") or weights.endswith(_WEIGHT_FILES)


def _absolute(text: str, folder: Path | None) -> str:
    """A path below the working folder where it exists there, else below the bundle's folder."""
    path = Path(text).expanduser()
    if not path.is_absolute() and not path.exists() and folder is not None and (folder / path).exists():
        path = folder / path
    return str(Path.cwd() / path) if not path.is_absolute() else str(path)
