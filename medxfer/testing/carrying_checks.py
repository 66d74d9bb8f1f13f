"""An encoder can be carried elsewhere: without numbers, through files, as a copy, as an exported program."""

from __future__ import annotations

import copy
import io
import warnings

import torch

from .subject import Subject, eval_maps, explained, relative_difference, require


def check_meta_device(subject: Subject) -> None:
    """20: built and run without numbers."""
    advice = "make plain numbers with Python arithmetic, no .item() or .tolist() while building"
    with explained("fails on the meta device", advice), torch.device("meta"):
        encoder = subject.fresh().eval()
        shape = (2, 3, *subject.size)
        maps = eval_maps(encoder, torch.empty(shape))
    off = [name for name, value in encoder.state_dict().items() if value.device.type != "meta"]
    require(not off, f"built under the meta device, {off[:3]} lie elsewhere")
    require(all(found.device.type == "meta" for found in maps), "maps left the meta device")


def check_safetensors(subject: Subject) -> None:
    """21: a round trip through safetensors keeps every bit."""
    from safetensors.torch import load, save

    encoder, images = subject.encoder(), subject.images()
    with explained(
        "safetensors refuses the state dict", "register each tensor once, contiguous, under one name"
    ):
        saved = save(encoder.state_dict())
    torch.manual_seed(1)
    other = subject.encoder()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(load(saved))
    for index, (one, two) in enumerate(
        zip(eval_maps(encoder, images), eval_maps(other, images), strict=True)
    ):
        require(
            torch.equal(one, two), f"stage {index} differs after a round trip: state outside the state dict?"
        )


def check_copies(subject: Subject) -> None:
    """22: a deep copy, and a new one with its pickled state, give the same maps."""
    encoder, images = subject.encoder(), subject.images()
    eval_maps(encoder, images)  # what it remembers of an image shows in the next one
    maps = eval_maps(encoder, images)
    with explained("cannot deepcopy", "a hook, a lock or an open file kept on the module?"):
        copied = copy.deepcopy(encoder)
    file = io.BytesIO()
    advice = "keep tensors and plain numbers in the state dict"
    with explained("its state cannot be pickled and read as weights only", advice):
        torch.save(encoder.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    other = subject.encoder()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(state)
    for what, built in (("a deep copy", copied), ("one with the same state", other)):
        for index, (one, two) in enumerate(zip(maps, eval_maps(built, images), strict=True)):
            require(torch.equal(one, two), f"stage {index} of {what} differs: state outside the state dict?")


def check_export(subject: Subject) -> str | None:
    """23: `torch.export` with a dynamic batch agrees with eager (2D)."""
    if subject.spatial_dims != 2:
        return "looked at in 2D only"
    encoder, images = subject.encoder(), subject.images()
    batch = torch.export.Dim("batch", min=1, max=1024)
    advice = "no branch on tensor values, no Python numbers from the batch size"
    with explained("torch.export fails", advice), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations during tracing
        program = torch.export.export(encoder, (images,), dynamic_shapes=({0: batch},)).module()
        more = subject.images(batch=3)
        exported, eager = program(more), eval_maps(encoder, more)
    for index, (one, other) in enumerate(zip(eager, exported, strict=True)):
        difference = relative_difference(one, other.detach())
        require(difference < 1e-5, f"stage {index} of the exported program differs by {difference:.2g}")
    return None
