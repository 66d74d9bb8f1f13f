"""A network that sees one size asked about images of any size, window by window."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RunError

# Pixels or voxels that the network gets in one go. A processor is fastest with few (its caches), a GPU with many; no
# fewer than two windows, as torch has a fast 3D convolution of one channel only for those.
_AT_ONCE = {"cpu": 2**19, "cuda": 2**22}
_SIGMA = 0.125  # of the Gaussian weights, in window sides; MONAI's default, as nnU-Net's
_LEAST = 1e-3  # weight of a window's corners
# By the axes of convolution weights, those of pictures and of volumes.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def predict_windows(
    network: nn.Module, images: Tensor, window: Sequence[int] | None, *, overlap: float
) -> Tensor:
    """Logits of whole images; neighbouring windows are averaged with Gaussian weights.

    The same windows, weights and sums as MONAI's `sliding_window_inference(mode="gaussian")`, which exported bundles
    run. Images that are smaller than the window are padded with 0 on both sides. Where memory runs out, half as many
    windows (or images, where they have the window's size) go at once, one time.

    Args:
        network: (B, C, *window) to (B, K, *window), in evaluation mode.
        images: (B, C, *spatial).
        window: What the network was trained on; None: it takes any size.
        overlap: Share of a window that the next one covers too, 0 to below 1.

    Returns:
        (B, K, *spatial) float32.

    Raises:
        RunError: Memory does not suffice.
    """
    size = tuple(images.shape[2:] if window is None else window)
    is_whole = tuple(images.shape[2:]) == size
    at_once = max(2, _AT_ONCE.get(images.device.type, _AT_ONCE["cpu"]) // math.prod(size))
    at_once = len(images) if is_whole else at_once
    said = ""
    for portion in dict.fromkeys((at_once, max(1, at_once // 2))):
        try:
            if is_whole:
                return torch.cat([network(part).float() for part in images.split(portion)])
            with _channels_last(network, images):
                return _averaged(network, images, size, portion, overlap)
        except (RuntimeError, MemoryError) as error:
            if not _is_about_memory(error):
                raise
            # only its text: its frames would hold the memory that the second try needs
            said = (str(error) or type(error).__name__).splitlines()[0]
        if images.is_cuda:
            torch.cuda.empty_cache()
    raise _too_large(images, size, said)


def _averaged(
    network: nn.Module, images: Tensor, window: tuple[int, ...], portion: int, overlap: float
) -> Tensor:
    """Logits of all windows, each weighed, over the sum of the weights."""
    sides = tuple(images.shape[2:])
    lacking = [max(want - side, 0) for want, side in zip(window, sides, strict=True)]
    pads = [part for lack in reversed(lacking) for part in (lack // 2, lack - lack // 2)]
    padded = functional.pad(images, pads) if any(pads) else images
    boxes = window_boxes(padded.shape[2:], window, overlap)
    weights = gaussian_weights(window).to(images.device)
    sums: Tensor | None = None
    every = [(number, (slice(None), *box)) for number in range(len(images)) for box in boxes]
    for begin in range(0, len(every), portion):
        places = every[begin : begin + portion]
        logits = network(torch.stack([padded[number][box] for number, box in places])).float()
        if sums is None:
            sums = logits.new_zeros((len(images), logits.shape[1], *padded.shape[2:]))
        for (number, box), one in zip(places, logits, strict=True):
            sums[number][box].addcmul_(one, weights)
        del logits
    assert sums is not None
    total = weights.new_zeros(padded.shape[2:])
    for place in boxes:
        total[place] += weights
    sums /= total
    inner = tuple(slice(lack // 2, lack // 2 + side) for lack, side in zip(lacking, sides, strict=True))
    return sums[(slice(None), slice(None), *inner)]


@contextlib.contextmanager
def _channels_last(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Convolution weights with channels last, where that is faster: in fp32 on a processor, 1.3 to 2 times.

    Afterwards they are as before: an export wants them contiguous.
    """
    weights = [one for one in network.parameters() if one.ndim in _CHANNELS_LAST]
    in_fp32 = images.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not in_fp32 or not weights or not all(one.is_contiguous() for one in weights):
        yield
        return
    _lay_out(network, _CHANNELS_LAST[max(one.ndim for one in weights)])
    try:
        yield
    finally:
        _lay_out(network, torch.contiguous_format)


def _lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    with torch.inference_mode(False):  # its tensors could not be trained any more
        network.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stub lacks the keyword


def window_boxes(sides: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Where windows lie: at equal steps from the first voxel, the last ones moved back into the image.

    Args:
        sides: Of the image, none smaller than the window's.
        window: Its size.
        overlap: As in `predict_windows`.
    """
    starts = []
    for side, want in zip(sides, window, strict=True):
        step = max(1, int(want * (1 - overlap)))
        count = 1 + math.ceil((side - want) / step)
        starts.append([min(number * step, side - want) for number in range(count)])
    return [
        tuple(slice(start, start + want) for start, want in zip(place, window, strict=True))
        for place in itertools.product(*starts)
    ]


def gaussian_weights(window: Sequence[int]) -> Tensor:
    """Weights (*window) float32 that fall from the middle of a window to its sides."""
    weights = torch.ones(())
    for side in window:
        places = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(places**2 / (-2 * (_SIGMA * side) ** 2))
    return weights.clamp_(min=max(float(weights.min()), _LEAST))


def _is_about_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in text
        or "allocate memory" in text
        or "not enough memory" in text
    )


def _too_large(images: Tensor, window: Sequence[int], said: str) -> RunError:
    shape, size = (" x ".join(map(str, sides)) for sides in (images.shape[2:], window))
    seen = f"out of memory with windows of {size} on an image of {shape}, also with half as many at once ({said})"
    todo = "set images.size smaller, or a smaller task.decoder.width; on a GPU try --device cpu"
    return RunError("sliding window", seen, "windows that fit into memory", todo)
