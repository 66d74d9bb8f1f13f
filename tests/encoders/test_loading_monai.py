"""What MONAI's loaders lose in silence, ours load or refuse aloud: each case with both."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import Receipt, create_encoder
from medxfer.encoders.registry import card_of
from medxfer.errors import WeightsError


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Fails when something is printed or warned of inside: what is proved here is that nothing is."""
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        warnings.simplefilter("error")
        yield
    assert out.getvalue() == ""


def marked(module: nn.Module) -> dict[str, Tensor]:
    """A state of which nothing looks like an initialisation."""
    return {
        name: torch.full_like(value, 0.5) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }


def came(module: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors of `module` that are those marked in `state`."""
    return {
        name
        for name, value in module.state_dict().items()
        if value.is_floating_point() and bool((value == 0.5).all())
    } & set(state)


def ours(
    encoder_id: str,
    content: Mapping[str, Any],
    folder: Path,
    channels: int = 3,
    dims: int = 2,
    **options: Any,
) -> Receipt:
    path = folder / "weights.pth"
    torch.save(dict(content), path)
    spec = EncoderSpec(id=encoder_id, weights=str(path), in_channels=channels, options=options)
    return create_encoder(spec, spatial_dims=dims)[1]


def served(monkeypatch: pytest.MonkeyPatch, module: str, state: Mapping[str, Tensor]) -> None:
    """Let MONAI's `pretrained=True` get `state` instead of a download."""
    monkeypatch.setattr(
        f"monai.networks.nets.{module}.load_state_dict_from_url", lambda *_, **__: dict(state)
    )


def resnet18(channels: int = 3) -> nn.Module:
    from monai.networks.nets.resnet import resnet18 as build

    return build(  # type: ignore[no-any-return]
        spatial_dims=2, n_input_channels=channels, conv1_t_stride=2, shortcut_type="B", bias_downsample=False
    )


def densenet121(channels: int = 3, pretrained: bool = False) -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    return DenseNet121(spatial_dims=2, in_channels=channels, out_channels=2, pretrained=pretrained)


def test_f1_prefix_module_copy_model_state_updates_nothing(tmp_path: Path) -> None:
    from monai.networks.utils import copy_model_state

    state = {f"module.{name}": value for name, value in marked(resnet18()).items()}
    with silence():
        _, updated, _ = copy_model_state(resnet18(), state)
    assert updated == []

    receipt = ours("resnet18", state, tmp_path)

    assert receipt.coverage == 1
    assert any("`module.`" in note for note in receipt.notes)


def test_f1_prefix_module_load_state_dict_not_strict_loads_nothing(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in marked(resnet18()).items()}
    network = resnet18()
    with silence():
        network.load_state_dict(state, strict=False)
    assert came(network, marked(resnet18())) == set()

    assert ours("resnet18", {"epoch": 3, "state_dict": state}, tmp_path).coverage == 1


def test_f1_senet_given_a_file_without_one_matching_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.networks.nets.senet import SEResNext50

    strange = {"some.weight": torch.full((3, 3), 0.5)}
    served(monkeypatch, "senet", strange)
    with silence():
        SEResNext50(pretrained=True, spatial_dims=2, in_channels=3)

    with pytest.raises(WeightsError, match=r"(?s)0\.0%.*some\.weight"):
        ours("se_resnext50", strange, tmp_path)


def test_f1_densenet_given_todays_torchvision_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name.replace(".layers.", "."): value for name, value in marked(densenet121()).items()}
    served(monkeypatch, "densenet", state)
    with silence():
        network = densenet121(pretrained=True)
    convolutions = {name for name in network.state_dict() if "denselayer" in name and "conv" in name}
    assert len(convolutions) == 116
    assert not convolutions & came(network, network.state_dict())

    receipt = ours("densenet121", state, tmp_path)

    assert receipt.coverage == 1
    assert (
        len([row for row in receipt.of("loaded") if "denselayer" in row.name and ".conv" in row.name]) == 116
    )


