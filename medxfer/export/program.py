"""A trained network as a `torch.export` program that gives the numbers `predict` prints."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import RunError
from ..files import write_atomic

# Largest difference between the program and the network, in probability; of logits beyond 1 as a share of the largest.
TOLERANCE = 1e-4


class ExportedProgramModule(nn.Module):
    """Network, temperature and activation as one module: images in, probabilities out.

    Args:
        network: `(B, C, *spatial)` in [0, 1] to logits; copied, so that the caller's stays as it is.
        activate: Logits to probabilities, as the task does it.
        temperature: The logits are divided by it; above 0.
    """

    def __init__(
        self, network: nn.Module, *, activate: Callable[[Tensor], Tensor], temperature: float
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
            # a network trained in channels_last would bake that layout into the program
            parameter.data = parameter.data.contiguous()
        self.activate = activate
        self.temperature = float(temperature)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of `(B, C, *spatial)`."""
        return self.activate(self.network(image) / self.temperature)


def example_images(in_channels: int, shape: Sequence[int], *, batch: int = 2) -> Tensor:
    """Seeded random images `(batch, in_channels, *shape)` in [0, 1], the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, in_channels, *shape, generator=generator)


def export_program(
    module: ExportedProgramModule, *, in_channels: int, shape: Sequence[int]
) -> torch.export.ExportedProgram:
    """Export with a dynamic batch and a fixed size, and compare the program with the module.

    Args:
        module: What to export.
        in_channels: Channels of the input.
        shape: Pixels or voxels along each axis.

    Raises:
        RunError: The network cannot be exported, or the program gives other numbers than the network.
    """
    # two images: a batch of one would be exported as the constant 1
    images = example_images(in_channels, shape)
    try:
        program = torch.export.export(
            module, (images,), dynamic_shapes={"image": {0: torch.export.Dim("batch")}}
        )
    except Exception as error:  # torch.export raises many kinds, none of them ours to tell apart
        seen = str(error).strip().splitlines()
        todo = "see `medxfer plugin check`, check torch.export, for the encoder; --debug shows where it fails"
        accepted = "an encoder without branches that depend on pixel values"
        raise RunError("export: torch.export", seen[0] if seen else repr(error), accepted, todo) from error
    require_equal(program.module(), module, in_channels=in_channels, shape=shape, name="torch.export")
    return program


def require_equal(
    exported: Callable[[Tensor], Tensor],
    module: ExportedProgramModule,
    *,
    in_channels: int,
    shape: Sequence[int],
    name: str,
) -> None:
    """Compare what was exported with the module, on one image and on three.

    Raises:
        RunError: An output differs by more than `TOLERANCE`.
    """
    for batch in (1, 3):
        images = example_images(in_channels, shape, batch=batch)
        with torch.no_grad():
            own = module(images)
            difference = float((exported(images) - own).abs().max())
        limit = TOLERANCE * max(1.0, float(own.abs().max()))
        if not difference <= limit:
            seen = f"outputs differ by {difference:.3g} from the network's, in a batch of {batch}"
            accepted = f"at most {limit:.3g}"
            raise RunError(
                f"export: {name}", seen, accepted, "use another format, and report this encoder to its author"
            )


def write_pt2(path: Path, program: torch.export.ExportedProgram) -> Path:
    """Save a program, atomically."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return write_atomic(path, buffer.getvalue())
