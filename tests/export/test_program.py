"""The exported program gives the probabilities that `predict` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medxfer.errors import RunError
from medxfer.export.program import ExportedProgramModule, export_program, write_pt2

from .conftest import Tiny, softmax, stir


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_saved_program_applies_temperature_and_activation(tmp_path: Path, batch: int) -> None:
    network = stir(Tiny())
    module = ExportedProgramModule(network, activate=softmax, temperature=2.5)
    images = torch.rand(batch, 1, 32, 32)

    path = write_pt2(tmp_path / "model.pt2", export_program(module, in_channels=1, shape=(32, 32)))
    given = torch.export.load(path).module()(images)

    torch.testing.assert_close(given, (network(images) / 2.5).softmax(1), atol=1e-6, rtol=0)


def test_export_leaves_the_network_as_it_was() -> None:
    network = Tiny().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stub
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    export_program(
        ExportedProgramModule(network, activate=softmax, temperature=1.0), in_channels=1, shape=(32, 32)
    )

    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class Branches(nn.Module):
    """Looks at the pixels to decide what to compute, which no export can follow."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return x.mean((2, 3)) if x.mean() > 0.5 else x.amax((2, 3))


class ForgetsBatch(nn.Module):
    """Reads a clock that an export freezes: other numbers for other batches."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.calls += 1
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3)) * self.calls], 1)


def test_network_with_a_branch_on_pixels_is_refused_with_the_remedy() -> None:
    module = ExportedProgramModule(Branches(), activate=softmax, temperature=1.0)

    with pytest.raises(RunError) as refused:
        export_program(module, in_channels=2, shape=(32, 32))

    assert "torch.export" in refused.value.where
    assert "pixel values" in refused.value.accepted


def test_program_with_other_numbers_than_the_network_is_refused() -> None:
    module = ExportedProgramModule(ForgetsBatch(), activate=softmax, temperature=0.1)

    with pytest.raises(RunError, match="differ"):
        export_program(module, in_channels=1, shape=(32, 32))
