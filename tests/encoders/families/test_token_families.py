"""Transformers and SegResNet: the numbers of the published networks, in stages, at every size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medxfer.encoders.keymaps import read_key_map
from medxfer.encoders.registry import build, card_of
from medxfer.errors import PluginError
from medxfer.evaluation.explain import grad_cam
from medxfer.export.program import ExportedProgramModule, export_program
from medxfer.networks.heads import ClassificationHead
from medxfer.networks.network import Network
from medxfer.plugin import Encoder
from medxfer.testing import CHECKS, Subject

IDS = ("segresnet", "swin", "vit_base", "vit_small", "vit_tiny")
SMALL: Mapping[str, Mapping[str, Any]] = {
    "segresnet": {"init_filters": 8},
    "swin": {"feature_size": 12, "window": 3},
    "vit_tiny": {"image_size": 64},  # so that the 2D test images need interpolated positions
}


def small(encoder_id: str, dims: int, in_channels: int = 3) -> Encoder:
    return build(encoder_id, spatial_dims=dims, in_channels=in_channels, options=SMALL[encoder_id])


def small_subject(encoder_id: str, dims: int) -> Subject:
    """A narrow one, with a card that says so; the true card is compared on the meta device below."""
    one = small(encoder_id, dims)
    count = sum(parameter.numel() for parameter in one.parameters())
    card = replace(card_of(encoder_id), channels=one.channels, parameters={dims: count})
    return Subject(encoder_id, dims, make=lambda channels: small(encoder_id, dims, channels), card=card)


SUBJECTS = {(name, dims): small_subject(name, dims) for name in SMALL for dims in (2, 3)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize(("encoder_id", "dims"), SUBJECTS)
def test_conformance(encoder_id: str, dims: int, check: Callable[[Subject], None]) -> None:
    check(SUBJECTS[encoder_id, dims])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("encoder_id", IDS)
def test_card_says_what_is_built(encoder_id: str, dims: int) -> None:
    card = card_of(encoder_id)

    with torch.device("meta"):
        encoder = build(encoder_id, spatial_dims=dims, in_channels=3)
        maps = encoder(torch.empty(1, 3, *((64,) * dims)))

    assert sum(parameter.numel() for parameter in encoder.parameters()) == card.parameters[dims]
    assert encoder.channels == card.channels == tuple(one.shape[1] for one in maps)
    assert encoder.strides == card.strides_in(dims)
    assert [one.shape[2:] for one in maps] == [tuple(64 // s for s in strides) for strides in encoder.strides]


def stirred(module: nn.Module) -> nn.Module:
    """Other weights than zeros and ones, so that no misplaced one goes unseen."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def load(encoder: Encoder, published: Mapping[str, Tensor], key_map: str) -> Encoder:
    """Every tensor of the encoder from the publisher's, by name, none left over."""
    renamed = read_key_map(key_map, None)
    tensors = {renamed(name): value for name, value in published.items()}
    encoder.stages.load_state_dict({name.removeprefix("stages."): value for name, value in tensors.items()})
    return encoder.eval()


def cells(corners: tuple[str, ...]) -> type[nn.Module]:
    """MONAI's merging with the corners in another order."""
    from monai.networks.nets.swin_unetr import PatchMergingV2

    class Merging(PatchMergingV2):  # type: ignore[misc, unused-ignore]  # MONAI's class is untyped
        def forward(self, x: Tensor) -> Tensor:
            parts = [x[:, int(a) :: 2, int(b) :: 2, int(c) :: 2] for a, b, c in corners]
            merged: Tensor = self.reduction(self.norm(torch.cat(parts, -1)))
            return merged

    return Merging


# MONAI up to 1.5, whose sixth and seventh corner are the third and fourth again
PUBLISHED = ("000", "100", "010", "001", "101", "010", "001", "111")


