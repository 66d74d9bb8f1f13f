"""Grad-CAM (Selvaraju et al. 2017) on the stages of an encoder, and pictures of what was said of an image.

MONAI's `GradCAM` hooks a layer by name; it fails when all parameters are frozen and on layers that give
tokens, and says nothing of an all-zero map. An encoder that is a list of stages needs no hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.network import Head, Network
from .figures import CasePicture

SMALLEST_MAP = 4  # positions per axis under which a map tells no place
BLANK = 1e-8  # largest value of a map that holds nothing

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was said of an image."""

    true: str
    called: str
    probability: float  # of `called`
    output: int  # logit whose evidence is shown
    explained: str = ""  # what that logit stands for, where it is not `called`


def explained_picture(
    network: nn.Module, image: Tensor, verdict: Verdict, *, group: str, index: int
) -> CasePicture:
    """An image with the evidence for what was said of it.

    Args:
        network: As in `grad_cam`.
        image: (C, *spatial), in [0, 1].
        verdict: What was said.
        group: `best` or `worst`.
        index: Row of the Predictions.
    """
    device = next(network.parameters()).device
    (heat,) = grad_cam(cast("Network", network), image[None].to(device), verdict.output)
    return CasePicture(
        group=group,
        index=index,
        image=image.float().cpu().numpy(),
        facts={
            "true": verdict.true,
            "called": verdict.called,
            "probability": f"{verdict.probability:.3f}",
        },
        wrong=() if verdict.true == verdict.called else ("called",),
        heat=None if heat is None else heat.numpy(),
        heat_of=verdict.explained or verdict.called,
    )


def grad_cam(network: Network, images: Tensor, class_index: int) -> list[Tensor | None]:
    """Where in each image the evidence for a class lies.

    Args:
        network: Encoder and head; its parameters may all be frozen.
        images: (B, C, *spatial), in [0, 1].
        class_index: The logit that is explained.

    Returns:
        Per image a float32 map (*spatial) on the CPU, scaled to [0, 1]; None when the map is blank or not
        finite: nothing in the image speaks for the class, or the gradient vanished.
    """
    was_training = network.training
    network.train(False)
    try:
        # inference_mode would forbid gradients; autocast would round them
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(images.device.type, enabled=False),
        ):
            # the input asks for the gradient: with frozen parameters nothing else would
            pixels = images.detach().clone().float().requires_grad_()
            maps: Sequence[Tensor] = network.encoder(pixels)
            chosen = maps[_stage(maps)]
            head = cast("Head", network.head)
            logit = head(head.reduce(list(maps), pixels))[:, class_index].sum()
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(logit, chosen, allow_unused=True)
    finally:
        network.train(was_training)
    gradient = gradients[0]
    if gradient is None:  # the head does not look at this stage
        return [None] * len(images)
    axes = tuple(range(2, chosen.ndim))
    evidence = torch.relu((gradient.mean(dim=axes, keepdim=True) * chosen).sum(dim=1, keepdim=True)).detach()
    whole = functional.interpolate(evidence, size=images.shape[2:], mode=_MODES[images.ndim - 2])
    return [_scaled(one[0].float().cpu()) for one in whole]


def _stage(maps: Sequence[Tensor]) -> int:
    """The deepest stage that still tells places apart; the finest one when none does."""
    fine = [index for index, one in enumerate(maps) if min(one.shape[2:]) >= SMALLEST_MAP]
    return fine[-1] if fine else 0


def _scaled(evidence: Tensor) -> Tensor | None:
    if not bool(torch.isfinite(evidence).all()) or float(evidence.max()) <= BLANK:
        return None
    return evidence / evidence.max()