def test_f1_efficientnet_in_3d_is_pretrained_by_default_and_random(tmp_path: Path) -> None:
    from monai.networks.nets.efficientnet import EfficientNetBN

    with silence():
        network = EfficientNetBN("efficientnet-b0", spatial_dims=3)
    assert network is not None  # nothing was fetched: a test may not reach the network

    flat = marked(EfficientNetBN("efficientnet-b0", pretrained=False))
    receipt = ours("efficientnet_b0", flat, tmp_path, dims=3)

    assert receipt.coverage == 1
    assert any("2D kernel" in row.how for row in receipt.of("converted"))


def swin_unetr(channels: int = 1, **options: Any) -> nn.Module:
    from monai.networks.nets.swin_unetr import SwinUNETR

    return SwinUNETR(in_channels=channels, out_channels=2, feature_size=12, **options)


def published_swin() -> dict[str, Tensor]:
    """Names and values in the way of model_swinvit.pt."""
    return {
        f"module.{name.removeprefix('swinViT.').replace('linear', 'fc')}": value
        for name, value in marked(swin_unetr()).items()
        if name.startswith("swinViT.")
    }


def test_f1_swin_filter_and_load_from_want_disjoint_names(tmp_path: Path) -> None:
    from monai.networks.nets.swin_unetr import filter_swinunetr
    from monai.networks.utils import copy_model_state

    state = published_swin()
    with silence():
        _, updated, _ = copy_model_state(swin_unetr(), state, filter_func=filter_swinunetr)
    assert updated == []

    receipt = ours("swin", {"state_dict": state}, tmp_path, 1, 3, feature_size=12)

    assert receipt.coverage == 1
    assert not [row for row in receipt.of("re-initialised") if not row.name.startswith("normalise")]


def test_f2_densenet_with_one_channel_keeps_a_random_first_convolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {name.replace(".layers.", "."): value for name, value in marked(densenet121()).items()}
    served(monkeypatch, "densenet", state)
    with silence():
        network = densenet121(1, pretrained=True)
    assert "features.conv0.weight" not in came(network, network.state_dict())

    receipt = ours("densenet121", state, tmp_path, channels=1)

    assert receipt.coverage == 1
    assert next(row for row in receipt.rows if row.name == "stages.0.conv0.weight").state == "loaded"


def test_f2_efficientnet_with_one_channel_keeps_a_random_first_convolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.networks.nets.efficientnet import EfficientNetBN

    state = marked(EfficientNetBN("efficientnet-b0", pretrained=False))
    monkeypatch.setattr("monai.networks.nets.efficientnet.model_zoo.load_url", lambda *_, **__: state)
    with silence():
        network = EfficientNetBN("efficientnet-b0", pretrained=True, in_channels=1)
    assert "_conv_stem.weight" not in came(network, network.state_dict())

    receipt = ours("efficientnet_b0", state, tmp_path, channels=1)

    assert receipt.coverage == 1
    assert next(row for row in receipt.rows if row.name.endswith("_conv_stem.weight")).state == "loaded"


def test_f2_copy_model_state_from_3_to_1_channels_leaves_the_first_convolution(tmp_path: Path) -> None:
    from monai.networks.utils import copy_model_state

    state = marked(resnet18(3))
    with silence():
        _, _, unchanged = copy_model_state(resnet18(1), state)
    assert "conv1.weight" in unchanged

    receipt = ours("resnet18", state, tmp_path, channels=1)

    assert next(row for row in receipt.rows if row.name == "stages.0.conv1.weight").state == "loaded"


def test_f2_swin_load_from_broadcasts_one_channel_to_four_unscaled(tmp_path: Path) -> None:
    network = swin_unetr(4)
    with silence():
        network.load_from({"state_dict": published_swin()})  # type: ignore[operator]
    kernel = network.swinViT.patch_embed.proj.weight  # type: ignore[union-attr]
    assert bool((kernel == 0.5).all())  # four times the response to four equal channels

    torch.save({"state_dict": published_swin()}, tmp_path / "a.pt")
    spec = EncoderSpec(id="swin", weights=str(tmp_path / "a.pt"), in_channels=4, options={"feature_size": 12})
    encoder, receipt = create_encoder(spec, spatial_dims=3)

    mine = encoder.state_dict()["stages.0.patch_embed.proj.weight"]
    torch.testing.assert_close(mine.sum(dim=1), torch.full_like(mine[:, 0], 0.5))
    assert any("1 input channels spread over 4" in row.how for row in receipt.of("converted"))


