from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Component, ImagesSpec
from medxfer.data.placed import Placed
from medxfer.data.presets import default_augment, default_components, fill_in, preprocess, steps_of
from medxfer.data.readers import read_image
from medxfer.data.steps.base import Step
from medxfer.data.steps.pictures import Channels, PadToSquare, PercentileWindow, Quantise, Resize
from medxfer.errors import ConfigError

from .faults import chest, picture

BUNDLE = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"


def noise(*shape: int, top: float = 4095, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * top


def on(step: Step, x: Tensor) -> Tensor:
    return step(Placed(x, np.eye(x.ndim))).values


STEPS: list[Step] = [
    Channels(1), Channels(3), PadToSquare(), Resize(32), Resize(100), PercentileWindow(), PercentileWindow(0.0, 100.0),
    PercentileWindow(2.0, 90.0), Quantise("uint8"), Quantise("int16"), Quantise("float16"),
]  # fmt: skip
INPUTS = [
    noise(1, 64, 64), noise(3, 48, 71), noise(1, 71, 48, top=1), noise(3, 33, 32), torch.full((1, 40, 40), 255.0),
    torch.zeros(1, 20, 30), -noise(1, 64, 50), noise(1, 90, 31).round(),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_monai_configuration_computes_the_same(step: Step) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser({"imports": ["$import torch"], "step": step.monai("image")})
    parser.parse()
    parser.get_parsed_content("imports")
    other = parser.get_parsed_content("step")

    for x in INPUTS:
        x = x / 4095 if isinstance(step, Quantise) else x
        torch.testing.assert_close(
            torch.as_tensor(other({"image": x.clone()})["image"]),
            on(step, x),
            rtol=0,
            atol=1e-6 * max(1.0, float(x.abs().max())),
        )


def test_whole_preset_as_monai_gives_the_stored_levels(tmp_path: Path) -> None:
    from monai.bundle import ConfigParser
    from monai.transforms import Compose

    steps = steps_of(ImagesSpec(size=64), 1)
    image = read_image(picture(tmp_path / "a.png", chest(3, side=90)[:70]))
    parser = ConfigParser({"imports": ["$import torch"], "steps": [step.monai() for step in steps]})
    parser.parse()

    other = Compose(parser.get_parsed_content("steps"))({"image": torch.from_numpy(image.array)})["image"]

    assert torch.equal(torch.as_tensor(other), preprocess(image, steps))


def test_preset_gives_a_square_in_zero_to_one(tmp_path: Path) -> None:
    image = read_image(picture(tmp_path / "a.png", chest(0, side=90)[:50]))

    for channels in (1, 3):
        x = preprocess(image, steps_of(ImagesSpec(size=64), channels))
        assert x.shape == (channels, 64, 64)
        assert x.dtype == torch.float32
        assert (float(x.min()), float(x.max())) == (0.0, 1.0)
        assert torch.equal((x * 255).round() / 255, x)


@given(
    count=some.integers(1, 3000),
    lower=some.floats(0, 40),
    upper=some.floats(60, 100),
    levels=some.sampled_from([1, 5, 255, 65535]),
    seed=some.integers(0, 99),
)
def test_percentiles_equal_those_of_torch(
    count: int, lower: float, upper: float, levels: int, seed: int
) -> None:
    x = noise(1, 1, count, top=levels, seed=seed).round()
    low, high = torch.quantile(x.flatten(), torch.tensor([lower / 100, upper / 100]))

    varied = high - low > 1e-5 * torch.maximum(low.abs(), high.abs())
    expected = ((x - low) / (high - low).clamp(min=1e-8)).clamp(0, 1) * varied

    torch.testing.assert_close(on(PercentileWindow(lower, upper), x), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("value", [0.0, 255.0, -1024.0, 1e-3, 65535.0])
def test_constant_image_becomes_zero_even_after_resizing(value: float) -> None:
    x = on(Resize(64), torch.full((1, 97, 97), value))

    assert torch.equal(on(PercentileWindow(), x), torch.zeros(1, 64, 64))


def test_large_images_have_percentiles() -> None:
    x = noise(1, 2048, 2048)

    assert 0.0 <= float(on(PercentileWindow(), x).min()) < float(on(PercentileWindow(), x).max()) <= 1.0


def test_padding_is_centred_and_takes_the_minimum() -> None:
    x = torch.ones(1, 3, 6) * 5
    x[0, 0, 0] = 2

    padded = on(PadToSquare(), x)

    assert padded.shape == (1, 6, 6)
    assert torch.equal(padded[:, 1:4], x)
    assert (padded[0, 0] == 2).all()


def test_resizing_is_within_a_level_of_pillow() -> None:
    from PIL import Image

    values = chest(1, side=224)
    small = np.asarray(
        Image.fromarray(values).resize((128, 128), Image.Resampling.BILINEAR), dtype=np.float32
    )

    assert (
        np.abs(on(Resize(128), torch.from_numpy(values.astype(np.float32))[None])[0].numpy() - small).max()
        <= 1
    )


def test_luminance_weighs_colours() -> None:
    x = torch.stack([torch.full((2, 2), value) for value in (10.0, 20.0, 30.0)])

    torch.testing.assert_close(
        on(Channels(1), x), torch.full((1, 2, 2), 0.299 * 10 + 0.587 * 20 + 0.114 * 30)
    )


def test_own_list_of_steps_replaces_the_presets() -> None:
    own = (
        Component(target="Channels", arguments={"count": 1}),
        Component(target="Resize", arguments={"size": 32}),
    )

    steps = steps_of(ImagesSpec(transforms=own), 1)

    assert [type(step).__name__ for step in steps] == ["Channels", "Resize"]


def test_default_lists_name_every_argument_and_unknown_presets_are_refused() -> None:
    images = ImagesSpec(size=96, store="float16")

    spelt = steps_of(ImagesSpec(size=96, store="float16", transforms=default_components(images, 1)), 1)

    assert [step.monai() for step in spelt] == [step.monai() for step in steps_of(images, 1)]
    assert {component.target for component in default_augment("xray")} == {"RandomAffine", "RandomIntensity"}
    with pytest.raises(ConfigError, match="xray"):
        steps_of(ImagesSpec(preset="xrey"), 1)


def test_another_size_beside_a_written_out_list_is_refused() -> None:
    bundle = load_bundle(BUNDLE)
    images = dataclasses.replace(fill_in(bundle).images, size=160)

    with pytest.raises(ConfigError, match=r"size 128, but images\.size is 160"):
        fill_in(dataclasses.replace(bundle, images=images))
