"""The same image gives the same numbers: alone or in a batch, under any seed, precision and memory order."""

from __future__ import annotations

import random

import torch

from .subject import Subject, eval_maps, explained, relative_difference, require


def check_batch_independence(subject: Subject) -> None:
    """15: in evaluation mode an image alone gives what it gives in a batch."""
    encoder, images = subject.encoder(), subject.images()
    together, alone = eval_maps(encoder, images), eval_maps(encoder, images[:1])
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        difference = relative_difference(one[:1], other)
        advice = "batch statistics in eval mode?"
        require(difference < 1e-4, f"stage {index} differs by {difference:.2g} with its neighbours; {advice}")


def check_determinism(subject: Subject) -> None:
    """16: evaluation neither depends on the global random state nor uses it up."""
    encoder, images = subject.encoder(), subject.images()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = eval_maps(encoder, images)
    require(torch.equal(state, torch.get_rng_state()), "eval consumes torch's random state: dropout left on?")
    second = eval_maps(encoder, images)
    torch.manual_seed(2)
    third = eval_maps(encoder, images)
    for index, (one, two, three) in enumerate(zip(first, second, third, strict=True)):
        require(torch.equal(one, two), f"stage {index}: a second call differs from the first")
        require(torch.equal(one, three), f"stage {index}: eval output changes with torch.manual_seed")


def check_build_seed(subject: Subject) -> None:
    """17: one seed, one set of weights."""
    random.seed(1)
    first = subject.fresh().state_dict()
    random.seed(2)
    second = subject.fresh().state_dict()
    for name, value in first.items():
        advice = "initialise with torch's generator, not Python's or NumPy's"
        require(
            torch.equal(value, second[name]), f"`{name}` differs between two builds under one seed: {advice}"
        )


def check_bf16(subject: Subject) -> None:
    """18: under bf16 autocast finite, and in the direction of fp32."""
    encoder, images = subject.encoder(), subject.images()
    exact = eval_maps(encoder, images)
    advice = "do that step in fp32 inside torch.autocast(..., enabled=False)"
    with explained("fails under bf16", advice), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = eval_maps(encoder, images)
    for index, (one, other) in enumerate(zip(exact, rounded, strict=True)):
        require(bool(other.isfinite().all()), f"stage {index} gives NaN or infinity under bf16")
        cosine = float(torch.cosine_similarity(one.flatten(), other.float().flatten(), dim=0))
        require(cosine >= 0.99, f"stage {index} has cosine {cosine:.3f} to fp32 under bf16, not 0.99")


def check_channels_last(subject: Subject) -> None:
    """19: the memory order of the image does not matter."""
    encoder, images = subject.encoder(), subject.images()
    order = torch.channels_last if subject.spatial_dims == 2 else torch.channels_last_3d
    with explained("fails with a channels_last image", "use `reshape` instead of `view`"):
        turned = eval_maps(encoder, images.contiguous(memory_format=order))
    for index, (one, other) in enumerate(zip(eval_maps(encoder, images), turned, strict=True)):
        difference = relative_difference(one, other)
        advice = "a `view` after permute? use `reshape`"
        require(difference < 1e-4, f"stage {index} differs by {difference:.2g} with channels_last; {advice}")