def test_f2_swin_v2_keeps_random_convolutions_ours_refuses_its_file(tmp_path: Path) -> None:
    network = swin_unetr(use_v2=True)
    with silence():
        network.load_from({"state_dict": published_swin()})  # type: ignore[operator]
    lost = {name for name in network.state_dict() if name.split(".")[1].endswith("c") and "conv" in name}
    assert len(lost) == 8
    assert not lost & came(network, network.state_dict())

    with pytest.raises(WeightsError, match=r"(?s)layers1c.*another architecture"):
        ours("swin", marked(network), tmp_path, 1, 3, feature_size=12)


def test_f2_swin_filter_cuts_letters_out_of_names(tmp_path: Path) -> None:
    from monai.networks.nets.swin_unetr import filter_swinunetr

    old = "encoder.layers1.0.blocks.0.norm1.weight"
    assert filter_swinunetr(old, None)[0] == "swinViT.layers1.0.ocks.0.norm1.weight"

    state = {name.replace("module.", "encoder.", 1): value for name, value in published_swin().items()}
    assert old in state
    receipt = ours("swin", {"model": state}, tmp_path, 1, 3, feature_size=12)

    assert receipt.coverage == 1
    assert any("`encoder.`" in note for note in receipt.notes)


def test_f2_flexible_unet_asks_for_another_file_than_its_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.networks.nets import resnet as nets

    asked: list[bool] = []

    def get(*_: object, **settings: Any) -> None:
        asked.append(settings["datasets23"])
        raise StopIteration

    monkeypatch.setattr(nets, "get_pretrained_resnet_medicalnet", get)
    with silence(), pytest.raises(StopIteration):
        nets.ResNetFeatures("resnet10", pretrained=True, spatial_dims=3, in_channels=1)
    assert asked == [False]  # though its own table says 23 data sets

    weights = card_of("resnet10").weights_tagged("medicalnet")
    assert weights is not None
    assert "resnet_10_23dataset.pth" in weights.source
    assert "23 data sets" in weights.trained_on


def test_f2_wrapped_file_given_by_path_fails_with_missing_keys(tmp_path: Path) -> None:
    from monai.networks.nets.resnet import resnet10

    settings: dict[str, Any] = {"spatial_dims": 3, "n_input_channels": 1, "conv1_t_stride": 2}
    settings |= {"shortcut_type": "B", "bias_downsample": False, "feed_forward": False}
    state = {f"module.{name}": value for name, value in marked(resnet10(**settings)).items()}
    torch.save({"state_dict": state}, tmp_path / "resnet_10.pth")
    with pytest.raises(RuntimeError, match="Missing key"):
        resnet10(pretrained=str(tmp_path / "resnet_10.pth"), **settings)

    assert ours("resnet10", {"state_dict": state}, tmp_path, 1, 3).coverage == 1


def test_f2_medicalnet_shortcut_detaches_ours_carries_gradient() -> None:
    from monai.networks.nets.resnet import resnet18 as build

    theirs = build(
        spatial_dims=2, n_input_channels=1, shortcut_type="A", bias_downsample=True, feed_forward=False
    )
    encoder, _ = create_encoder(EncoderSpec(id="resnet18", options={"shortcut": "A"}))
    blocks = [theirs.layer2[0], encoder.stages[2].get_submodule("layer2")[0]]  # type: ignore[index]
    gradients = []
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
        x = torch.rand(2, 64, 8, 8, requires_grad=True)
        block(x).sum().backward()
        assert x.grad is not None
        gradients.append(float(x.grad.abs().sum()))

    assert gradients[0] == 0
    assert gradients[1] > 0
