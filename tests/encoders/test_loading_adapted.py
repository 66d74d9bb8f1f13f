"""Pretrained weights for other images answer as they did: other channels, a third dimension; many families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.adapt import inflate_centre, resize_positions, spread_channels, token_grids
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import build
from medxfer.plugin import Encoder

CONVOLUTIONAL = ("cnn", "resnet18", "densenet121", "efficientnet_b0", "se_resnext50", "segresnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def trained(encoder_id: str, channels: int, folder: Path) -> Path:
    """2D weights of which nothing is at its default, made once."""
    path = folder / f"{encoder_id}-{channels}.pth"
    if path.exists():
        return path
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = build(encoder_id, spatial_dims=2, in_channels=channels)
        state = {k: v.clone() for k, v in encoder.state_dict().items() if not k.startswith("normalise")}
        for name, value in state.items():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if "running_var" in name else 0.1))
    torch.save(state, path)
    return path


def loaded(encoder_id: str, path: Path, channels: int, dims: int = 2) -> Encoder:
    encoder, receipt = create_encoder(
        EncoderSpec(id=encoder_id, weights=str(path), in_channels=channels), spatial_dims=dims
    )
    assert receipt.coverage == 1
    return encoder.eval()


def require_close(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        scale = b.abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder_id", CONVOLUTIONAL)
def test_2d_weights_in_a_constant_volume_answer_as_in_2d_in_every_slice(
    encoder_id: str, folder: Path
) -> None:
    path = trained(encoder_id, 1, folder)
    flat, deep = loaded(encoder_id, path, 1), loaded(encoder_id, path, 1, dims=3)
    image = torch.rand(1, 1, 33, 32)

    with torch.no_grad():
        wanted = flat(image)
        seen = deep(image[..., None].expand(-1, -1, -1, -1, 34))

    require_close(seen, [one[..., None].expand_as(other) for one, other in zip(wanted, seen, strict=True)])


@pytest.mark.parametrize("encoder_id", ["cnn", "resnet18", "efficientnet_b0", "vit_tiny", "segresnet"])
def test_grey_image_answers_as_the_colour_image_of_its_copies(encoder_id: str, folder: Path) -> None:
    path = trained(encoder_id, 3, folder)
    grey = torch.rand(2, 1, 48, 47)

    with torch.no_grad():
        one = loaded(encoder_id, path, 1)(grey)
        other = loaded(encoder_id, path, 3)(grey.expand(-1, 3, -1, -1))

    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("pretrained", [1, 3])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("encoder_id", ["cnn", "efficientnet_b0"])
def test_any_number_of_channels_that_take_turns_answers_alike(
    encoder_id: str, pretrained: int, channels: int, folder: Path
) -> None:
    path = trained(encoder_id, pretrained, folder)
    image = torch.rand(2, min(pretrained, channels), 40, 40)

    with torch.no_grad():
        turns = torch.arange(channels) % image.shape[1]
        seen = loaded(encoder_id, path, channels)(image[:, turns])
        back = torch.arange(pretrained) % image.shape[1]
        wanted = loaded(encoder_id, path, pretrained)(image[:, back])

    require_close(seen, wanted)


@settings(max_examples=25)
@given(
    trained_on=st.integers(1, 4),
    more=st.integers(1, 4),
    kernel=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 99),
)
def test_spread_kernel_keeps_its_response(trained_on: int, more: int, kernel: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, trained_on, kernel, kernel, generator=generator)
    image = torch.randn(1, trained_on, 7, 8, generator=generator)
    turns = torch.arange(trained_on + more) % trained_on

    seen = torch.nn.functional.conv2d(image[:, turns], spread_channels(weight, trained_on + more), padding=1)

    torch.testing.assert_close(
        seen, torch.nn.functional.conv2d(image, weight, padding=1), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=25)
@given(
    kernel=st.sampled_from([1, 2, 3, 4, 5, 7]),
    stride=st.integers(1, 2),
    depth=st.integers(7, 11),
    seed=st.integers(0, 99),
)
def test_centred_kernel_keeps_its_response_wherever_its_middle_lies_inside(
    kernel: int, stride: int, depth: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 1, kernel, kernel, generator=generator)
    image = torch.randn(1, 1, 9, 8, generator=generator)
    volume = image[..., None].expand(-1, -1, -1, -1, depth)

    flat = torch.nn.functional.conv2d(image, weight, stride=stride, padding=kernel // 2)
    seen = torch.nn.functional.conv3d(
        volume, inflate_centre(weight, kernel), stride=stride, padding=kernel // 2
    )

    inside = seen[..., : (depth - 1) // stride + 1]  # an even kernel has one place more, in the padding
    torch.testing.assert_close(inside, flat[..., None].expand_as(inside), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        (197, 577, ((14, 14), (24, 24), True, True)),
        (196, 36, ((14, 14), (6, 6), False, False)),
        (197, 196, ((14, 14), (14, 14), True, False)),
        (217, 513, ((6, 6, 6), (8, 8, 8), True, True)),
        (197, 217, ((14, 14), (6, 6, 6), True, True)),
        (36, 217, None),  # a class token cannot be made up
        (50, 190, None),
    ],
)
def test_grids_behind_numbers_of_tokens(old: int, new: int, known: tuple[object, ...] | None) -> None:
    grids = token_grids(old, new)

    assert (grids and (grids.old, grids.new, grids.old_class, grids.new_class)) == known


def test_positions_of_a_smooth_grid_stay_where_they_are() -> None:
    row, column = torch.meshgrid(torch.linspace(0, 1, 14), torch.linspace(0, 1, 14), indexing="ij")
    embeddings = torch.stack([row, column], dim=-1).reshape(1, 196, 2)
    grids = token_grids(196, 28 * 28)
    assert grids is not None

    resized = resize_positions(embeddings, grids).reshape(28, 28, 2)

    assert resized[:, 3, 0].diff().min() > 0
    torch.testing.assert_close(resized[2:-2, :, 0].mean(), torch.tensor(0.5), atol=0.01, rtol=0)


def test_2d_positions_are_repeated_along_the_depth() -> None:
    embeddings = torch.rand(1, 1 + 36, 4)
    grids = token_grids(37, 217)
    assert grids is not None

    resized = resize_positions(embeddings, grids)

    assert torch.equal(resized[:, 0], embeddings[:, 0])
    volume = resized[0, 1:].reshape(6, 6, 6, 4)
    torch.testing.assert_close(volume, embeddings[0, 1:].reshape(6, 6, 1, 4).expand(6, 6, 6, 4))
