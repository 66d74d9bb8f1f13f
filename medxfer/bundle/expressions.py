"""`$` texts: arithmetic on numbers and text, parsed and never evaluated by Python.

What is left out is left out on purpose: attributes, calls, subscripts and comprehensions reach every
object of the process, `**` and repeated text reach all of its memory.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UnsafeError

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
    values: dict[str, Any] = dict(names)

    def placeholder(match: re.Match[str]) -> str:
        name = f"{_PLACEHOLDER}{len(values)}"
        values[name] = _operand(look_up(match[1]), where)
        return name

    if _PLACEHOLDER in source:
        raise _unsafe(where, f"`{text}`")
    try:
        tree = ast.parse(_REFERENCE.sub(placeholder, source), mode="eval")
        result = _value(tree.body, values, where, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unsafe(where, f"`{text}`") from None
    except ZeroDivisionError:
        raise ConfigError(
            where, f"`{text}` divides by zero", "a finite number", "correct the expression"
        ) from None
    except (TypeError, OverflowError) as error:
        raise ConfigError(where, f"`{text}`: {error}", ACCEPTED, "correct the expression") from None
    if isinstance(result, Path):
        result = str(result)
    if isinstance(result, str) and result[:1] in ("$", "@", "%"):
        raise _unsafe(where, f"`{text}`, which makes another expression")
    return result


def _value(node: ast.expr, values: Mapping[str, Any], where: str, text: str) -> Value:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            if isinstance(constant, str) and _PLACEHOLDER in constant:
                raise _unsafe(where, f"`{text}`: a reference inside quotes")
            return constant
        case ast.Name(id=name) if name in values:
            return values[name]  # type: ignore[no-any-return]  # references are checked when looked up
        case ast.Name(id=name):
            raise _unsafe(where, f"`{text}`: the name `{name}`")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            number = _value(operand, values, where, text)
            if isinstance(number, str | Path):
                raise TypeError("a sign before text")
            return -number if isinstance(node.op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _combine(type(op), _value(left, values, where, text), _value(right, values, where, text))
    raise _unsafe(where, f"`{text}`")


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
