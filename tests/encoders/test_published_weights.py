"""Every publisher's names become ours: its own module, its own file layout, the same feature maps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.keymaps import read_key_map
from medxfer.encoders.loading import Receipt, create_encoder
from medxfer.encoders.registry import build, card_of, list_encoders
from medxfer.encoders.sources import kept_path
from medxfer.errors import WeightsError
from medxfer.plugin import Encoder

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
RESNET = ("layer1", "layer2", "layer3", "layer4")
DENSENET = ("features.denseblock1", "features.denseblock2", "features.denseblock3")


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, imported as the plugin imports it beside a CPU-only torch."""
    operators = pytest.importorskip("medxfer_timm.operators", reason="medxfer-timm is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return operators.import_timm()


def published(build: Callable[[], nn.Module]) -> nn.Module:
    """A publisher's module with nothing at its default, so that what was not loaded shows."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = build().eval()
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.ndim == 1 and "running_mean" not in name:
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if "running_var" in name else 0.4))
            elif "running_mean" in name:
                value.copy_(torch.rand_like(value) * 0.2)
    return module


def maps_of(module: nn.Module, names: Sequence[str], image: Tensor) -> list[Tensor]:
    """What the named parts of a publisher's module give; its classifier may fail on small images."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.setdefault(name, output.clone())
        )
        for name in names
    ]
    with torch.no_grad():
        module(image)
    for hook in hooks:
        hook.remove()
    return [seen[name] for name in names]


def loaded(
    encoder_id: str,
    content: Mapping[str, Any],
    path: Path,
    in_channels: int = 3,
    dims: int = 2,
    **options: Any,
) -> tuple[Encoder, Receipt]:
    torch.save(dict(content), path)
    spec = EncoderSpec(id=encoder_id, weights=str(path), in_channels=in_channels, options=options)
    encoder, receipt = create_encoder(spec, spatial_dims=dims)
    assert receipt.coverage == 1, receipt.table()
    assert not [row.name for row in receipt.of("re-initialised") if not row.name.startswith("normalise")]
    return encoder.eval(), receipt


def require_equal(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-5)


def require_same(
    encoder: Encoder, module: nn.Module, names: Sequence[str], first: int = 1, size: int = 64
) -> None:
    """Maps from stage `first` on equal those of the named parts, for an image in [0, 1]."""
    image = torch.rand(2, encoder.in_channels, *[size] * encoder.spatial_dims)
    with torch.no_grad():
        ours = encoder(image)[first : first + len(names)]
        require_equal(ours, maps_of(module, names, encoder.normalise(image)))


def constants(encoder: Encoder) -> tuple[list[float], list[float]]:
    values = encoder.normalise.state_dict()
    return tuple([round(v, 6) for v in values[name].tolist()] for name in ("mean", "std"))  # type: ignore[return-value]


def resnet(depth: int, dims: int, channels: int, shortcut: str = "B") -> nn.Module:
    """MONAI's ResNet as torchvision and MedicalNet build theirs."""
    from monai.networks.nets import resnet as nets

    return getattr(nets, f"resnet{depth}")(  # type: ignore[no-any-return]
        spatial_dims=dims,
        n_input_channels=channels,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        bias_downsample=False,
        num_classes=5,
    )


def test_torchvision_resnet_by_timm(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("resnet18"))

    encoder, receipt = loaded("resnet18", module.state_dict(), tmp_path / "a.pth")

    require_same(encoder, module, RESNET)
    assert constants(encoder) == IMAGENET
    assert [row.name for row in receipt.of("unused")] == ["fc.weight", "fc.bias"]


def test_medicalnet_resnet_with_its_wrapper_and_prefix(tmp_path: Path) -> None:
    module = published(lambda: resnet(10, 3, 1))
    state = {f"module.{name}": v for name, v in module.state_dict().items() if not name.startswith("fc")}

    encoder, receipt = loaded("resnet10", {"state_dict": state}, tmp_path / "a.pth", 1, 3)

    require_same(encoder, module, RESNET, size=33)
    assert any("`state_dict`" in note for note in receipt.notes)
    assert any("`module.`" in note for note in receipt.notes)


def test_medicalnet_18_is_built_with_the_shortcut_it_needs(tmp_path: Path) -> None:
    module = published(lambda: resnet(18, 3, 1, shortcut="A"))

    encoder, receipt = loaded("resnet18", {"state_dict": module.state_dict()}, tmp_path / "a.pth", 1, 3)

    require_same(encoder, module, RESNET, size=32)
    assert receipt.options == {"shortcut": "A"}
    assert any("shortcut=A" in note for note in receipt.notes)


def test_option_that_contradicts_the_weights_is_refused_before_anything_is_fetched() -> None:
    spec = EncoderSpec(id="resnet18", weights="medicalnet", options={"shortcut": "B"})

    with pytest.raises(WeightsError, match=r"(?s)encoder\.options\.shortcut.*'B'.*'A'.*resnet18\.medicalnet"):
        create_encoder(spec, spatial_dims=3)


