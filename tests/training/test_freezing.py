import pytest
import torch

from medxfer.bundle.schema import EncoderSpec, PhaseSpec
from medxfer.encoders.loading import create_encoder
from medxfer.errors import ConfigError
from medxfer.networks.freezing import prepare_phase
from medxfer.networks.heads import ClassificationHead
from medxfer.networks.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    encoder, _ = create_encoder(EncoderSpec(id="resnet18"))
    return Network(encoder, ClassificationHead(encoder.channels, 2))


def phase(train: str, **values: object) -> PhaseSpec:
    return PhaseSpec(name="p", train=train, lr=1e-2, epochs=1, weight_decay=0.1, **values)


def step(network: Network) -> dict[str, torch.Tensor]:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = [p for p in network.parameters() if p.requires_grad]
    network.train()
    network(torch.rand(4, 1, 32, 32)).square().sum().backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    network.zero_grad()
    return before


def moved(network: Network, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_head_phase_moves_nothing_of_the_encoder_not_even_statistics(network: Network) -> None:
    prepare_phase(network, phase("head"))
    torch.nn.init.normal_(network.head.linear.weight)

    assert all(name.startswith("head.") for name in moved(network, step(network)))


def test_last_stages_alone_move(network: Network) -> None:
    prepare_phase(network, phase("last_k", k=1, statistics="update"))
    last = len(network.encoder.stages) - 1

    names = moved(network, step(network))

    assert any("running_mean" in name for name in names)
    assert all(name.startswith((f"encoder.stages.{last}.", "head.")) for name in names)


def test_kept_statistics_stay_while_everything_trains(network: Network) -> None:
    prepare_phase(network, phase("all", statistics="keep"))

    names = moved(network, step(network))

    assert any(name.startswith("encoder.stages.0.") for name in names)
    assert not any("running" in name for name in names)


@pytest.mark.parametrize(("train", "ending"), [("norm", ("weight", "bias")), ("bias", ("bias",))])
def test_norm_and_bias_phases_train_vectors_only(
    network: Network, train: str, ending: tuple[str, ...]
) -> None:
    prepare_phase(network, phase(train))

    trained = {n: p for n, p in network.encoder.named_parameters() if p.requires_grad}

    assert trained
    assert all(name.endswith(ending) for name in trained)
    assert all(parameter.ndim == 1 for parameter in trained.values())


def test_rates_fall_towards_the_input_and_vectors_do_not_decay(network: Network) -> None:
    groups = prepare_phase(network, phase("all", layer_decay=0.5))

    stages = len(network.encoder.stages)
    rates = sorted({group["lr"] for group in groups})
    assert rates == pytest.approx(sorted([1e-2] + [1e-2 * 0.5 ** (stages - i) for i in range(stages)]))
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_more_stages_than_there_are_is_refused(network: Network) -> None:
    with pytest.raises(ConfigError, match="1 to"):
        prepare_phase(network, phase("last_k", k=9))
