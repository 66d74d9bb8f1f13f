"""What a bundle may say of masks, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cards import nearest
from ..data.image import shown
from ..errors import ConfigError
from .mask_losses import LOSSES

_MOST = 254  # classes: masks are stored as bytes, one of them for what is ignored
_WIDEST = 1024
_DECODER = {
    "width": f"a whole number from 1 to {_WIDEST}",
    "attention": "true or false",
    "deep_supervision": "true or false",
    "dropout": "a number from 0 to below 1",
}
Values = str | Mapping[str, Sequence[int]]


def require_classes(classes: Sequence[str], values: Values, ignore: int | None) -> None:
    """Refuse names that are none, or too many, or values that contradict them or what is ignored."""
    if not 1 <= len(classes) <= _MOST or len(set(classes)) != len(classes):
        seen = f"{len(classes)} names, {len(set(classes))} of them different"
        raise ConfigError(
            "task.classes", seen, f"1 to {_MOST} different names", "name every foreground class once"
        )
    if values == "nonzero" and len(classes) > 1:
        todo = "set task.values=number, or name the values of each class"
        raise ConfigError("task.values", f"nonzero with {len(classes)} classes", "one class", todo)
    known = set(range(1, len(classes) + 1))
    if not isinstance(values, str):
        known = {value for own in values.values() for value in own}
    if ignore is not None and values != "nonzero" and ignore in known:
        accepted = "a value that is no class"
        raise ConfigError("task.ignore", f"{ignore}, which is a class too", accepted, "correct one of them")
    if isinstance(values, str):
        return
    if set(values) != set(classes):
        seen = ", ".join(map(str, values)) or "nothing"
        raise ConfigError("task.values", seen, ", ".join(classes), "give the values of each class")
    taken = [value for own in values.values() for value in own]
    if len(set(taken)) != len(taken) or not taken or min(taken) < 1:
        raise ConfigError(
            "task.values", f"{dict(values)}", "whole numbers above 0, each once", "correct them"
        )


def require_regions(regions: Mapping[str, Sequence[str]] | None, classes: Sequence[str]) -> None:
    """Refuse regions of classes that are not there."""
    for name, own in (regions or {}).items():
        unknown = [one for one in own if one not in classes]
        if unknown or not own:
            seen = f"unknown class {', '.join(unknown)}" if unknown else "no class"
            raise ConfigError(f"task.regions.{name}", seen, ", ".join(classes), "name some of task.classes")


def require_numbers(loss: str, overlap: float, tolerance: float, flips: Sequence[int]) -> None:
    """Refuse what no network can be trained or asked with."""
    if loss not in LOSSES:
        raise ConfigError("task.loss", loss, ", ".join(LOSSES), "name one of these")
    if not 0 <= overlap < 0.95:
        raise ConfigError("task.overlap", f"{overlap:g}", "0 to below 0.95", "0.25 is quick, 0.5 smooth")
    if tolerance <= 0:
        raise ConfigError("task.tolerance", f"{tolerance:g}", "mm above 0", "2 is usual")
    if any(axis not in (0, 1, 2) for axis in flips) or len(set(flips)) != len(flips):
        raise ConfigError(
            "task.flips", f"{list(flips)}", "some of 0, 1, 2", "name axes of the image, each once"
        )


def require_decoder(decoder: Mapping[str, Any]) -> None:
    """Refuse arguments that the decoder does not have, or cannot be built with."""
    for name, value in decoder.items():
        where, number = f"task.decoder.{name}", isinstance(value, int | float) and not isinstance(value, bool)
        if name not in _DECODER:
            raise ConfigError(where, "no such option", ", ".join(_DECODER), nearest(name, _DECODER))
        fits = {
            "width": number and isinstance(value, int) and 1 <= value <= _WIDEST,
            "dropout": number and 0 <= value < 1,
        }.get(name, isinstance(value, bool))
        if not fits:
            raise ConfigError(where, shown(str(value)), _DECODER[name], f"correct {name}")


def by_value(values: Mapping[str, Sequence[int]], classes: Sequence[str]) -> dict[int, int]:
    """Value of a mask file -> class number."""
    return {value: classes.index(name) + 1 for name, own in values.items() for value in own}