@pytest.mark.parametrize(
    ("dims", "merging", "size"),
    [
        (2, "published", (40, 71)),
        (3, "published", (32, 32, 32)),
        (3, "merging", (19, 33, 24)),
        (3, "mergingv2", (19, 33, 24)),
    ],
)
def test_swin_gives_the_maps_of_monai(dims: int, merging: str, size: tuple[int, ...]) -> None:
    pytest.importorskip("einops", reason="MONAI's own Swin needs it")
    from monai.networks.nets.swin_unetr import SwinTransformer

    theirs = {"published": cells(PUBLISHED) if dims == 3 else "merging"}.get(merging, merging)
    torch.manual_seed(0)
    published = stirred(
        SwinTransformer(
            in_chans=2,
            embed_dim=12,
            window_size=(4,) * dims,
            patch_size=(2,) * dims,
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            spatial_dims=dims,
            downsample=theirs,
        )
    )
    options = {"feature_size": 12, "window": 4, "merging": merging}
    encoder = build("swin", spatial_dims=dims, in_channels=2, options=options)
    load(encoder, published.state_dict(), "monai_swin")
    images = torch.rand(2, 2, *size)

    with torch.no_grad():
        wanted, seen = published(encoder.normalise(images)), encoder(images)

    for one, other in zip(wanted, seen, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0)


def test_swin_takes_the_names_of_self_supervised_files() -> None:
    own = build("swin", spatial_dims=3, in_channels=1, options=SMALL["swin"]).stages.state_dict()
    published = {}
    for name, value in own.items():
        stage, _, rest = name.partition(".")
        rest = rest.replace("mlp.linear", "mlp.fc")
        published[rest if stage == "0" else f"layers{stage}.0.{rest}"] = value

    encoder = load(
        build("swin", spatial_dims=3, in_channels=1, options=SMALL["swin"]), published, "monai_swin"
    )

    assert all(torch.equal(value, own[name]) for name, value in encoder.stages.state_dict().items())


