"""What the reader may do with an image that is not as it should be; the default refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from ..errors import ConfigError

ON_GEOMETRY = ("stop", "resample", "warn")
ON_NONFINITE = ("stop", "zero")
ORIENTATIONS = ("axial", "coronal", "sagittal")
# What may tell several volumes of one series apart; looked up in this order.
VOLUME_TAGS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "InversionTime",
    "FlipAngle",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "KVP",
    "ConvolutionKernel",
    "ImageType",
    "StackID",
    "EchoNumbers",
    "AcquisitionNumber",
    "AcquisitionTime",
)
ALL = "channels"  # every volume of a 4D file
SERIES_RULES = ("modality", "description", "orientation", "slices")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPolicy:
    """How to read what is not plain.

    Args:
        on_geometry: A slice missing, uneven steps or a tilted gantry: `stop` refuses, `resample` puts the voxels on an
            even grid with right angles, `warn` keeps them and says so.
        series: Rules that choose one of several series: `modality`, `description` (a regular expression, found
            anywhere, case aside), `orientation` (axial, coronal, sagittal), `slices` (at least).
        select: Tag and value that choose one of several volumes in a series, as {"EchoTime": 30}; of VOLUME_TAGS.
        volume: Which volume of a 4D file, from 0; or `channels`: all of them, as channels of one image.
        frames: Which picture of frames without position (cine): `first`, `middle`, or its number from 1.
        on_nonfinite: NaN and infinite values: `stop` refuses, `zero` sets them to 0 and says so.

    Raises:
        ConfigError: A value that is not among these.
    """

    on_geometry: str = "stop"
    series: Mapping[str, str | int] = field(default_factory=dict)
    select: Mapping[str, str | float] = field(default_factory=dict)
    volume: int | str | None = None
    frames: str | int | None = None
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        _one_of("on_geometry", self.on_geometry, ON_GEOMETRY)
        _one_of("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        for name, value in self.series.items():
            _check_rule(name, value)
        for name in self.select:
            if name not in VOLUME_TAGS:
                near = get_close_matches(name, VOLUME_TAGS, n=1)
                todo = f"write {near[0]}" if near else "remove it"
                raise ConfigError(f"select.{name}", "no tag that selects", ", ".join(VOLUME_TAGS), todo)
        if self.volume not in (None, ALL) and (not _is_whole(self.volume) or int(self.volume or 0) < 0):
            accepted = f"a whole number from 0, or {ALL}"
            raise ConfigError("volume", repr(self.volume), accepted, "count volumes from 0")
        if self.frames is None or self.frames in ("first", "middle"):
            return
        if not _is_whole(self.frames) or int(self.frames) < 1:
            accepted = "first, middle, or a whole number from 1"
            raise ConfigError("frames", repr(self.frames), accepted, "count frames from 1")


def _check_rule(name: str, value: str | int) -> None:
    """A rule that chooses a series."""
    where = f"series.{name}"
    if name not in SERIES_RULES:
        near = get_close_matches(name, SERIES_RULES, n=1)
        todo = f"write {near[0]}" if near else "remove it"
        raise ConfigError(where, "no such rule", ", ".join(SERIES_RULES), todo)
    if name == "slices":
        if not _is_whole(value) or int(value) < 1:
            raise ConfigError(where, repr(value), "a whole number from 1", "name the least number of slices")
        return
    if not isinstance(value, str) or not value:
        raise ConfigError(where, repr(value), "text", "put it in quotes")
    if name == "orientation":
        _one_of(where, value, ORIENTATIONS)
    if name == "description":
        try:
            re.compile(value)
        except re.error as error:
            accepted = "a regular expression"
            raise ConfigError(where, f"{value!r}: {error}", accepted, "correct the pattern") from None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(where: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ConfigError(where, repr(value), ", ".join(accepted), f"write {accepted[0]}")


STRICT = ReadPolicy()  # refuses all that is not plain
