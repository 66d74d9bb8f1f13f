"""A network that sees one size asked about images of any size: MONAI's sliding window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import RunError

_AT_ONCE = 2**21  # pixels or voxels that the network gets in one go: two windows of 96 a side


def predict_windows(
    network: nn.Module, images: Tensor, window: Sequence[int] | None, *, overlap: float
) -> Tensor:
    """Logits of whole images; neighbouring windows are averaged with Gaussian weights.

    Images that are smaller than the window are padded with 0 on both sides. Where memory runs out, half as many
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
    whole = window is None or tuple(images.shape[2:]) == tuple(window)
    size = tuple(images.shape[2:] if window is None else window)
    at_once = len(images) if whole else max(1, _AT_ONCE // math.prod(size))
    said = ""
    for portion in dict.fromkeys((at_once, max(1, at_once // 2))):
        try:
            if whole:
                return torch.cat([network(part).float() for part in images.split(portion)])
            return _slid(network, images, size, portion, overlap)
        except (RuntimeError, MemoryError) as error:
            if not _is_about_memory(error):
                raise
            # only its text: its frames would hold the memory that the second try needs
            said = (str(error) or type(error).__name__).splitlines()[0]
        if images.is_cuda:
            torch.cuda.empty_cache()
    raise _too_large(images, size, said)


def _slid(
    network: nn.Module, images: Tensor, window: tuple[int, ...], portion: int, overlap: float
) -> Tensor:
    from monai.inferers.utils import sliding_window_inference

    logits: Tensor = sliding_window_inference(
        images, window, portion, network, overlap=overlap, mode="gaussian"
    )
    return logits.float()


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
