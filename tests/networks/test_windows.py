"""Whole images through a network that sees one size, and mirrored images averaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from medxfer.encoders.families.unet import UNetEncoder
from medxfer.errors import RunError
from medxfer.networks.decoder import Decoder
from medxfer.networks.network import Network
from medxfer.networks.windows import predict_windows


class Local(nn.Module):
    """Each voxel's answer hangs on its place in the window, so that weights and padding show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        ramp = torch.arange(x.shape[-1], dtype=torch.float32)
        return torch.cat([x + 0.01 * ramp, -x], 1)


@given(
    shape=st.tuples(*[st.integers(3, 21)] * 2),
    window=st.tuples(*[st.integers(4, 9)] * 2),
    overlap=st.sampled_from([0.0, 0.25, 0.6]),
)
def test_logits_equal_those_of_monais_inferer(
    shape: tuple[int, int], window: tuple[int, int], overlap: float
) -> None:
    images = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))

    found = predict_windows(Local(), images, window, overlap=overlap)

    theirs = sliding_window_inference(images, window, 1, Local(), overlap=overlap, mode="gaussian")
    assert found.shape == (1, 2, *shape)
    torch.testing.assert_close(found, theirs)


def test_an_image_of_the_windows_size_goes_through_once_as_it_is() -> None:
    network, images = Local(), torch.rand(3, 1, 8, 9)

    found = predict_windows(network, images, (8, 9), overlap=0.5)

    assert network.seen == [(3, 1, 8, 9)]
    assert torch.equal(found, network(images))
    assert torch.equal(predict_windows(network, images, None, overlap=0.5), network(images))


def test_a_small_image_is_padded_with_0_on_both_sides() -> None:
    class Kept(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.x = x
            return x

    network, image = Kept(), torch.ones(1, 1, 5, 4, 3)

    found = predict_windows(network, image, (8, 8, 8), overlap=0.25)

    expected = torch.zeros(1, 1, 8, 8, 8)
    expected[:, :, 1:6, 2:6, 2:5] = 1  # the odd voxel behind
    assert torch.equal(network.x, expected)
    torch.testing.assert_close(found, image)


class Hungry(nn.Module):
    """Runs out of memory when given more than so many windows."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error, self.tried = most, error, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.tried.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "windows"])
def test_out_of_memory_halves_the_batch_once(error: Exception, whole: bool) -> None:
    window = (256, 256) if whole else (64, 512)  # 16 of the latter at once
    images = torch.rand(16, 1, 256, 256) if whole else torch.rand(1, 1, 64, 16 * 512)
    network = Hungry(8, error)

    found = predict_windows(network, images, window, overlap=0.0)

    assert network.tried == [16, 8, 8]
    torch.testing.assert_close(found, images)


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "windows"])
def test_out_of_memory_again_says_what_to_set(error: Exception, whole: bool) -> None:
    window = (256, 256) if whole else (64, 512)
    images = torch.rand(16, 1, 256, 256) if whole else torch.rand(1, 1, 64, 16 * 512)
    network = Hungry(7, error)

    with pytest.raises(RunError) as refused:
        predict_windows(network, images, window, overlap=0.0)

    text = str(refused.value)
    assert network.tried == [16, 8]
    for words in (
        "out of memory",
        "images.size",
        "task.decoder.width",
        "256 x 256" if whole else "64 x 8192",
    ):
        assert words in text
    assert refused.value.__context__ is None  # nothing holds the memory of the failed try


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        predict_windows(
            Hungry(0, RuntimeError("shape mismatch")), torch.rand(1, 1, 8, 8), (8, 8), overlap=0.0
        )


def network_of(dims: int, flips: tuple[int, ...], *, deep: bool = False) -> Network:
    torch.manual_seed(0)
    encoder = UNetEncoder(spatial_dims=dims, in_channels=1, widths=(8, 16, 16))
    head = Decoder(encoder.channels, encoder.strides, 1, 3, width=8, deep_supervision=deep)
    return Network(encoder, head, window=(16,) * dims, flips=flips).eval()


@pytest.mark.parametrize(("dims", "flips"), [(2, (1,)), (2, (0, 1)), (3, (0, 2)), (3, (0, 1, 2))])
def test_flips_average_the_logits_of_every_mirrored_image(dims: int, flips: tuple[int, ...]) -> None:
    network, plain = network_of(dims, flips), network_of(dims, ())
    images = torch.rand(2, 1, *[16] * dims)

    with torch.no_grad():
        found = network(images)
        subsets = [
            [axis + 2 for place, axis in enumerate(flips) if number >> place & 1]
            for number in range(2 ** len(flips))
        ]
        each = [plain(images.flip(axes)).flip(axes) if axes else plain(images) for axes in subsets]

    torch.testing.assert_close(found, torch.stack(each).mean(0))
    assert not torch.allclose(found, each[0], atol=1e-4)
    # the answer of a mirrored image is the mirrored answer
    with torch.no_grad():
        mirrored = network(images.flip(flips[0] + 2)).flip(flips[0] + 2)
    torch.testing.assert_close(mirrored, found, atol=1e-5, rtol=1e-4)


def test_flips_are_left_out_in_training_and_where_asked() -> None:
    network, plain = network_of(2, (0, 1), deep=True), network_of(2, (), deep=True)
    images = torch.rand(1, 1, 16, 16)

    with torch.no_grad():
        torch.testing.assert_close(network.train()(images), plain.train()(images))
        network.eval()
        with network.without_flips():
            torch.testing.assert_close(network(images), plain.eval()(images))
        assert network.flips == (0, 1)
        assert not torch.allclose(network(images), plain(images), atol=1e-4)


def test_windows_and_flips_go_together() -> None:
    network = network_of(2, (0,))
    images = torch.rand(1, 1, 40, 24)

    with torch.no_grad():
        found = predict_windows(network, images, network.window, overlap=0.5)
        mirrored = predict_windows(network, images.flip(2), network.window, overlap=0.5).flip(2)

    assert found.shape == (1, 3, 40, 24)
    torch.testing.assert_close(found, mirrored, atol=1e-4, rtol=1e-3)
