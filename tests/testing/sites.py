"""Distributions on the path as an installation leaves them, written for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

# Classes apart from build functions: a module of a plugin is often cut so.
TINY = """
from torch import nn
from medxfer.plugin import Encoder, Normalise

class Tiny(Encoder):
    def __init__(self, in_channels, width):
        super().__init__()
        self.spatial_dims, self.in_channels = 2, in_channels
        self.channels, self.strides = (width, width), ((2, 2), (4, 4))
        self.normalise = Normalise([0.5] * in_channels, [0.5] * in_channels)
        sizes = (in_channels, width, width)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(sizes, sizes[1:]))

def build(*, spatial_dims, in_channels, width=8):
    if spatial_dims != 2:
        raise ValueError("2D only")
    return Tiny(in_channels, width)

def build_anything(**options):
    return Tiny(3, 8)

def build_unsaid(*, spatial_dims, in_channels, width=8, depth=2):
    return Tiny(in_channels, width)

def build_other_default(*, spatial_dims, in_channels, width=16):
    return Tiny(in_channels, width)

def build_fixed():
    return Tiny(3, 8)
"""
CARD = """
{name}:
  parameters: {{2: 808}}
  channels: [8, 8]
  strides: [2, 4]
  options: {{width: 8}}
  licence: {licence}
  citation: {citation}
"""


def card(name: str, *, licence: str = "MIT", citation: str = "A paper.", weights: str = "") -> str:
    """A card that is true of `Tiny`."""
    return CARD.format(name=name, licence=licence, citation=citation) + weights


class Site:
    """A folder on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        *,
        encoders: Mapping[str, str],
        code: str = TINY,
        cards: str | None = None,
        modules: Mapping[str, str] | None = None,
        adapters: Sequence[str] = (),
    ) -> Path:
        """Write a distribution of version 1.0; returns the package's folder."""
        package = name.replace("-", "_")
        place = self.folder / package
        place.mkdir()
        (place / "__init__.py").write_text(code, encoding="utf-8")
        for module, text in (modules or {}).items():
            (place / f"{module}.py").write_text(text, encoding="utf-8")
        info = self.folder / f"{package}-1.0.dist-info"
        info.mkdir()
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(about, encoding="utf-8")
        points = "[medxfer.encoders]\n" + "".join(f"{key} = {value}\n" for key, value in encoders.items())
        if adapters:
            points += "[medxfer.adapters]\n" + "".join(f"{key} = {encoders[key]}\n" for key in adapters)
        if cards is not None:
            (place / "cards.yaml").write_text(cards, encoding="utf-8")
            points += f"[medxfer.cards]\n{package} = {package}:cards.yaml\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        return place
