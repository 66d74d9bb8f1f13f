"""Configuration text (YAML or JSON) to plain data that remembers its lines, and back.

The text is read event by event, so that size, depth, repeated keys and Python tags are refused before
anything is built. Plain words mean what YAML 1.2 says: `1e-3` is a number, `no` is text, `010` is ten.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, UnsafeError

MAX_BYTES = 1 << 20
MAX_NODES = 20_000  # after aliases and references are written out
MAX_DEPTH = 50

KeyPath = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = {_CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_WHOLE = re.compile(r"[-+]?[0-9]{1,4000}|0o[0-7]{1,1000}|0x[0-9a-fA-F]{1,1000}")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value was written, and its characters when it was a plain word."""

    place: str  # `configs/train.yaml:12`
    raw: str | None = None


@dataclass(slots=True)
class Document:
    """Plain data with the place of every value."""

    value: Any
    marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`configs/train.yaml:12, phases.1.lr`; the nearest known place of a value that is not written."""
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.marks), ())
        place = self.marks[known].place if known in self.marks else ""
        return ", ".join(part for part in (place, dotted(path)) if part)

    def blamed(self, *paths: KeyPath) -> str:
        """Of values that do not go together: where the first one stands that an option set, else the first."""
        places = [self.where(path) for path in paths]
        return next((place for place in places if is_option(place)), places[0])

    def raw(self, path: KeyPath) -> str | None:
        """The characters of a plain word, `007` where the value is 7."""
        mark = self.marks.get(path)
        return mark.raw if mark else None

    def forget(self, path: KeyPath) -> None:
        """Drop the places of a value and of all below it, which is about to be replaced."""
        for known in [known for known in self.marks if known[: len(path)] == path]:
            del self.marks[known]


def is_option(place: str) -> bool:
    """Whether a place is on the command line, `--set KEY=VALUE`, and not a line of a file."""
    return place.startswith("--")


def dotted(path: KeyPath) -> str:
    """`phases.1.lr`."""
    return printable(".".join(str(part) for part in path))


def printable(text: str) -> str:
    """Text from a file as it may reach a terminal or a comment: line breaks and control characters as `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def read_file(path: Path) -> Document:
    """Read a configuration file.

    Args:
        path: A YAML file, or JSON when its name ends in `.json`.

    Raises:
        ConfigError: Not a regular file, too large, not UTF-8, or a syntax error (with line and column).
        UnsafeError: A tag that would build objects.
    """
    status = path.stat()  # first: opening a pipe would wait for ever
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(str(path), "not a regular file", "a YAML or JSON file", "name another file")
    if status.st_size > MAX_BYTES:
        seen, accepted = f"{status.st_size} bytes", f"at most {MAX_BYTES} bytes of configuration"
        raise ConfigError(str(path), seen, accepted, "take out what is not configuration")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        seen = f"byte 0x{content[error.start]:02x} at column {column}, which is not UTF-8"
        raise ConfigError(f"{path}:{line}", seen, "UTF-8 text", "save the file as UTF-8") from None
    if path.suffix.lower() != ".json":
        return read_text(text, str(path))
    # A tab can stand in JSON between values only, where YAML wants a blank.
    document = read_text(text.replace("\t", " "), str(path))
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        seen = f"{error.msg} at column {error.colno}"
        raise ConfigError(f"{path}:{error.lineno}", seen, "JSON", "correct the line") from None
    return document


def read_text(text: str, place: str, *, numbered: bool = True) -> Document:
    """Read configuration text.

    Args:
        text: YAML.
        place: What messages call it: a file or an option.
        numbered: Whether messages add the line.

    Raises:
        ConfigError: A syntax error, a repeated key, or more nodes or depth than configuration needs.
        UnsafeError: A tag that would build objects.
    """
    try:
        node = _Composer(text, place, numbered).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = (mark.line if mark else 0) + 1
        column = (mark.column if mark else 0) + 1
        where = f"{place}:{line}" if numbered else place
        seen = f"{error.problem or error.context} at column {column}"
        raise ConfigError(where, seen, "YAML", _hint(text, line)) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        where = f"{place}:{line}" if numbered else place
        seen = str(error).splitlines()[0]
        raise ConfigError(where, seen, "printable text", "take the character out") from None
    document = Document(None)
    budget = [MAX_NODES]
    document.value = _plain(node, (), document, budget, place)
    return document


def _hint(text: str, line: int) -> str:
    """What is probably wrong in a line that YAML does not take."""
    lines = text.splitlines()
    content = lines[line - 1] if line <= len(lines) else ""
    if "\t" in content:
        return "replace the tab by blanks"
    if re.search(r"[:\[{,-]\s*[@%`]", content):
        return "put quotes around the text that begins with @, % or `"
    return "correct the line"


@dataclass(slots=True)
class _Node:
    """A composed node; children of a mapping stand under their keys."""

    value: Any  # scalar, list[_Node] or dict[str, _Node]
    place: str
    raw: str | None = None