def test_radimagenet_resnet_with_numbered_children(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("resnet50"))
    parts = ["conv1", "bn1", "act1", "maxpool", *RESNET]
    backbone = nn.ModuleDict(
        {"backbone": nn.Sequential(*[module.get_submodule(name) for name in parts], nn.AdaptiveAvgPool2d(1))}
    )

    encoder, _ = loaded("resnet50", backbone.state_dict(), tmp_path / "a.pth")

    require_same(encoder, module, RESNET)
    assert constants(encoder) == ([0.5] * 3, [0.5] * 3)


def test_torchxrayvision_resnet_has_one_channel(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("resnet50", in_chans=1, num_classes=18))

    encoder, _ = loaded("resnet50", module.state_dict(), tmp_path / "a.pth", 1)

    require_same(encoder, module, RESNET)


@pytest.mark.parametrize("style", ["published", "today"])
def test_torchvision_densenet_of_both_spellings(timm: Any, tmp_path: Path, style: str) -> None:
    module = published(lambda: timm.create_model("densenet121"))
    state = module.state_dict()
    if style == "published":  # densenet121-a639ec97.pth says norm.1, and no num_batches_tracked
        state = {
            name.replace(".norm1", ".norm.1")
            .replace(".norm2", ".norm.2")
            .replace(".conv1", ".conv.1")
            .replace(".conv2", ".conv.2"): value
            for name, value in state.items()
            if "num_batches_tracked" not in name
        }
        torch.save(state, tmp_path / "a.pth")
        spec = EncoderSpec(id="densenet121", weights=str(tmp_path / "a.pth"), in_channels=3)
        encoder, receipt = create_encoder(spec)
        assert receipt.coverage == 1
        encoder.eval()
    else:
        encoder, _ = loaded("densenet121", state, tmp_path / "a.pth")

    require_same(encoder, module, DENSENET)
    require_same(encoder, module, ["features.norm5"], first=4)
    assert constants(encoder) == IMAGENET


def test_torchxrayvision_densenet_by_its_names_gets_its_range(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("densenet121", in_chans=1, num_classes=18))

    encoder, _ = loaded("densenet121", module.state_dict(), tmp_path / "a.pth", 1)

    require_same(encoder, module, DENSENET)
    ends = encoder.normalise(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).flatten().tolist()
    assert ends == [-1024, 1024]


