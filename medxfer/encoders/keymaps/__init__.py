"""Key names as data: how a publisher's tensor names become ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...cards import nearest
from ...errors import PluginError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOLDER = Path(__file__).parent


class KeyMap:
    """Renames by the longest known beginning, in whole parts between dots; other names stay as they are.

    Args:
        names: Published name or its beginning -> ours.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = dict(names or {})

    def __call__(self, published: str) -> str:
        """Our name of a published one."""
        parts = published.split(".")
        for count in range(len(parts), 0, -1):
            ours = self.names.get(".".join(parts[:count]))
            if ours is not None:
                return ".".join([ours, *parts[count:]])
        return published


def read_key_map(name: str | None, folder: Path | None) -> KeyMap:
    """A key map by name, or from a YAML file beside a card.

    Args:
        name: As on the card; None: names stay as they are.
        folder: Where the card lies.

    Raises:
        PluginError: No such map, or not a mapping of names to names.
    """
    if name is None:
        return KeyMap()
    beside = name.endswith((".yaml", ".yml"))
    path = (folder or Path()) / name if beside else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in _FOLDER.glob("*.yaml")]
        raise PluginError(
            f"key_map: {name}", "no such key map", "a name, or a file beside the card", nearest(name, known)
        )
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a safe loader
    if not isinstance(content, dict) or not all(isinstance(v, str) for pair in content.items() for v in pair):
        raise PluginError(
            str(path), "not a mapping of text to text", "published name: our name", "mend the key map"
        )
    return KeyMap(content)
