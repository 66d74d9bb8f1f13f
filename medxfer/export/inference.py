"""`configs/inference.yaml` of an exported bundle: MONAI and torch only, nothing of medxfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import yaml

from .answering_part import AnsweringPart
from .reading_part import ReadingPart

HEADER = """\
# {what} for every image below a folder, in plain MONAI, where medxfer is not installed:
#   {install}
#   python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT
# writes OUT/predictions.csv. The `$` texts below are Python that MONAI runs: read them before you run them.
# bundle_root is found from the place of this file. Where something other than `monai.bundle run` reads it,
# bundle_root is the working folder; --bundle_root DIR names another.
"""


class WritesMonai(Protocol):
    """A deterministic preprocessing step that can write itself as MONAI configuration."""

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """The same computation as a MONAI dictionary transform, without an import of medxfer."""


def inference_yaml(
    reading: ReadingPart, answering: AnsweringPart, steps: Sequence[WritesMonai], ident: str
) -> str:
    """The file's text.

    Args:
        reading: How files become images.
        answering: What is said of them, and how it is written.
        steps: Preprocessing after reading, on `(C, *spatial)` float32.
        ident: Identifies the weights: a folder whose `inference.yaml` has another is not this bundle's.
    """
    config = {
        **_places(ident),
        **reading.config,
        **_preprocessing(reading, answering, steps),
        **_running(reading, answering),
    }
    imports = (*reading.imports, *answering.imports, *_imports_of(steps))
    config["imports"] += [f"$import {name}" for name in imports]
    config["imports"] = list(dict.fromkeys(config["imports"]))
    # one line a value: the texts are Python, and folded lines are hard to read
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=10_000)
    header = HEADER.format(what=answering.what, install=install_line(reading, answering, steps))
    return header + "\n" + text


def _imports_of(steps: Sequence[WritesMonai]) -> list[str]:
    return [name for step in steps for name in getattr(step, "imports", ())]


def packages_of(reading: ReadingPart, answering: AnsweringPart, steps: Sequence[WritesMonai]) -> list[str]:
    """What the configuration needs beside torch, MONAI and what every bundle needs."""
    modules = [name.partition(".")[0] for name in _imports_of(steps)]
    own = [PACKAGE_OF.get(module, module) for module in modules if module not in ("monai", "numpy", "torch")]
    return list(dict.fromkeys([*reading.packages, *answering.packages, *own]))


def install_line(reading: ReadingPart, answering: AnsweringPart, steps: Sequence[WritesMonai]) -> str:
    """The command that brings everything."""
    extras = ",".join(sorted({"fire", "ignite", *reading.extras, *answering.extras}))
    brought = (*reading.packages, *answering.packages)
    others = [name for name in packages_of(reading, answering, steps) if name not in brought]
    return " ".join(["pip install torch", f"'monai[{extras}]'", "pyyaml", *others])


PACKAGE_OF = {"skimage": "scikit-image"}  # where module and package have different names


def _places(ident: str) -> dict[str, Any]:
    # `monai.bundle run` puts the bundle's folder second into sys.path, then evaluates `run`. `initialize`
    # comes before that, so nothing there may ask for bundle_root.
    root = (
        "$next(filter(lambda folder, ident=@bundle_id: "
        "os.path.isfile(os.path.join(folder, 'models', 'model.pt2')) "
        "and os.path.isfile(os.path.join(folder, 'configs', 'inference.yaml')) "
        "and ident in pathlib.Path(folder, 'configs', 'inference.yaml').read_text(encoding='utf-8'), "
        "sys.path[1:2]), '.')"
    )
    return {
        "imports": [
            "$import os", "$import pathlib", "$import sys", "$import monai", "$import numpy", "$import torch",
            "$import torch.export.passes",
        ],
        "bundle_id": ident,
        "bundle_root": root,
        "dataset_dir": "data",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }  # fmt: skip


def _preprocessing(
    reading: ReadingPart, answering: AnsweringPart, steps: Sequence[WritesMonai]
) -> dict[str, Any]:
    plain = {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False}
    read = [*reading.stored, *answering.stored, *reading.transforms]
    return {
        "preprocessing": {
            "_target_": "Compose",
            # a plain tensor at the end: metadata of DICOM and of pictures do not fit into one batch
            "transforms": [*read, *[step.monai("image") for step in steps], *answering.ready, plain],
        },
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": answering.batch or reading.batch,
            "shuffle": False,
            "num_workers": 0,
        },
    }


def _running(reading: ReadingPart, answering: AnsweringPart) -> dict[str, Any]:
    return {
        "program": "$torch.export.load(os.path.join(@bundle_root, 'models', 'model.pt2'))",
        "moved": "$@program if torch.device(@device).type == 'cpu' "
        "else torch.export.passes.move_to_device_pass(@program, str(@device))",
        "called": "$@moved.module()",
        # a program cannot be told eval(), which evaluators do: a module around it can. The slices of a volume
        # come at once and are taken in portions.
        "network_def": "$type('Exported', (torch.nn.Module,), "
        "{'forward': lambda self, x, run=@called: torch.cat([run(part) for part in x.split(32)])})()",
        **answering.config,
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": [
            f"$@files or sys.exit('nothing to read below ' + str(@dataset_dir) + ': every {reading.files} is read')"
        ],
        "run": [
            "$pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True)",
            "$pathlib.Path(@output_dir, 'predictions.csv').write_text(@csv_header, encoding='utf-8')",
            "$@evaluator.run()",
        ],
        "finalize": ["$print('wrote', os.path.join(@output_dir, 'predictions.csv'))"],
    }
