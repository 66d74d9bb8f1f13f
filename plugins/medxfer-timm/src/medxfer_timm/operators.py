"""Import timm beside a torch that the installed torchvision was not compiled for.

timm imports torchvision. The wheel on the package index wants a CUDA build of torch: beside a CPU build its
compiled part does not load, and its Python part fails on operators that were never declared. Declaring their
schemas is enough: nothing in timm's networks calls them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch
from torch import library as operators

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[operators.Library] = []  # a schema lives as long as the object that declared it


def import_timm() -> ModuleType:
    """The package timm, after mending torchvision's import where it needs it."""
    _mend_torchvision()
    return importlib.import_module("timm")


def remarks() -> list[str]:
    """What `medxfer doctor env` says of this plugin on this machine."""
    if not _mend_torchvision():
        return []
    version = importlib.import_module("torchvision").__version__
    return [
        f"torchvision {version} was compiled for another torch than {torch.__version__}: medxfer-timm declares "
        "its operators nms and qnms, without which it cannot be imported; timm's networks do not use them"
    ]


def _mend_torchvision() -> bool:
    """Import torchvision; only if that fails for want of its operators declare those that are missing.

    Returns:
        Whether operators had to be declared, now or earlier.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
        if "operator torchvision::" not in str(error) or not missing:
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left
        declaring = operators.Library("torchvision", "DEF")
        for name in missing:
            declaring.define(_SCHEMAS[name])
        _declared.append(declaring)
        importlib.import_module("torchvision")
    return bool(_declared)
