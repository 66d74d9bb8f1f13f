"""Key names as data: how a publisher's tensor names become ours."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...cards import nearest
from ...errors import PluginError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOLDER = Path(__file__).parent


class KeyMap:
    """Renames published tensor names; what no rule speaks of stays as it is.

    Two kinds of rule, told apart by their first character. `^...` is a regular expression, put through
    `re.sub`; these go first, in order. Any other is a name or its beginning, in whole parts between dots; of
    those that fit the longest counts, once.

    Args:
        rules: Published -> ours.

    Raises:
        re.error: A rule that is no regular expression, or a replacement that does not fit it.
    """

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        rules = rules or {}
        self.patterns = [(re.compile(key), value) for key, value in rules.items() if key.startswith("^")]
        self.names = {key: value for key, value in rules.items() if not key.startswith("^")}
        for pattern, replacement in self.patterns:
            re._parser.parse_template(replacement, pattern)  # type: ignore[attr-defined]

    def __call__(self, published: str) -> str:
        """Our name of a published one."""
        for pattern, replacement in self.patterns:
            published = pattern.sub(replacement, published)
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
        raise PluginError(
            f"key_map: {name}",
            "no such key map",
            "a name, or a file beside the card",
            nearest(name, built_in_names()),
        )
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a safe loader
    if not isinstance(content, dict) or not all(isinstance(v, str) for pair in content.items() for v in pair):
        raise PluginError(
            str(path), "not a mapping of text to text", "published name: our name", "mend the key map"
        )
    try:
        return KeyMap(content)
    except (re.error, IndexError) as error:
        seen = f"a rule that is no regular expression: {error}"
        raise PluginError(str(path), seen, "^PATTERN: REPLACEMENT", "mend the key map") from None


@functools.cache
def built_in_names() -> tuple[str, ...]:
    """The names of medxfer's own key maps."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))
