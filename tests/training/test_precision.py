import pytest
import torch
from torch import nn

from medxfer.errors import ConfigError
from medxfer.training.precision import Precision, choose_precision


class Small(nn.Module):
    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.convolution, self.power = nn.Conv2d(1, 8, 3), power

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).mean((2, 3)) ** self.power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class WrongUnderAutocast(Small):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        found = super().features(x)
        return found * float("nan") if torch.is_autocast_enabled("cpu") else found


IMAGES = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_what_the_bundle_says_is_taken() -> None:
    chosen = choose_precision(Small(), IMAGES, precision="bf16", memory_format="contiguous", backward=True)

    assert (chosen.precision, chosen.memory_format) == ("bf16", "contiguous")
    assert chosen.why == "as the bundle says"


def test_probe_says_what_it_measured_and_leaves_the_network_alone() -> None:
    network = Small()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    chosen = choose_precision(network, IMAGES, precision="auto", memory_format="auto", backward=True)

    assert "ms" in chosen.why
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_precision_that_computes_something_else_is_refused() -> None:
    chosen = choose_precision(
        WrongUnderAutocast(), IMAGES, precision="auto", memory_format="contiguous", backward=True
    )

    assert chosen.precision == "fp32"


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision(Small(), IMAGES, precision="fp16", memory_format="auto", backward=True)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_step_lowers_the_loss(name: str) -> None:
    network = Small()
    precision = Precision(name, "channels_last", torch.device("cpu"))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []

    for _ in range(5):
        with precision.autocast():
            loss = network(IMAGES).float().square().mean()
        losses.append(float(loss.detach()))
        precision.step(loss, optimiser, list(network.parameters()), 1.0)

    assert losses[-1] < losses[0]


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: fp16 with a gradient scaler runs there only"
)
def test_fp16_trains_on_a_gpu() -> None:
    device = torch.device("cuda")
    network, images = Small().to(device), IMAGES.to(device)
    precision = Precision("fp16", "channels_last", device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)

    with precision.autocast():
        loss = network(images).float().square().mean()
    precision.step(loss, optimiser, list(network.parameters()), 1.0)

    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
