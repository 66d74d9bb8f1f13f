"""A trained network as one file for other programs: `torch.export`, ONNX, TorchScript."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import write_atomic
from .answering_part import AnsweringPart
from .program import ExportedProgramModule, example_images, export_program, require_equal, write_pt2

Writer = Callable[[Path, ExportedProgramModule, int, Sequence[int], str, Callable[[str], None]], Path]


def write_program(
    target: Path,
    kind: str,
    *,
    network: nn.Module,
    activate: Callable[[Tensor], Tensor],
    answering: AnsweringPart,
    temperature: float,
    in_channels: int,
    shape: Sequence[int],
    warn: Callable[[str], None],
) -> Path:
    """Write network and temperature as one file: images in, probabilities out; where masks are asked for, logits.

    Images are `(B, in_channels, *shape)` in [0, 1]. The preprocessing is not in the file; a MONAI bundle
    carries it, and for masks the sliding window and the way back to the file.

    Args:
        target: The file.
        kind: A key of `FORMATS`.
        network: Images in [0, 1] to logits.
        activate: Logits to probabilities.
        answering: What the file gives, and what is said of it.
        temperature: The logits are divided by it.
        in_channels: Channels of the input.
        shape: Pixels or voxels along each axis; fixed in the file, the batch is not.
        warn: Told what the user should know of the format.

    Raises:
        ConfigError: An unknown format, a package that it needs is absent, or a task that contradicts its answer.
        RunError: The network cannot be exported, or the result gives other numbers.
    """
    if kind not in FORMATS:
        accepted = ", ".join(FORMATS)
        raise ConfigError(f"export --to {kind}", "an unknown format", accepted, "choose one of these")
    activate = answering.activate(activate, answering.output["num_channels"])
    module = ExportedProgramModule(network, activate=activate, temperature=temperature)
    path = FORMATS[kind](target, module, in_channels, shape, answering.gives, warn)
    if answering.is_patch:
        warn(answering.numbers)
    return path


def _write_pt2(
    target: Path,
    module: ExportedProgramModule,
    in_channels: int,
    shape: Sequence[int],
    _gives: str,
    _warn: Callable[[str], None],
) -> Path:
    return write_pt2(target, export_program(module, in_channels=in_channels, shape=shape))


def _write_onnx(
    target: Path,
    module: ExportedProgramModule,
    in_channels: int,
    shape: Sequence[int],
    gives: str,
    _warn: Callable[[str], None],
) -> Path:
    require_packages("onnx", ("onnx", "onnxscript"))
    # the program is compared with the network; the converter then turns its operators into ONNX's
    program = export_program(module, in_channels=in_channels, shape=shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        converted = torch.onnx.export(
            program,
            (example_images(in_channels, shape),),
            dynamo=True,
            input_names=["image"],
            output_names=[gives],
            verbose=False,
        )
    _log(caught, "onnx")
    assert converted is not None  # None only for the exporter before dynamo
    return write_atomic(target, converted.model_proto.SerializeToString())


def _write_torchscript(
    target: Path,
    module: ExportedProgramModule,
    in_channels: int,
    shape: Sequence[int],
    _gives: str,
    warn: Callable[[str], None],
) -> Path:
    images = example_images(in_channels, shape)
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        traced = torch.jit.trace(module, (images,), check_trace=False)
        torch.jit.save(traced, buffer)
    for text in dict.fromkeys(str(warning.message).strip() for warning in caught):
        warn(f"TorchScript: {text}")
    require_equal(traced, module, in_channels=in_channels, shape=shape, name="torchscript")
    return write_atomic(target, buffer.getvalue())


def _log(caught: list[warnings.WarningMessage], name: str) -> None:
    """What converters say of their own insides is for developers."""
    for text in dict.fromkeys(str(warning.message).strip() for warning in caught):
        logging.getLogger(__name__).debug("%s: %s", name, text)


def require_packages(extra: str, names: tuple[str, ...]) -> None:
    """Refuse a format whose packages are absent.

    Raises:
        ConfigError: It names the packages and the extra that brings them.
    """
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        seen = f"not installed: {', '.join(absent)}"
        accepted = f"medxfer with its extra `{extra}`"
        raise ConfigError(f"export --to {extra}", seen, accepted, f"pip install 'medxfer[{extra}]'")


FORMATS: Mapping[str, Writer] = MappingProxyType(
    {"pt2": _write_pt2, "onnx": _write_onnx, "torchscript": _write_torchscript}
)
