"""Which installed distributions bring encoders; nothing of them is imported."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .registry import ENCODERS, installed_entry_points, is_disabled, list_encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution with entry points for encoders."""

    name: str
    version: str
    encoders: tuple[str, ...]  # ids; an adapter's with `:<name>`
    errors: tuple[str, ...]  # what is wrong with it, by encoder
    is_disabled: bool  # MEDXFER_DISABLE_PLUGINS leaves out all or some of its encoders


def list_distributions() -> list[Distribution]:
    """Every distribution that brings encoders, medxfer itself first."""
    listings = {one.id: one for one in list_encoders()}
    versions: dict[str, str] = {}
    ids: dict[str, list[str]] = {}
    for entry in installed_entry_points(tuple(sys.path)).select(group=ENCODERS):
        if entry.dist is None:
            continue
        name = entry.dist.name
        versions[name] = entry.dist.version
        ids.setdefault(name, [])
        if entry.name not in ids[name]:  # one distribution found twice on the path
            ids[name].append(entry.name)
    found = []
    for name in sorted(ids, key=lambda one: (one != "medxfer", one)):
        absent = sorted(one for one in ids[name] if is_disabled(name, one))
        known = [listings[one] for one in sorted(ids[name]) if one in listings and one not in absent]
        shown = [f"{one.id}:<name>" if one.is_adapter else one.id for one in known]
        errors = [f"{one.id}: {one.error}" for one in known if one.error]
        found.append(
            Distribution(
                name=name,
                version=versions[name],
                encoders=(*shown, *absent),
                errors=tuple(errors),
                is_disabled=bool(absent),
            )
        )
    return found
