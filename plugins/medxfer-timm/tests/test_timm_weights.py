"""Published weights under timm's key names, really loaded: what they recognise, and what the receipt says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import build
from medxfer.encoders.weights import read_tensors
from medxfer.plugin import Encoder, Normalise

NAMES = pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_efficientnet_lite0"])
LITE0 = pytest.mark.parametrize("name", ["tf_efficientnet_lite0"])  # the one that the other plugin has, too
CATS = {281, 282, 285}  # tabby, tiger cat, Egyptian cat
ESPRESSO = 967


@pytest.fixture
def file(shared: Path, name: str) -> Path:
    return shared / "weights" / f"{name}.imagenet.safetensors"


def crop(image: np.ndarray) -> Tensor:
    """(1, 3, 224, 224) in [0, 1]: short side to 256, then the middle."""
    x = torch.from_numpy(image[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
    scale = 256 / min(x.shape[2:])
    x = functional.interpolate(
        x, size=[round(n * scale) for n in x.shape[2:]], mode="bilinear", antialias=True
    )
    top, left = ((n - 224) // 2 for n in x.shape[2:])
    return x[:, :, top : top + 224, left : left + 224]


@torch.no_grad()
def classify(encoder: Encoder, tensors: dict[str, Tensor], image: np.ndarray, eps: float) -> Tensor:
    """Probabilities of the 1000 classes, the file's own top put on the last stage."""
    last = encoder.eval()(crop(image))[-1]
    top = {name: value.float() for name, value in tensors.items()}
    last = functional.conv2d(last, top["conv_head.weight"])
    norm = [top[f"bn2.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    last = functional.relu6(functional.batch_norm(last, *norm, eps=eps)).mean((2, 3))
    return functional.linear(last, top["classifier.weight"], top["classifier.bias"]).softmax(1)[0]


@NAMES
def test_file_fills_the_network_and_knows_cat_and_coffee(name: str, file: Path) -> None:
    encoder, receipt = create_encoder(EncoderSpec(id=f"timm:{name}", weights=str(file), in_channels=3))
    tensors, _ = read_tensors(file)
    eps = 1e-3 if name.startswith("tf_") else 1e-5

    cat, coffee = (classify(encoder, tensors, image, eps) for image in (data.chelsea(), data.coffee()))

    assert set(cat.topk(3).indices.tolist()) == CATS
    assert int(coffee.argmax()) == ESPRESSO
    assert receipt.coverage == 1.0
    assert not [row for row in receipt.of("re-initialised") if row.kind == "parameter"]
    assert {row.name.split(".")[0] for row in receipt.of("unused")} == {"conv_head", "bn2", "classifier"}
    assert len(receipt.of("loaded")) + len(receipt.of("converted")) - 2 + len(receipt.of("unused")) == len(
        tensors
    )


@LITE0
def test_constants_are_those_of_the_tag_whose_names_the_file_has(name: str, file: Path) -> None:
    encoder, receipt = create_encoder(EncoderSpec(id=f"timm:{name}", weights=str(file), in_channels=3))

    assert any("mean and std are those of timm:tf_efficientnet_lite0.in1k" in note for note in receipt.notes)
    assert isinstance(encoder.normalise, Normalise)
    assert encoder.normalise.mean.tolist() == [0.5, 0.5, 0.5]


@LITE0
def test_two_plugins_agree_on_the_same_file(name: str, file: Path) -> None:
    """medxfer-efficientnet-lite's own modules, filled in order: the 296 tensors lie in one order in both."""
    theirs, _ = create_encoder(EncoderSpec(id=f"timm:{name}", weights=str(file), in_channels=3))
    own = build("efficientnet_lite0", spatial_dims=2, in_channels=3)
    kept = {key: value for key, value in theirs.state_dict().items() if not key.startswith("normalise.")}
    names = [key for key in own.state_dict() if not key.startswith("normalise.")]
    own.load_state_dict(dict(zip(names, kept.values(), strict=True)), strict=False)
    images = crop(data.coffee())

    with torch.no_grad():
        pairs = list(zip(theirs.eval()(images), own.eval()(images), strict=True))

    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@NAMES
def test_grey_image_gives_what_its_colour_copy_gives(name: str, file: Path) -> None:
    grey, _ = create_encoder(EncoderSpec(id=f"timm:{name}", weights=str(file), in_channels=1))
    colour, _ = create_encoder(EncoderSpec(id=f"timm:{name}", weights=str(file), in_channels=3))
    image = torch.rand(1, 1, 70, 93, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        pairs = list(zip(grey.eval()(image), colour.eval()(image.expand(-1, 3, -1, -1)), strict=True))

    for one, other in pairs:
        torch.testing.assert_close(one, other)
