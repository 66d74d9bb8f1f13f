"""The architecture that a trained network had, from its configuration and its own tensors; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..bundle.schema import EncoderSpec
from ..errors import WeightsError
from ..plugin import Encoder, Normalise
from .adapt import place_normalise
from .constants import constant_of
from .registry import build


def rebuild_encoder(spec: EncoderSpec, tensors: Mapping[str, Tensor], *, spatial_dims: int = 2) -> Encoder:
    """Build the encoder as it was when `tensors` were saved.

    How many channels it was built with (1-channel images may feed a 3-channel network) shows in the
    normalisation constants among the tensors.

    Args:
        spec: As in the run's configuration.
        tensors: The trained encoder's state, names without `encoder.`.
        spatial_dims: 2 or 3.

    Raises:
        WeightsError: No normalisation constants among the tensors.
        PluginError: The encoder is not installed any more.
    """
    constants = {name: value for key, value in tensors.items() if (name := constant_of(key))}
    if constants.keys() != {"mean", "std"}:
        seen = "no normalisation constants among the tensors"
        raise WeightsError(
            f"weights of {spec.id}", seen, "the state of a medxfer network", "use the run's own files"
        )
    mean, std = constants["mean"].tolist(), constants["std"].tolist()
    encoder = build(spec.id, spatial_dims=spatial_dims, in_channels=len(mean), options=spec.options)
    place_normalise(encoder, spec.in_channels, Normalise(mean, std))
    return encoder
