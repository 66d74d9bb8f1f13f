"""Encoders with one fault each, named by it; the kit must find every one of them."""

from __future__ import annotations

import contextlib
import socket
import threading

import torch
from torch import Tensor, nn

from medxfer.plugin import Encoder, Normalise


class Sound(Encoder):
    """Three small stages without any fault."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels = 2, in_channels
        self.channels = (8, 16, 32)
        self.strides = ((2, 2), (4, 4), (8, 8))
        self.normalise = Normalise([0.5] * in_channels, [0.25] * in_channels)
        self.stages = nn.ModuleList([stage(in_channels, 8), stage(8, 16), stage(16, 32)])


def stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class FewStrides(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.strides = self.strides[:2]


class ExtraParameter(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[0].append(nn.Conv2d(8, 8, 1))


class LostParameter(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.scale = nn.Parameter(torch.ones(1))

    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        return [state * self.scale for state in super().forward_features(x, start, stop)]


class SharedParameter(Sound):
    """A convolution that is in two stages."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[2].shared = self.stages[1][0]


class WrongChannels(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.channels = (8, 17, 32)


class WrongStride(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[1][0].stride = (2, 1)


class FixedSize(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return state.flatten(2).unflatten(2, (size[0] // (2 << index), size[1] // (2 << index)))


class AlwaysThreeChannels(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(3)
        self.in_channels = in_channels


class ReadsTheImage(Sound):
    """Its last stage reads something besides its input."""

    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        states = super().forward_features(x, start, stop)
        if len(states) > 2:
            states[2] = states[2] + x.mean()
        return states


class MovesBatchNorm(Sound):
    def forward(self, x: Tensor) -> list[Tensor]:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        return super().forward(x)


class DeadParameter(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[1][0].register_parameter("unused", nn.Parameter(torch.ones(1)))


class ReadsNeighbours(Sound):
    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        return super().forward_features(x - x.mean(0, keepdim=True) if start == 0 else x, start, stop)


class DropoutLeftOn(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return nn.functional.dropout(state, 0.5, training=True)


class SeedsByItself(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        import random

        super().__init__(in_channels)
        with torch.no_grad():
            self.stages[0][1].weight.fill_(random.random())


class NotInHalf(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return state + 60000.0 * (state.dtype != torch.float32)


class ReadsNumbersWhileBuilding(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.rate = torch.linspace(0, 1, 3)[1].item()


class SharesMemory(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[2][1].running_var = self.stages[2][1].running_mean


class BranchesOnValues(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return state + 1 if state.mean() > 0 else state


class ForgetsToNormalise(Sound):
    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        states: list[Tensor] = []
        for part in list(self.stages)[start:stop]:
            x = part(x)
            states.append(x)
        return states


class FetchesItsWeights(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        # "Best effort": nobody would know which weights it has.
        with contextlib.suppress(OSError, RuntimeError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)


class DetachesItsInput(Sound):
    def forward_features(self, x: Tensor, start: int = 0, stop: int | None = None) -> list[Tensor]:
        states: list[Tensor] = []
        state = self.normalise(x) if start == 0 else x
        for index, part in list(enumerate(self.stages))[start:stop]:
            state = part(state.detach() if index == 1 else state)
            states.append(state)
        return states


class Shortcut(nn.Module):
    """A convolution beside a shortcut through which no gradient goes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, 2, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x) + self.shortcut(x.detach())


class DetachesItsShortcut(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[1] = Shortcut(8, 16)


class Silenced(nn.Module):
    """A parameter whose gradient is 0 whatever comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * self.bias.view(1, -1, 1, 1)


class ZeroGradient(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[2].append(Silenced(32))


class Flat(Sound):
    """Its middle stage gives next to a constant: nothing before it learns."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.stages[1].append(nn.Hardtanh(-1e-9, 1e-9))


class CannotBeBuilt(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        raise ValueError("no cuda here\nset FOO=1")


class EndsTheProcess(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        raise SystemExit(7)


class StaysInTraining(Sound):
    def train(self, mode: bool = True) -> Sound:
        super().train(mode)
        self.stages[2].train(True)
        return self


class AddsMapsInTraining(Sound):
    """Deep supervision that no head asked for."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = super().forward(x)
        return [*maps, maps[-1]] if self.training else maps


class AssumesMemoryOrder(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        _, channels, rows, columns = state.shape
        return state.as_strided(state.shape, (channels * rows * columns, rows * columns, columns, 1))


class HoldsALock(Sound):
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.lock = threading.Lock()


class KeepsStateApart(Sound):
    """Numbers that no state dict holds."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.calls = 0

    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        self.calls += 1
        return state + self.calls // 4


# Check, encoder with the fault, what its author reads. Faults of a package are in test_package_checks.py.
FAULTS = [
    ("check_attributes", FewStrides, "`strides` has 2 entries, `stages` 3"),
    ("check_card", ExtraParameter, "parameters in 2D, built network has"),
    ("check_stages_own_everything", LostParameter, "`scale` is in no stage"),
    ("check_maps", WrongChannels, "stage 1 gives 16 channels, claims 17"),
    ("check_strides", WrongStride, "stage 1 divides axis 1 by 2, claims 4"),
    ("check_odd_sizes", FixedSize, r"fails at \(71, 71\)"),
    ("check_in_channels", AlwaysThreeChannels, "`normalise` makes 3 channels of 1"),
    ("check_chain", ReadsTheImage, "stage 2 differs"),
    ("check_freezing", MovesBatchNorm, "running_mean` moved while frozen"),
    ("check_gradients", DeadParameter, "`stages.1.0.unused` gets no gradient"),
    ("check_batch_independence", ReadsNeighbours, "stage 0 differs by .* with its neighbours"),
    ("check_determinism", DropoutLeftOn, "dropout left on"),
    ("check_build_seed", SeedsByItself, "`stages.0.1.weight` differs between two builds"),
    ("check_bf16", NotInHalf, "under bf16"),
    ("check_meta_device", ReadsNumbersWhileBuilding, "meta device"),
    ("check_safetensors", SharesMemory, "safetensors refuses"),
    ("check_export", BranchesOnValues, "torch.export fails"),
    ("check_normalisation", ForgetsToNormalise, "another mean changes nothing"),
    ("check_fetches_nothing", FetchesItsWeights, "reaches for 127.0.0.1"),
    ("check_stages_own_everything", SharedParameter, r"stages.1.0.weight` is in stages \[1, 2\]"),
    ("check_modes", DetachesItsInput, "stage 1 detaches its input"),
    ("check_modes", DetachesItsShortcut, "stage 1 passes back .* part of its input is detached"),
    ("check_gradients", ZeroGradient, "`stages.2.3.bias` gets a gradient of 0 everywhere"),
    ("check_gradients", Flat, "gets a gradient of 0 everywhere"),
    ("check_builds", CannotBeBuilt, "ValueError: no cuda here\nset FOO=1"),
    ("check_maps", EndsTheProcess, r"it calls sys\.exit\(7\)"),
    ("check_modes", StaysInTraining, r"eval\(\) does not reach `stages.2`"),
    ("check_heads", AddsMapsInTraining, "no linear head can be trained on it"),
    ("check_channels_last", AssumesMemoryOrder, "differs by .* with channels_last"),
    ("check_copies", HoldsALock, "cannot deepcopy"),
    ("check_copies", KeepsStateApart, "state outside the state dict"),
]
