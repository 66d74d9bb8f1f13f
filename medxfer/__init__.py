"""From a folder of medical images and a pretrained encoder to a measured, explained, portable model.

These names, `medxfer.plugin` and `medxfer.testing` are all that others may rely on. They are resolved on
first use: importing torch and MONAI takes seconds, and `medxfer --help` has to answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .data.policy import ReadPolicy
    from .data.readers import read_image as load_image
    from .encoders.receipt import Receipt
    from .encoders.registry import list_encoders
    from .pipeline import run_bundle
    from .plugin import Encoder
    from .trained import open_run

__version__ = "0.1.0"
__all__ = ["ReadPolicy", "create_encoder", "list_encoders", "load_image", "open_run", "run_bundle"]

# Public name -> module and the name it has there.
_PLACES = {
    "ReadPolicy": ("data.policy", "ReadPolicy"),
    "list_encoders": ("encoders.registry", "list_encoders"),
    "load_image": ("data.readers", "read_image"),
    "open_run": ("trained", "open_run"),
    "run_bundle": ("pipeline", "run_bundle"),
}


def create_encoder(
    id: str,
    *,
    weights: str = "none",
    in_channels: int = 1,
    spatial_dims: int = 2,
    options: Mapping[str, Any] | None = None,
    min_coverage: float = 0.95,
) -> tuple[Encoder, Receipt]:
    """Build an encoder and load its weights.

    Args:
        id: As `medxfer encoders` lists it.
        weights: A tag of its card, the path of a file, or `none`.
        in_channels: Channels of the images; the first convolution is adapted.
        spatial_dims: 2 or 3.
        options: Of the encoder, by name, as on its card.
        min_coverage: Share of the encoder's parameters, and of those of each stage, that must come from the file.

    Returns:
        The encoder, and the receipt that accounts for every tensor.

    Raises:
        ConfigError: No image channel, or a minimum that is no share.
        PluginError: Unknown or broken encoder, dimensions or options that it has not.
        WeightsError: The weights are absent, damaged, or do not fit.
    """
    from .bundle.schema import EncoderSpec
    from .encoders.loading import create_encoder as create

    spec = EncoderSpec(
        id=id, weights=weights, in_channels=in_channels, options=options or {}, min_coverage=min_coverage
    )
    return create(spec, spatial_dims=spatial_dims)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'medxfer' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    module, own_name = _PLACES[name]
    value = getattr(importlib.import_module(f".{module}", __name__), own_name)
    globals()[name] = value  # found once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
