"""A MONAI model-zoo bundle's folder as weights: its network's encoder part, loaded by names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.errors import WeightsError


def zoo_bundle(folder: Path, network: nn.Module, *, wrapped: bool = False) -> Path:
    """A bundle as `python -m monai.bundle` leaves it, with safetensors or a torch file that wraps the state."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    about = {"version": "0.4.2", "name": "Tumour regions", "monai_version": "1.4.0"}
    (folder / "configs" / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    if wrapped:
        torch.save({"model": network.state_dict(), "epoch": 3}, folder / "models" / "model.pt")
    else:
        save_file(network.state_dict(), folder / "models" / "model.safetensors")
    return folder


@pytest.mark.parametrize("wrapped", [True, False])
def test_segmentation_bundle_gives_its_encoder(tmp_path: Path, wrapped: bool) -> None:
    from monai.networks.nets import SegResNet

    torch.manual_seed(5)
    network = SegResNet(spatial_dims=3, in_channels=2, out_channels=3, init_filters=8)
    folder = zoo_bundle(tmp_path / "brats", network, wrapped=wrapped)
    spec = EncoderSpec(id="segresnet", weights=str(folder), in_channels=2, options={"init_filters": 8})

    encoder, receipt = create_encoder(spec, spatial_dims=3)

    assert receipt.coverage == 1.0
    name = "model.pt" if wrapped else "model.safetensors"
    assert f"models/{name} of the MONAI bundle Tumour regions 0.4.2" in receipt.notes
    assert {row.name.split(".")[0] for row in receipt.of("unused")} == {
        "up_layers",
        "up_samples",
        "conv_final",
    }
    encoder.normalise = nn.Identity()
    volume = torch.rand(1, 2, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        deepest, finer = network.eval().encode(volume)
        found = encoder.eval()(volume)
    torch.testing.assert_close(found[-1], deepest)
    torch.testing.assert_close(found[0], finer[0])


def test_classification_bundle_gives_its_encoder(tmp_path: Path) -> None:
    from monai.networks.nets import resnet18

    network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=4, bias_downsample=False)
    folder = zoo_bundle(tmp_path / "endoscopy", network)

    _, receipt = create_encoder(EncoderSpec(id="resnet18", weights=str(folder), in_channels=1))

    assert receipt.coverage == 1.0
    assert {row.name for row in receipt.of("unused")} == {"fc.weight", "fc.bias"}


def test_bundle_of_another_network_is_refused(tmp_path: Path) -> None:
    from monai.networks.nets import UNet

    network = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    folder = zoo_bundle(tmp_path / "unet", network)

    with pytest.raises(WeightsError, match=r"0\.0% of the parameters"):
        create_encoder(EncoderSpec(id="resnet18", weights=str(folder), in_channels=1))