@pytest.mark.parametrize(("dims", "size"), [(2, (65, 79)), (3, (24, 35, 16))])
def test_segresnet_gives_what_monai_encodes(dims: int, size: tuple[int, ...]) -> None:
    from monai.networks.nets.segresnet import SegResNet

    torch.manual_seed(0)
    published = stirred(SegResNet(spatial_dims=dims, init_filters=8, in_channels=2))
    encoder = build("segresnet", spatial_dims=dims, in_channels=2, options=SMALL["segresnet"])
    names = ("convInit", "down_layers")
    tensors = {name: value for name, value in published.state_dict().items() if name.startswith(names)}
    load(encoder, tensors, "monai_segresnet")
    images = torch.rand(1, 2, *size)

    with torch.no_grad():
        wanted, seen = published.encode(encoder.normalise(images))[1], encoder(images)

    for one, other in zip(wanted, seen, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_vit_blocks_compute_what_torchs_own_do(dims: int) -> None:
    torch.manual_seed(0)
    encoder = small("vit_tiny", dims)
    stirred(encoder)
    state = torch.randn(2, 9, 192)
    reference = nn.TransformerEncoderLayer(
        192, 3, 768, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )

    wanted = state
    for i in range(3):
        own = encoder.stages[1].get_submodule(f"blocks.{i}").state_dict()
        names = {"self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.in_proj_bias": "attn.qkv.bias"}
        names |= {f"self_attn.out_proj.{kind}": f"attn.proj.{kind}" for kind in ("weight", "bias")}
        names |= {f"linear{n}.{kind}": f"mlp.fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
        names |= {f"norm{n}.{kind}": f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
        reference.load_state_dict({theirs: own[ours] for theirs, ours in names.items()})
        wanted = reference(wanted)

    torch.testing.assert_close(encoder.stages[1](state), wanted, atol=2e-5, rtol=1e-5)


def test_vit_takes_the_names_that_timm_publishes() -> None:
    block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = ["patch_embed.proj", "norm", *(f"blocks.{i}.{name}" for i in range(12) for name in block)]
    timm = {"cls_token", "pos_embed", *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))}
    own = {f"stages.{name}" for name in small("vit_tiny", 2).stages.state_dict()}

    assert {read_key_map("timm_vit", None)(name) for name in timm} == own


@pytest.mark.parametrize("dims", [2, 3])
def test_vit_positions_are_exact_at_their_own_size_and_interpolated_at_others(dims: int) -> None:
    stem = small("vit_tiny", dims).stages[0]
    assert isinstance(stem, nn.Module)
    ramp = torch.arange(4.0).view(4, *([1] * (dims - 1))).expand(*((4,) * dims))
    with torch.no_grad():
        stem.get_submodule("patch_embed.proj").weight.zero_()  # type: ignore[operator]
        stem.get_submodule("patch_embed.proj").bias.zero_()  # type: ignore[operator]
        stem.get_parameter("cls_token").zero_()
        stem.get_parameter("pos_embed")[0, 1:] = ramp.reshape(-1, 1)

        same = stem(torch.zeros(1, 3, *((64,) * dims)))
        finer = stem(torch.zeros(1, 3, 128, *((64,) * (dims - 1))))

    assert torch.equal(same[0], stem.get_parameter("pos_embed")[0])
    rows = finer[0, 1:, 0].unflatten(0, (8, *((4,) * (dims - 1))))
    torch.testing.assert_close(rows, rows.flatten(1)[:, :1].view(8, *([1] * (dims - 1))).expand_as(rows))
    middle = rows.flatten(1)[2:6, 0]
    torch.testing.assert_close(middle, torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.06, rtol=0)


def test_vit_pads_odd_images_with_the_mean() -> None:
    encoder = small("vit_tiny", 2).eval()
    images = torch.rand(1, 3, 50, 64)
    padded = torch.cat([images, torch.full((1, 3, 14, 64), 0.5)], dim=2)  # 0.5: the mean of random weights

    with torch.no_grad():
        seen, wanted = encoder(images), encoder(padded)

    assert all(torch.equal(one, other) for one, other in zip(seen, wanted, strict=True))


def frozen_network(encoder_id: str) -> Network:
    torch.manual_seed(0)
    encoder = small(encoder_id, 2)
    network = Network(encoder, ClassificationHead(encoder.channels, 2))
    torch.nn.init.normal_(network.get_parameter("head.linear.weight"), std=0.1)
    return network.requires_grad_(False)


@pytest.mark.parametrize("encoder_id", ["vit_tiny", "swin"])
def test_grad_cam_finds_a_place_on_tokens(encoder_id: str) -> None:
    network = frozen_network(encoder_id)
    images = torch.rand(2, 3, 96, 128)

    maps = [grad_cam(network, images, index)[0] for index in (0, 1)]

    seen = [one for one in maps if one is not None]
    assert seen
    assert all(one.shape == (96, 128) and float(one.std()) > 0 for one in seen)


def test_exported_vit_interpolates_positions_and_gives_the_same_probabilities() -> None:
    network = frozen_network("vit_tiny")
    images = torch.rand(3, 3, 96, 80)

    module = ExportedProgramModule(network, activate=lambda logits: logits.softmax(1), temperature=1.5)
    program = export_program(module, in_channels=3, shape=(96, 80)).module()

    torch.testing.assert_close(program(images), module(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("encoder_id", "options"),
    [
        ("vit_tiny", {"image_size": 8}),
        ("swin", {"feature_size": 20}),
        ("swin", {"window": 1}),
        ("swin", {"merging": "merging_v2"}),
        ("segresnet", {"init_filters": 12}),
    ],
)
def test_impossible_option_is_refused_by_name(encoder_id: str, options: dict[str, Any]) -> None:
    (name,) = options

    with pytest.raises(PluginError, match=name):
        build(encoder_id, spatial_dims=2, in_channels=1, options=options)
