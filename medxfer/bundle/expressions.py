"""`$` texts: arithmetic on numbers and text, parsed and never evaluated by Python.

What is left out is left out on purpose: attributes, calls, subscripts and comprehensions reach every
object of the process, `**` and repeated text reach all of its memory.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UnsafeError
from .source import printable

MAX_LENGTH = 200  # characters of an expression
MAX_TEXT = 10_000  # characters of a result
MAX_NUMBER = 2**64

Value = int | float | str | Path

ACCEPTED = "numbers, text, @references, bundle_root and + - * / // %"
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:::|#)\w+)*)")
_PLACEHOLDER = "reference_number_"
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def evaluate(
    text: str, look_up: Callable[[str], Any], names: Mapping[str, Value], where: str
) -> int | float | str:
    """Work out a `$` text.

    Args:
        text: With its `$`.
        look_up: Value of a reference such as `training::batch`.
        names: What a bare name means.
        where: File, line and key, for messages.

    Returns:
        A number or text; a path as text.

    Raises:
        UnsafeError: Anything but arithmetic.
        ConfigError: Arithmetic that cannot be done, such as a division by zero.
    """
    source = text[1:].strip()
    if len(source) > MAX_LENGTH:
        raise _unsafe(where, f"{len(source)} characters of expression, {MAX_LENGTH} allowed")
    references: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = f"{_PLACEHOLDER}{len(references)}"
        references[name] = match[1]
        return name

    shown = printable(text)
    try:
        tree = ast.parse(_REFERENCE.sub(placeholder, source), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unsafe(where, f"`{shown}`") from None
    if _PLACEHOLDER in source or not all(
        _is_arithmetic(node, {*names, *references}) for node in ast.walk(tree)
    ):
        raise _unsafe(where, f"`{shown}`")

    def named(name: str) -> Value:
        return _operand(look_up(references[name]), where) if name in references else names[name]

    try:
        result = _value(tree.body, named)
    except ZeroDivisionError:
        raise ConfigError(
            where, f"`{shown}` divides by zero", "a finite number", "correct the expression"
        ) from None
    except (TypeError, OverflowError) as error:
        raise ConfigError(where, f"`{shown}`: {error}", ACCEPTED, "correct the expression") from None
    if isinstance(result, Path):
        result = str(result)
    if isinstance(result, str) and result[:1] in ("$", "@", "%"):
        raise _unsafe(where, f"`{shown}`, which makes another expression")
    return result


def _is_arithmetic(node: ast.AST, names: Collection[str]) -> bool:
    """Whether a node is on the list; whatever Python adds to its grammar is not."""
    match node:
        case ast.Constant(value=str() as text):
            return _PLACEHOLDER not in text  # a reference inside quotes
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Expression() | ast.UnaryOp() | ast.BinOp() | ast.Load() | ast.USub() | ast.UAdd():
            return True
    return type(node) in _OPERATORS


def _value(node: ast.expr, named: Callable[[str], Value]) -> Value:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.Name(id=name):
            return named(name)
        case ast.UnaryOp(op=op, operand=operand):
            number = _value(operand, named)
            if isinstance(number, str | Path):
                raise TypeError("a sign before text")
            return -number if isinstance(op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(type(op), _value(left, named), _value(right, named))
    raise TypeError(f"{type(node).__name__} is no arithmetic")


def _combine(op: type[ast.operator], left: Value, right: Value) -> Value:
    is_text = isinstance(left, str) and isinstance(right, str) and op is ast.Add
    is_path = isinstance(left, Path) and isinstance(right, str | Path) and op is ast.Div
    if not (is_text or is_path) and (isinstance(left, str | Path) or isinstance(right, str | Path)):
        raise TypeError("text takes + with text, a path takes / with text")
    result: Value = _OPERATORS[op](left, right)
    if isinstance(result, str | Path):
        if len(str(result)) > MAX_TEXT:
            raise OverflowError("the text becomes too long")
    elif not abs(result) <= MAX_NUMBER:
        raise OverflowError("the number becomes too large")
    return result


def _operand(value: Any, where: str) -> int | float | str:
    if isinstance(value, int | float | str):
        return value
    seen = f"a reference to {'nothing' if value is None else 'a list or mapping'} in an expression"
    raise ConfigError(where, seen, "a reference to a number or text", "name a single value")


def _unsafe(where: str, seen: str) -> UnsafeError:
    todo = "write the value itself; if you have read the file and trust it: --trust"
    return UnsafeError(where, seen, ACCEPTED, todo)


def with_values(text: str, look_up: Callable[[str], Any]) -> str:
    """A `$` text with its references written out, so that it stands by itself."""
    return _REFERENCE.sub(lambda match: repr(look_up(match[1])), text)


def trusted_value(text: str) -> Any:
    """Let MONAI evaluate a `$` text as Python. Only for a bundle that the user has read and trusts.

    Args:
        text: With its `$`, without references; torch, numpy (`np`) and monai are known to it.
    """
    from monai.bundle.config_parser import ConfigParser

    return ConfigParser({"value": text}).get_parsed_content("value")
