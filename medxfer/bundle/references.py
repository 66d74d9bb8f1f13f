"""References, `$` texts and MONAI's words beside `_target_`, in plain data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MedxferError, UnsafeError
from . import components, expressions
from .source import MAX_DEPTH, MAX_NODES, Document, KeyPath, dotted
from .typed import nearest, shown


class Resolver:
    """Writes references and `$` texts out, in a tree that it copies."""

    def __init__(self, document: Document, folder: Path, trust: bool) -> None:
        self._document, self._trust = document, trust
        self._names: dict[str, expressions.Value] = {"bundle_root": folder}
        self._nodes = 0

    def resolve(self, value: Any, path: KeyPath, chain: tuple[KeyPath, ...], inside: bool) -> Any:
        """Copy of a value with everything written out.

        Args:
            value: At `path` of the document.
            path: Where it stands.
            chain: References being followed.
            inside: Whether it is an argument of a component.
        """
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) + len(chain) > MAX_DEPTH:
            accepted = f"at most {MAX_NODES} values, {MAX_DEPTH} levels deep, references written out"
            raise ConfigError(self._document.where(path), "more than that", accepted, "take out references")
        if isinstance(value, dict):
            inside = inside or "_target_" in value
            return {key: self.resolve(item, (*path, key), chain, inside) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*path, index), chain, inside) for index, item in enumerate(value)]
        if isinstance(value, str) and value.startswith("@"):
            return self._look_up(value[1:], path, chain)
        if isinstance(value, str) and value.startswith("$"):
            return self._expression(value, path, chain, inside)
        if isinstance(value, str) and value.startswith("%"):
            seen, accepted = f"`{shown(value)}`, which reads another file", "the value itself"
            raise UnsafeError(self._document.where(path), seen, accepted, "copy the value here")
        return value

    def _look_up(self, name: str, path: KeyPath, chain: tuple[KeyPath, ...]) -> Any:
        """Value that `@name` stands for, itself written out."""
        where = self._document.where(path)
        if name == "bundle_root":
            return str(self._names[name])
        value: Any = self._document.value
        target: KeyPath = ()
        for part in re.split(r"::|#", name):
            step: str | int = int(part) if isinstance(value, list) and part.isdecimal() else part
            known = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
            if step not in known:
                near = nearest(part, (str(item) for item in known))
                todo = (
                    f"did you mean `{near[0]}`?"
                    if near
                    else "write @ and keys of this file, with :: between them"
                )
                accepted = ", ".join(str(item) for item in known) or "nothing below it"
                raise ConfigError(where, f"@{shown(name)}: no `{shown(part)}`", accepted, todo)
            value, target = value[step], (*target, step)
        if target in chain or path[: len(target)] == target:
            circle = " -> ".join(dotted(step) for step in (*chain, target))
            raise ConfigError(
                where, f"references in a circle: {circle}", "a value at the end", "write a value"
            )
        # From the reference's own place on: what is below belongs to the place where it was written.
        return self.resolve(value, target, (*chain, target), False)

    def _expression(self, text: str, path: KeyPath, chain: tuple[KeyPath, ...], inside: bool) -> Any:
        where = self._document.where(path)

        def look_up(name: str) -> Any:
            return self._look_up(name, path, chain)

        try:
            return expressions.evaluate(text, look_up, self._names, where)
        except UnsafeError:
            if not self._trust:
                raise
        complete = expressions.with_values(text, look_up)
        if inside:  # kept as text until the part is built, so that the bundle can be written again
            return complete
        try:
            return expressions.trusted_value(complete)
        except Exception as error:
            cause = error.__cause__ or error
            raise ConfigError(
                where, f"`{shown(text)}`: {cause}", "Python", "correct the expression"
            ) from error


_SETTINGS = ("_desc_", "_mode_", "_requires_", "_disabled_")  # MONAI's words beside `_target_`


def check_targets(value: Any, document: Document, trust: bool) -> None:
    """Look at every component before anything else is judged; what is unsafe is said first.

    Raises:
        UnsafeError: A part outside the table, or MONAI's words that run something.
        ConfigError: A misspelt part, or one in a wrong place.
    """
    faults = list(_faults(value, (), document, trust))
    for fault in sorted(faults, key=lambda fault: not isinstance(fault, UnsafeError)):
        raise fault


def _faults(value: Any, path: KeyPath, document: Document, trust: bool) -> Iterator[MedxferError]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, (*path, index), document, trust)
    if not isinstance(value, dict):
        return
    if value.get("_mode_", "default") != "default":
        where = document.where((*path, "_mode_"))
        yield UnsafeError(where, f"_mode_: {shown(value['_mode_'])}", "default", "delete the key")
    if "_requires_" in value:
        where = document.where((*path, "_requires_"))
        yield UnsafeError(where, "_requires_, which runs something first", "no such key", "delete the key")
    if "_target_" in value:
        where = document.where((*path, "_target_"))
        try:
            components.check_target(value["_target_"], components.place_kind(path), where, trusted=trust)
        except MedxferError as fault:
            yield fault
    for key, item in value.items():
        yield from _faults(item, (*path, key), document, trust)


def without_disabled(value: Any, path: KeyPath, document: Document) -> Any:
    """Drop what `_disabled_: true` switches off, and MONAI's words once they are read."""
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if key in _SETTINGS:
                continue
            if not _is_disabled(item, (*path, key), document):
                kept[key] = without_disabled(item, (*path, key), document)
        return kept
    if isinstance(value, list):
        # The places of what stays move up with it.
        stays = [
            index for index, item in enumerate(value) if not _is_disabled(item, (*path, index), document)
        ]
        if len(stays) < len(value):
            _move_marks(document, path, stays)
        return [without_disabled(value[index], (*path, place), document) for place, index in enumerate(stays)]
    return value


def _is_disabled(value: Any, path: KeyPath, document: Document) -> bool:
    if not isinstance(value, dict) or "_disabled_" not in value:
        return False
    flag = value["_disabled_"]
    if not isinstance(flag, bool):
        where = document.where((*path, "_disabled_"))
        raise ConfigError(where, shown(flag), "true or false", "write one of them")
    return flag


def _move_marks(document: Document, path: KeyPath, stays: list[int]) -> None:
    """Renumber the places below a list."""
    moved, depth = {}, len(path)
    for known, mark in document.marks.items():
        if known[:depth] == path and len(known) > depth:
            if known[depth] in stays:
                moved[(*path, stays.index(int(known[depth])), *known[depth + 1 :])] = mark
        else:
            moved[known] = mark
    document.marks = moved
