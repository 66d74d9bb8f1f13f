"""Write a plugin to start from: a package with one encoder, its card and its test."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path

import yaml

from ..errors import ConfigError, PluginError
from ..files import explained, write_atomic
from .registry import list_encoders

_IMPORTED = {"Encoder", "Normalise"}  # names of the template that a class of the same name would hide

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 40


def write_plugin(name: str, folder: Path) -> Path:
    """Write the package `medxfer-NAME` into `folder`; it installs, passes the kit and runs as it stands.

    Args:
        name: Of the encoder: letters, digits, `_` or `-`; `medxfer-` before it may be given or not.
        folder: Where the package's own folder goes.

    Returns:
        The package's folder.

    Raises:
        ConfigError: Not a name, or the folder is there already; nothing is written.
        PluginError: An installed encoder has this name.
    """
    words = _checked(name)
    target = folder / f"medxfer-{'-'.join(words)}"
    if target.exists() or target.is_symlink():
        todo = "take another name, or move it away"
        raise ConfigError(str(target), "there already", "a name that is free", todo)
    # Written beside and moved when it is whole: a half-written plugin would stand in the way of the next try.
    draft = target.with_name(f".{target.name}.tmp")
    with explained(target):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for place, text in rendered("_".join(words)).items():
                write_atomic(draft / place, text)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def rendered(encoder_id: str) -> dict[str, str]:
    """The files of a plugin with one encoder, by their place in its folder."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python, TOML and YAML, no markup
    )
    facts = {
        "id": encoder_id,
        "package": f"medxfer_{encoder_id}",
        "distribution": f"medxfer-{encoder_id.replace('_', '-')}",
        "name": _class_name(encoder_id),
    }
    source = f"src/{facts['package']}"
    places = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{source}/__init__.py": "init.py.j2",
        f"{source}/cards.yaml": "cards.yaml.j2",
        f"tests/test_{encoder_id}.py": "test.py.j2",
    }
    files = {place: environment.get_template(template).render(facts) for place, template in places.items()}
    return {
        **files,
        "LICENSE": (_TEMPLATES / "LICENSE").read_text(encoding="utf-8"),
        f"{source}/py.typed": "",
    }


def _checked(name: str) -> list[str]:
    """The words of a name that can be an encoder, a package and a class.

    Raises:
        ConfigError: It cannot.
        PluginError: An installed encoder has it.
    """
    short = name.removeprefix("medxfer-").removeprefix("medxfer_")
    words = re.split(r"[-_]", short)
    encoder_id = "_".join(words)
    if not _NAME.fullmatch(short) or len(short) > _LONGEST or keyword.iskeyword(_class_name(encoder_id)):
        accepted = f"small letters, digits, `_` and `-`, a letter first, {_LONGEST} at most: my_net"
        raise ConfigError(f"plugin new {name}", "not a name", accepted, "take another name")
    if yaml.safe_load(encoder_id) != encoder_id:
        seen = f"YAML reads `{encoder_id}` as {yaml.safe_load(encoder_id)!r}, in cards and in bundles"
        raise ConfigError(f"plugin new {name}", seen, "a name that stays text", f"try {encoder_id}_net")
    for one in list_encoders():
        if one.id == encoder_id:
            seen = f"{one.brought_by} brings an encoder of this name"
            raise PluginError(f"plugin new {name}", seen, "a name of its own", "take another name")
    return words


def _class_name(encoder_id: str) -> str:
    """my_net -> MyNet, encoder -> EncoderNet; a class named None, True or False cannot be."""
    name = "".join(word[:1].upper() + word[1:] for word in encoder_id.split("_"))
    return f"{name}Net" if name in _IMPORTED else name
