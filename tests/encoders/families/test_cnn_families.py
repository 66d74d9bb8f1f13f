"""Convolutional families: card and object agree for every id; blocks of our own give what MONAI's give."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from medxfer.encoders.families.efficientnet import build_b0
from medxfer.encoders.families.resnet import ZeroPadShortcut
from medxfer.encoders.registry import build
from medxfer.errors import PluginError
from medxfer.plugin import Encoder, Normalise
from medxfer.testing import CHECKS, Subject

IDS = (
    "cnn",
    *(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152)),
    *(f"densenet{depth}" for depth in (121, 169, 201, 264)),
    *(f"efficientnet_b{size}" for size in range(5)),
    "se_resnext50",
    "senet154",
    "unet",
)
CHEAP = ("check_attributes", "check_card", "check_stages_own_everything")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("encoder_id", IDS)
def test_card_says_what_is_built(encoder_id: str, dims: int) -> None:
    with torch.device("meta"):  # shapes only: no numbers, no time
        encoder = build(encoder_id, spatial_dims=dims, in_channels=3)
    chosen = [check for check in CHECKS if check.__name__ in CHEAP]

    assert len(chosen) == len(CHEAP)
    for check in chosen:
        check(Subject(encoder_id, dims, make=lambda _: encoder))
    if dims == 3:  # the rounding of one axis is that of any
        require_promised_shapes(encoder, (33, 64, 38))


def require_promised_shapes(encoder: Encoder, size: tuple[int, ...]) -> None:
    with torch.device("meta"):
        maps = encoder(torch.empty(2, encoder.in_channels, *size))
    for found, channels, strides in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert found.shape[:2] == (2, channels)
        for seen, length, stride in zip(found.shape[2:], size, strides, strict=True):
            assert seen in (math.floor(length / stride), math.ceil(length / stride))


def last_map(encoder: Encoder, images: Tensor) -> Tensor:
    encoder.normalise = Normalise([0.0] * images.shape[1], [1.0] * images.shape[1])
    with torch.no_grad():
        return encoder.eval()(images)[-1]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def shaken(network: nn.Module) -> dict[str, Tensor]:
    """Its state with every normalisation away from 1 and 0, so that a lost or exchanged one shows."""
    generator = torch.Generator().manual_seed(4)
    for value in network.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + 0.8)
    return network.state_dict()


def load(encoder: Encoder, published: dict[str, Tensor]) -> None:
    """Strictly, the stage's number apart."""
    names = {re.sub(r"stages\.\d+\.", "", name): name for name in encoder.state_dict()}
    state = {names[name]: value for name, value in published.items() if name in names}
    constants = {n: v for n, v in encoder.state_dict().items() if n.startswith("normalise")}
    encoder.load_state_dict({**state, **constants})


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("encoder_id", "block"), [("resnet10", "basic"), ("resnet50", "bottleneck")])
def test_resnet_gives_what_medicalnets_architecture_gives(encoder_id: str, block: str, shortcut: str) -> None:
    from monai.networks.nets.resnet import ResNetFeatures, get_inplanes

    layers = {"basic": [1, 1, 1, 1], "bottleneck": [3, 4, 6, 3]}[block]
    theirs = ResNetFeatures.__new__(ResNetFeatures)
    super(ResNetFeatures, theirs).__init__(
        block,
        layers,
        get_inplanes(),
        n_input_channels=1,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        feed_forward=False,
        bias_downsample=False,
    )
    ours = build(encoder_id, spatial_dims=3, in_channels=1, options={"shortcut": shortcut})
    load(ours, shaken(theirs))
    images = noise(1, 1, 20, 33, 24)

    seen = last_map(ours, images)

    with torch.no_grad():
        torch.testing.assert_close(seen, theirs.eval()(images)[-1])


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_passes_through_shortcut_a(dims: int) -> None:
    encoder = build("resnet10", spatial_dims=dims, in_channels=1, options={"shortcut": "A"})
    layer = encoder.stages[2].get_submodule("layer2")
    nn.init.zeros_(layer.get_parameter("0.bn2.weight"))  # nothing comes through the main path
    state = noise(1, 64, *[8] * dims).requires_grad_()

    layer(state).sum().backward()

    assert float(state.grad.abs().sum()) > 0  # MONAI's: 0


def test_zero_pad_shortcut_thins_and_widens() -> None:
    x = noise(2, 3, 5, 6)

    seen = ZeroPadShortcut(7, stride=2)(x)

    assert seen.shape == (2, 7, 3, 3)
    torch.testing.assert_close(seen[:, :3], x[:, :, ::2, ::2])
    assert not seen[:, 3:].any()


def test_shortcut_a_has_no_parameters_and_a_bias_is_an_option() -> None:
    def parameters(**options: object) -> int:
        with torch.device("meta"):
            encoder = build("resnet18", spatial_dims=3, in_channels=1, options=options)
        return sum(parameter.numel() for parameter in encoder.parameters())

    usual = parameters()

    convolutions = 64 * 128 + 128 * 256 + 256 * 512
    channels = 128 + 256 + 512
    assert usual - parameters(shortcut="A") == convolutions + 2 * channels
    assert parameters(bias_downsample=True) - usual == channels


@pytest.mark.parametrize(
    ("encoder_id", "options", "accepted"),
    [
        ("resnet18", {"shortcut": "C"}, "A or B"),
        ("resnet50", {"bias_downsample": "no"}, "true or false"),
        ("cnn", {"convolutions": 0}, "1, 2, 3 or 4"),
        ("unet", {"width": 12}, "a multiple of 8 up to 320"),
        ("unet", {"stages": 7}, "3 to 6"),
        ("efficientnet_b0", {"drop_connect": 1.0}, "from 0 to below 1"),
    ],
)
def test_senseless_option_is_refused(encoder_id: str, options: dict[str, object], accepted: str) -> None:
    with pytest.raises(PluginError) as caught:
        build(encoder_id, spatial_dims=2, in_channels=1, options=options)

    assert caught.value.where == f"encoder.options.{next(iter(options))}"
    assert caught.value.accepted == accepted