class _Composer:
    """Events to nodes. An alias is the very node it names; a node cannot name itself."""

    def __init__(self, text: str, place: str, numbered: bool) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._place, self._numbered = place, numbered
        self._anchors: dict[str | None, _Node | None] = {}
        self._count = 0

    def document(self) -> _Node:
        """The only document of the text; an empty text is null."""
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return _Node(None, self._where(event))
        node = self._node(next(self._events), 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise ConfigError(
                self._where(event), "a second document", "one document a file", "take out the `---`"
            )
        return node

    def _where(self, event: Any) -> str:
        return f"{self._place}:{_line(event)}" if self._numbered else self._place

    def _node(self, event: Any, depth: int) -> _Node:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            raise _too_large(self._where(event))
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor)
            if node is None:
                seen = f"*{event.anchor} stands " + (
                    "inside itself" if event.anchor in self._anchors else "alone"
                )
                todo = f"write &{event.anchor} at a value above"
                raise ConfigError(self._where(event), seen, "an alias of an earlier value", todo)
            return node
        if event.anchor:
            self._anchors[event.anchor] = None
        self._check_tag(event)
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node(
                [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)],
                self._where(event),
            )
        else:
            node = self._mapping(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _mapping(self, start: Any, depth: int) -> _Node:
        items: dict[str, _Node] = {}
        lines: dict[str, int] = {}
        for event in self._until(yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise ConfigError(
                    self._where(event), "a key that is no word", "words as keys", "write a word"
                )
            self._check_tag(event)
            key, line = event.value, _line(event)
            if key in items:
                seen = f"key `{printable(key)}` twice, in lines {lines[key]} and {line}"
                raise ConfigError(self._where(event), seen, "each key once", "delete one of the two lines")
            lines[key] = line
            items[key] = self._node(next(self._events), depth + 1)
        return _Node(items, self._where(start))

    def _scalar(self, event: Any) -> _Node:
        if event.tag == _CORE + "str" or (event.style and not event.tag) or event.tag == "!":
            return _Node(event.value, self._where(event))
        try:
            return _Node(word(event.value), self._where(event), event.value)
        except ValueError as error:
            raise ConfigError(
                self._where(event), str(error), "a shorter number", "write fewer digits"
            ) from None

    def _check_tag(self, event: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!" or tag in _CORE_TAGS:
            return
        shown = printable(tag.replace(_CORE, "!!"))
        todo = "take the tag out"
        if tag.startswith(_CORE) and not tag.startswith(_CORE + "python"):
            raise ConfigError(self._where(event), f"tag {shown}", "plain values", todo)
        raise UnsafeError(
            self._where(event), f"tag {shown}, which would build an object", "plain values", todo
        )


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def word(text: str) -> Any:
    """What a plain word means in YAML 1.2.

    Raises:
        ValueError: A number of thousands of digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _REAL.fullmatch(text):
        if len(text) > 4000:
            raise ValueError(f"a number of {len(text)} digits")
        return float(text)
    return text


def _plain(node: _Node, path: KeyPath, document: Document, budget: list[int], place: str) -> Any:
    """Write a node out, aliases included, and note where each value stands."""
    budget[0] -= 1
    if budget[0] < 0 or len(path) > MAX_DEPTH:
        raise _too_large(place)
    document.marks[path] = Mark(node.place, node.raw)
    if isinstance(node.value, dict):
        return {
            key: _plain(child, (*path, key), document, budget, place) for key, child in node.value.items()
        }
    if isinstance(node.value, list):
        return [_plain(child, (*path, i), document, budget, place) for i, child in enumerate(node.value)]
    if isinstance(node.value, float) and not math.isfinite(node.value):
        todo = f"change {dotted(path)}" if path else "write a number"
        raise ConfigError(document.where(path), str(node.raw), "a finite number", todo)
    return node.value


def _too_large(where: str) -> ConfigError:
    accepted = f"at most {MAX_NODES} values, {MAX_DEPTH} levels deep, aliases and references written out"
    return ConfigError(where, "more values or deeper levels than that", accepted, "take out repeated parts")


class _Dumper(yaml.SafeDumper):
    """Writes what `read_text` reads back: words that mean something else there are quoted."""

    def ignore_aliases(self, data: Any) -> bool:  # written out: aliases confuse readers
        return True


class _FileDumper(_Dumper):
    """For whole files: a line a key, lists of plain values in one line."""


def _write_text(dumper: Any, text: str) -> Any:
    if not text.isprintable():  # escapes: YAML folds every kind of line break
        return dumper.represent_scalar(_CORE + "str", text, style='"')
    ambiguous = text == "" or not isinstance(word(text[:4000]), str)
    return dumper.represent_scalar(_CORE + "str", text, style="'" if ambiguous else None)


def _write_list(dumper: Any, items: list[Any]) -> Any:
    flat = not any(isinstance(item, list | dict) for item in items)
    return dumper.represent_sequence(_CORE + "seq", items, flow_style=flat)


_Dumper.add_representer(str, _write_text)
_FileDumper.add_representer(list, _write_list)


def write_text(value: Any, *, one_line: bool = False) -> str:
    """Plain data as YAML.

    Args:
        value: Dictionaries with text keys, lists, text, numbers, booleans, None.
        one_line: Without line breaks, for a value inside a hand-made file.
    """
    if not one_line:
        text: str = yaml.dump(value, Dumper=_FileDumper, sort_keys=False, allow_unicode=True, width=110)
        return text
    text = yaml.dump(
        [value], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9, default_flow_style=True
    )
    return text.strip()[1:-1]
