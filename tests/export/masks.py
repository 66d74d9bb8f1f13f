"""A segmentation that was never trained, exported, and the masks that medxfer makes of files with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medxfer.bundle.schema import Bundle, Component, DataSpec, EncoderSpec, ImagesSpec, PhaseSpec
from medxfer.data.formats.grids import source_grid
from medxfer.data.placed import Placed, placed
from medxfer.data.presets import prepared, steps_of
from medxfer.data.readers import read_image
from medxfer.data.regrid import decided_on_grid
from medxfer.encoders.loading import create_encoder
from medxfer.export.trained_export import export_as_bundle
from medxfer.networks.network import Network
from medxfer.networks.windows import predict_windows
from medxfer.tasks.base import MaskAnswer
from medxfer.tasks.masked import cleaned
from medxfer.tasks.segmentation import Segmentation
from medxfer.trained import Trained


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MadeMasks:
    """What was exported, and how medxfer answers."""

    folder: Path
    trained: Trained

    @property
    def answer(self) -> MaskAnswer:
        answer = self.trained.task.answer()
        assert isinstance(answer, MaskAnswer)
        return answer

    def prepared(self, path: Path) -> Placed:
        return prepared(placed(read_image(path)), self.trained.steps)

    def mask_of(self, path: Path, *, cleaned_too: bool = True) -> np.ndarray:
        """(*spatial) class numbers, or (K, *spatial) bool, on the file's grid."""
        answer, image = self.answer, self.prepared(path)
        with torch.no_grad():
            logits = predict_windows(
                self.trained.network,
                image.values[None],
                self.trained.bundle.images.shape,
                overlap=answer.overlap,
            )
        probabilities = self.trained.task.activate(logits)[0].numpy()
        mask = decided_on_grid(probabilities, image.affine, source_grid(path), threshold=answer.threshold)
        if not cleaned_too:
            return mask
        return cleaned(mask, keep_largest=answer.keep_largest, fill_holes=answer.fill_holes)


def export_masks(
    target: Path, images: ImagesSpec, samples: Sequence[Path], *, channels: int = 1, **arguments: Any
) -> MadeMasks:
    """A bundle of random weights; all of its classes are found in images like the samples."""
    made = made_masks(target, images, samples, channels=channels, **arguments)
    export_as_bundle(made.trained, made.folder, target)
    return made


def made_masks(
    target: Path, images: ImagesSpec, samples: Sequence[Path], *, channels: int = 1, **arguments: Any
) -> MadeMasks:
    """The same without the export."""
    torch.manual_seed(3)
    encoder_spec = EncoderSpec(id="cnn", in_channels=channels)
    encoder, _ = create_encoder(encoder_spec, spatial_dims=images.network_dims)
    task = Segmentation(**arguments)
    network = Network(encoder, task.head(encoder), window=images.shape, flips=task.flips).eval()
    steps = steps_of(images, channels)
    listed = images.transforms or ()
    bundle = Bundle(
        name="masks", folder=target, data=DataSpec(source="x"), encoder=encoder_spec,
        images=dataclasses.replace(images, transforms=tuple(listed), augment=()),
        task=Component(target="Segmentation", arguments=arguments),
        phases=(PhaseSpec(name="all", train="all", lr=1e-3, epochs=1),),
    )  # fmt: skip
    trained = Trained(bundle=bundle, task=task, network=network, steps=steps, calibration={})
    made = MadeMasks(folder=target / "bundle", trained=trained)
    _spread(made, samples)
    return made


def _spread(made: MadeMasks, samples: Sequence[Path]) -> None:
    """Scale the last layer so that every class is the most probable one somewhere."""
    network, window = made.trained.network, made.trained.bundle.images.shape
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        found = [
            predict_windows(network, made.prepared(path).values[None], window, overlap=0.5)[0].flatten(1)
            for path in samples
        ]
        logits = torch.cat(found, 1)
        spread = 3 / logits.std(1)
        last.bias.sub_(logits.mean(1)).mul_(spread)
        last.weight.mul_(spread.view(-1, *[1] * (last.weight.ndim - 1)))