@pytest.mark.parametrize("dims", [2, 3])
def test_efficientnet_gives_what_monais_gives_at_its_image_size(dims: int) -> None:
    from monai.networks.nets.efficientnet import EfficientNetBN

    theirs = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=dims, in_channels=1)
    published = {re.sub(r"_blocks\.\d+\.(\d+)", r"block\1", n): v for n, v in shaken(theirs).items()}
    published = {f"stem.{n}" if n.startswith(("_conv_stem", "_bn0")) else n: v for n, v in published.items()}
    ours = build("efficientnet_b0", spatial_dims=dims, in_channels=1)
    load(ours, published)
    images = noise(1, 1, *[32] * dims)  # 224, theirs, is a multiple of 32, too: the same padding

    seen = last_map(ours, images)

    with torch.no_grad():
        wanted = theirs.eval()._blocks(
            theirs._swish(theirs._bn0(theirs._conv_stem(nn.functional.pad(images, [0, 1] * dims))))
        )
    torch.testing.assert_close(seen, wanted)


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 65])
def test_efficientnet_pads_as_tensorflow_does(size: int) -> None:
    encoder = build_b0(spatial_dims=2, in_channels=1).eval()

    with torch.no_grad():
        maps = encoder(torch.rand(1, 1, size, size))

    lengths = [size]
    for _ in maps:
        lengths.append(math.ceil(lengths[-1] / 2))
    assert [found.shape[-1] for found in maps] == lengths[1:]


def test_drop_connect_skips_blocks_in_training_only() -> None:
    encoder = build("efficientnet_b0", spatial_dims=2, in_channels=1, options={"drop_connect": 0.9})
    block = encoder.stages[4].get_submodule("block13")
    state = noise(64, 192, 2, 2)

    with torch.no_grad():
        trained, evaluated = block.train()(state), block.eval()(state)

    skipped = (trained == state).flatten(1).all(1)
    assert 0.5 < float(skipped.float().mean()) < 1
    assert not (evaluated == state).flatten(1).all(1).any()


def cadene(name: str) -> str:
    """The published name of one of MONAI's SENet."""
    name = re.sub(r"conv(\d)\.adn\.N", r"bn\1", name)
    name = re.sub(r"conv(\d)\.conv", r"conv\1", name)
    name = name.replace("project.conv", "downsample.0").replace("project.adn.N", "downsample.1")
    return name.replace("se_layer.fc.0", "se_module.fc1").replace("se_layer.fc.2", "se_module.fc2")


@pytest.mark.parametrize("dims", [2, 3])
def test_se_resnext_gives_what_monais_gives(dims: int) -> None:
    from monai.networks.nets.senet import SEResNeXt50

    theirs = SEResNeXt50(spatial_dims=dims, in_channels=1)
    kernel = [1] * dims
    state = {
        cadene(n): v.reshape(*v.shape, *kernel) if "se_layer" in n and v.ndim == 2 else v
        for n, v in shaken(theirs).items()
    }
    ours = build("se_resnext50", spatial_dims=dims, in_channels=1)
    load(ours, state)
    images = noise(1, 1, 33, *[32] * (dims - 1))

    seen = last_map(ours, images)

    with torch.no_grad():
        torch.testing.assert_close(seen, theirs.eval().features(images))


def test_senet154_has_the_tensors_of_monais() -> None:
    from monai.networks.nets.senet import SENet154

    with torch.device("meta"):
        theirs = SENet154(spatial_dims=2, in_channels=3)
        ours = build("senet154", spatial_dims=2, in_channels=3)
    wanted = {cadene(n): v.numel() for n, v in theirs.state_dict().items() if "last_linear" not in n}

    seen = {re.sub(r"stages\.\d+\.", "", n): v.numel() for n, v in ours.state_dict().items()}

    assert {n: count for n, count in seen.items() if not n.startswith("normalise")} == wanted


def test_plain_network_has_no_shortcut_and_takes_a_number_of_convolutions() -> None:
    one = build("cnn", spatial_dims=2, in_channels=1, options={"convolutions": 1})

    kinds = [type(module).__name__ for stage in one.stages for module in stage]

    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4


@pytest.mark.parametrize("dims", [2, 3])
def test_unet_begins_at_full_size_doubles_to_320_and_trains_on_one_voxel(dims: int) -> None:
    encoder = build("unet", spatial_dims=dims, in_channels=1, options={"width": 40, "stages": 5})

    maps = encoder.train()(noise(1, 1, *[9] * dims))
    one = encoder(noise(1, 1, *[1] * dims))

    assert [tuple(found.shape[1:3]) for found in maps] == [(40, 9), (80, 5), (160, 3), (320, 2), (320, 1)]
    assert all(bool(torch.isfinite(found).all()) for found in one)


def test_unet_is_two_convolutions_a_stage_without_shortcut() -> None:
    encoder = build("unet", spatial_dims=3, in_channels=1, options={"stages": 3})

    layers = [[type(module).__name__ for module in stage] for stage in encoder.stages]
    strides = [m.stride[0] for m in encoder.modules() if isinstance(m, nn.Conv3d)]

    assert layers == [["Conv3d", "GroupNorm", "LeakyReLU"] * 2] * 3
    assert strides == [1, 1, 2, 1, 2, 1]