def test_radimagenet_densenet_with_its_numbered_child(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("densenet121", num_classes=0))
    state = {
        name.replace("features.", "backbone.0.", 1): value for name, value in module.state_dict().items()
    }

    encoder, _ = loaded("densenet121", state, tmp_path / "a.pth")

    require_same(encoder, module, DENSENET)
    assert constants(encoder) == ([0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("style", ["lukemelas", "monai"])
def test_efficientnet_of_both_numberings(tmp_path: Path, style: str) -> None:
    from monai.networks.nets.efficientnet import EfficientNetBN

    module = published(lambda: EfficientNetBN("efficientnet-b0", pretrained=False))
    blocks = [
        f"_blocks.{group}.{name}"
        for group, inner in enumerate(module._blocks)  # type: ignore[arg-type]
        for name, _ in inner.named_children()
    ]
    state = module.state_dict()
    if style == "lukemelas":
        flat = {f"{name}.": f"_blocks.{number}." for number, name in enumerate(blocks)}
        state = {
            next((new + name.removeprefix(old) for old, new in flat.items() if name.startswith(old)), name): v
            for name, v in state.items()
        }

    encoder, receipt = loaded("efficientnet_b0", state, tmp_path / "a.pth")

    last = [blocks[i] for i in (0, 2, 4, 10, 15)]
    require_same(encoder, module, last, first=0, size=224)  # the only size that MONAI pads rightly for
    assert {row.name.split(".")[0] for row in receipt.of("unused")} == {"_conv_head", "_bn1", "_fc"}
    assert constants(encoder) == IMAGENET


@pytest.mark.parametrize("publisher", ["timm", "monai"])
def test_se_resnext_of_both_publishers(timm: Any, tmp_path: Path, publisher: str) -> None:
    if publisher == "timm":
        module = published(lambda: timm.create_model("legacy_seresnext50_32x4d"))
    else:
        from monai.networks.nets.senet import SEResNext50

        module = published(lambda: SEResNext50(spatial_dims=2, in_channels=3, num_classes=4))

    encoder, receipt = loaded("se_resnext50", module.state_dict(), tmp_path / "a.pth")

    require_same(encoder, module, RESNET)
    if publisher == "monai":
        assert any("1x1 kernel" in row.how for row in receipt.of("converted"))
        assert any("monai_senet" in note for note in receipt.notes)


def test_timm_vision_transformer(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("vit_tiny_patch16_224"))

    encoder, _ = loaded("vit_tiny", module.state_dict(), tmp_path / "a.pth")

    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        theirs = module.forward_features(encoder.normalise(image))  # type: ignore[operator]
        ours = encoder(image)[-1]
    require_equal([ours], [theirs[:, 1:].transpose(1, 2).unflatten(2, (14, 14))])
    assert constants(encoder) == ([0.5] * 3, [0.5] * 3)


def test_positions_of_another_grid_are_interpolated_as_timm_does(timm: Any, tmp_path: Path) -> None:
    module = published(lambda: timm.create_model("vit_tiny_patch16_224", img_size=96))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    spec = EncoderSpec(id="vit_tiny", weights=str(tmp_path / "a.pth"), in_channels=3)

    encoder, receipt = create_encoder(spec)

    row = next(row for row in receipt.rows if row.name.endswith("pos_embed"))
    assert (row.state, "from 6x6 to 14x14" in row.how) == ("converted", True)
    assert receipt.coverage == 1
    from timm.layers.pos_embed import resample_abs_pos_embed

    wanted = resample_abs_pos_embed(module.pos_embed.detach(), new_size=[14, 14])  # type: ignore[arg-type, operator]
    torch.testing.assert_close(encoder.state_dict()["stages.0.pos_embed"], wanted)


@pytest.mark.parametrize("style", ["model_swinvit.pt", "SwinUNETR"])
def test_swin_unetr_encoder(tmp_path: Path, style: str) -> None:
    from monai.networks.nets.swin_unetr import SwinUNETR

    module = published(lambda: SwinUNETR(in_channels=1, out_channels=2, feature_size=12))
    state = module.state_dict()
    if style == "model_swinvit.pt":
        state = {
            f"module.{name.removeprefix('swinViT.')}".replace(".linear1", ".fc1").replace(
                ".linear2", ".fc2"
            ): v
            for name, v in state.items()
            if name.startswith("swinViT.")
        }
    path = tmp_path / "a.pth"

    encoder, _ = loaded("swin", {"state_dict": state}, path, 1, 3, feature_size=12, merging="merging")

    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        require_equal(encoder(image), module.swinViT(encoder.normalise(image)))  # type: ignore[operator]


def test_segresnet_of_a_monai_bundle_folder(tmp_path: Path) -> None:
    from monai.networks.nets.segresnet import SegResNet

    module = published(lambda: SegResNet(spatial_dims=3, init_filters=16, in_channels=4, out_channels=3))
    (tmp_path / "models").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"name": "tumours", "version": "0.1.0"}', "utf-8")
    torch.save(module.state_dict(), tmp_path / "models" / "model.pt")

    encoder, receipt = create_encoder(
        EncoderSpec(id="segresnet", weights=str(tmp_path), in_channels=4), spatial_dims=3
    )

    assert receipt.coverage == 1
    assert any("tumours" in note for note in receipt.notes)
    image = torch.rand(1, 4, 32, 32, 32)
    with torch.no_grad():
        _, theirs = module.encode(encoder.normalise(image))  # type: ignore[operator]
        require_equal(encoder.eval()(image), theirs)


def test_pickled_module_as_torchxrayvision_publishes_its_densenets_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "best.pt")

    with pytest.raises(WeightsError, match="pickled objects"):
        create_encoder(EncoderSpec(id="densenet121", weights=str(tmp_path / "best.pt")))


def test_tag_fetched_earlier_is_used_with_all_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path))
    weights = card_of("swin").weights_tagged("ssl_ct")
    assert weights is not None
    made = build("swin", spatial_dims=3, in_channels=1).state_dict()
    state = {
        re.sub(r"^stages\.(0|(\d))\.", lambda m: f"module.layers{m[2]}.0." if m[2] else "module.", name): v
        for name, v in made.items()
        if name.startswith("stages.")
    }
    kept_path(weights).parent.mkdir(parents=True)
    torch.save({"state_dict": state}, kept_path(weights))

    encoder, receipt = create_encoder(EncoderSpec(id="swin", weights="ssl_ct"), spatial_dims=3)

    assert receipt.coverage == 1
    assert (receipt.weights, receipt.licence) == ("ssl_ct", "Apache-2.0")
    assert receipt.options == weights.options
    assert constants(encoder) == ([0.0], [1.0])
    assert all(
        torch.equal(value, made[name]) for name, value in encoder.stages.state_dict(prefix="stages.").items()
    )


def built_in_tags() -> list[tuple[str, str]]:
    cards = (one.card for one in list_encoders() if one.distribution == "medxfer" and one.card)
    return [(card.id, weights.tag) for card in cards for weights in card.weights]


@pytest.mark.parametrize(("encoder_id", "tag"), built_in_tags())
def test_built_in_tag_is_complete(encoder_id: str, tag: str) -> None:
    card = card_of(encoder_id)
    weights = card.weights_tagged(tag)

    assert weights is not None
    assert isinstance(weights.source, str)
    assert weights.source.startswith(("https://", "hf:"))
    assert weights.key_map
    assert read_key_map(weights.key_map, card.folder)("some.name") == "some.name"
    assert weights.options.keys() <= card.options.keys()
