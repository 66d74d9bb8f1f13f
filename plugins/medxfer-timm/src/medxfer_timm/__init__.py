"""timm's networks as medxfer encoders: `timm:resnet50` is the network that timm calls resnet50.

`build` and `card` are what medxfer looks for; timm itself is imported when one of them is called.
"""

from __future__ import annotations

from .building import build
from .cards import card

__all__ = ["build", "card"]
