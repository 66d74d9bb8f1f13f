"""Look at the first images that an encoder will see: what its weights cannot cope with shows there."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.health.polarity import look_inverted
from ..plugin import Encoder, Normalise

_TOLERANCE = 0.02  # outside [0, 1]: interpolation overshoots by about this much
_ONE_LEVEL = 1.5 / 255
_FLAT = 0.01  # deviation within an image
_FAR = 1.9  # standard deviations of the weights' own images; all black is 2.0 below ImageNet's mean
_A_STATISTIC = (0.05, 0.49)  # deviations that can be those of images in [0, 1]; others only set a range
_FEW = 0.2  # share of images from which on something is no accident


def check_first_batch(
    images: Tensor, encoder: Encoder, *, pretrained: bool = True, preset: str = ""
) -> list[str]:
    """Advice where value range, contrast, brightness or polarity are not what the encoder expects.

    Nothing is said without evidence in the images; nothing is refused: the user may know better.

    Args:
        images: `(B, C, *spatial)` as the encoder will get them, before augmentation. 16 to 64 tell enough.
        encoder: With its normalisation in place.
        pretrained: Whether its normalisation constants belong to weights, and so mean something.
        preset: Of the images; `xray` has its polarity looked at.

    Returns:
        Sentences, each with what was seen and what to do; mostly none.
    """
    images = images.detach().float()
    if not bool(images.isfinite().all()):
        bad = int((~images.isfinite()).flatten(1).any(dim=1).sum())
        return [f"{bad} of {len(images)} images hold NaN or infinity: look at them with `medxfer inspect`"]
    advice = _about_range(images)
    if advice:
        return advice  # with a wrong range nothing else can be told
    advice = _about_contrast(images)
    if pretrained:
        advice += _about_brightness(images, encoder)
    if preset == "xray" and images.ndim == 4:
        advice += _about_polarity(images)
    return advice


def _about_range(images: Tensor) -> list[str]:
    low, high = images.aminmax()
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        return [
            f"values from {low:.4g} to {high:.4g}, the encoder expects 0 to 1: end images.transforms with a "
            "step that scales to [0, 1]; normalising by mean and deviation is the encoder's own part"
        ]
    if high <= _ONE_LEVEL and high > low:
        return [f"values from {low:.2g} to {high:.2g}, the encoder expects 0 to 1: divided by 255 twice?"]
    return []


def _about_contrast(images: Tensor) -> list[str]:
    flat = int((images.flatten(1).std(dim=1) < _FLAT).sum())
    if flat < max(1, _FEW * len(images)):
        return []
    return [
        f"{flat} of {len(images)} images have next to no contrast (deviation below {_FLAT}): a window or "
        "percentile of the preset does not fit them; look at them with `medxfer inspect`"
    ]


def _about_brightness(images: Tensor, encoder: Encoder) -> list[str]:
    """Whether images are far darker or brighter than those that the weights were trained on."""
    normalise = next((part for part in encoder.normalise.modules() if isinstance(part, Normalise)), None)
    least, most = _A_STATISTIC
    if normalise is None or not bool(((normalise.std > least) & (normalise.std < most)).all()):
        return []
    mean = images.transpose(0, 1).flatten(1).mean(dim=1)
    wanted, deviation = normalise.mean.to(mean), normalise.std.to(mean)
    repeated = mean[torch.arange(len(wanted), device=mean.device) % len(mean)]  # as a grey image is
    far = float(((repeated - wanted) / deviation).mean())
    if abs(far) < _FAR:
        return []
    kind = "darker" if far < 0 else "brighter"
    return [
        f"images are far {kind} than those of the weights: mean {float(repeated.mean()):.2f}, theirs "
        f"{float(wanted.mean()):.2f} with deviation {float(deviation.mean()):.2f}: choose a narrower window, or "
        "crop the background away"
    ]


def _about_polarity(images: Tensor) -> list[str]:
    inverted = int(look_inverted(images.mean(dim=1)).sum())
    if inverted < max(2, _FEW * len(images)):
        return []
    return [
        f"{inverted} of {len(images)} images look inverted (white background, spine darker than the lungs): if "
        "these are chest X-rays, invert them; in DICOM files PhotometricInterpretation should say MONOCHROME1"
    ]
