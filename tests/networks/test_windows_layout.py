"""3D windows with channels last: the same answer, and the network as it was afterwards."""

from __future__ import annotations

import subprocess
import sys

import torch
from monai.inferers.utils import sliding_window_inference

from medxfer.encoders.families.unet import UNetEncoder
from medxfer.networks.decoder import Decoder
from medxfer.networks.network import Network
from medxfer.networks.windows import predict_windows


def network_of() -> Network:
    torch.manual_seed(0)
    encoder = UNetEncoder(spatial_dims=3, in_channels=1, widths=(8, 16, 16))
    return Network(
        encoder, Decoder(encoder.channels, encoder.strides, 1, 3, width=8), window=(16,) * 3
    ).eval()


def test_volumes_are_answered_as_by_monais_inferer() -> None:
    network, images = network_of(), torch.rand(2, 1, 20, 33, 12)

    with torch.inference_mode():
        found = predict_windows(network, images, network.window, overlap=0.25)
        theirs = sliding_window_inference(images, (16,) * 3, 3, network, overlap=0.25, mode="gaussian")

    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def test_a_network_can_be_trained_and_saved_after_it_was_asked() -> None:
    network = network_of()
    before = {name: one.clone() for name, one in network.state_dict().items()}

    with torch.inference_mode():
        predict_windows(network, torch.rand(1, 1, 20, 20, 20), network.window, overlap=0.25)

    assert all(
        one.is_contiguous() and torch.equal(one, before[name]) for name, one in network.state_dict().items()
    )
    network.train()(torch.rand(1, 1, 16, 16, 16)).sum().backward()
    assert all(one.grad is not None for one in network.parameters())


def test_a_prediction_imports_no_monai() -> None:
    program = (
        "import sys, torch, medxfer.trained\n"
        "from medxfer.networks.windows import predict_windows\n"
        "from medxfer.tasks.segmentation import Segmentation\n"
        "task = Segmentation(['mass'])\n"
        "predict_windows(torch.nn.Conv2d(1, 2, 1), torch.rand(1, 1, 9, 9), (4, 4), overlap=0.25)\n"
        "assert 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
