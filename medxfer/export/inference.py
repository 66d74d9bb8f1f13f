"""`configs/inference.yaml` of an exported bundle: MONAI and torch only, nothing of medxfer."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Protocol

import yaml

SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

HEADER = """\
# Probabilities for every image below a folder, in plain MONAI, where medxfer is not installed:
#   pip install torch 'monai[fire,ignite,itk,pillow]' pyyaml
#   python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT
# writes OUT/predictions.csv. The `$` texts below are Python that MONAI runs: read them before you run them.
# bundle_root is found from the place of this file. Where something other than `monai.bundle run` reads it, bundle_root
# is the working folder; --bundle_root DIR names another.
"""


class WritesMonai(Protocol):
    """A deterministic preprocessing step that can write itself as MONAI configuration."""

    def monai(self, keys: str = "image") -> dict[str, Any]:
        """The same computation as a MONAI dictionary transform, without an import of medxfer."""


def inference_yaml(steps: Sequence[WritesMonai], classes: Sequence[str], ident: str) -> str:
    """The file's text.

    Args:
        steps: Preprocessing after reading, on `(C, rows, columns)` float32.
        classes: Names of the output's columns.
        ident: Identifies the weights; a folder whose `inference.yaml` holds another is not taken for this bundle.
    """
    config = {**_places(ident), **_reading(), **_preprocessing(steps), **_running(classes)}
    # one line a value: the texts are Python, and folded lines are hard to read
    return HEADER + "\n" + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=10_000)


def _places(ident: str) -> dict[str, Any]:
    # `monai.bundle run` puts the bundle's folder second into sys.path, then evaluates `run`. `initialize` comes before
    # that, so nothing there may ask for bundle_root.
    root = (
        "$next(filter(lambda folder, ident=@bundle_id: os.path.isfile(os.path.join(folder, 'models', 'model.pt2')) "
        "and os.path.isfile(os.path.join(folder, 'configs', 'inference.yaml')) "
        "and ident in pathlib.Path(folder, 'configs', 'inference.yaml').read_text(encoding='utf-8'), "
        "sys.path[1:2]), '.')"
    )
    return {
        "imports": [
            "$import os", "$import pathlib", "$import sys", "$from PIL import Image", "$import monai", "$import numpy",
            "$import torch", "$import torch.export.passes",
        ],
        "bundle_id": ident,
        "bundle_root": root,
        "dataset_dir": "data",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }  # fmt: skip


def _reading() -> dict[str, Any]:
    files = (
        "$sorted(filter(lambda path, suffixes=tuple(@suffixes): path.is_file() and (path.suffix.lower() in suffixes "
        "or path.open('rb').read(132)[128:] == b'DICM'), pathlib.Path(@dataset_dir).rglob('*')))"
    )
    # columns, rows[, 1][, channels] -> channels, rows, columns; alpha (the second of two channels, the fourth of four) goes
    arrange = (
        "$lambda x: (lambda y: y[:{2: 1, 4: 3}.get(len(y), len(y))])"
        "(x.as_tensor().reshape(x.shape[0], x.shape[1], -1).permute(2, 1, 0).contiguous())"
    )
    # EXIF orientations 1-8, as how to bring rows and columns upright
    turns = {
        2: "x.flip(2)", 3: "x.flip(1, 2)", 4: "x.flip(1)", 5: "x.transpose(1, 2)", 6: "x.transpose(1, 2).flip(2)",
        7: "x.transpose(1, 2).flip(1, 2)", 8: "x.transpose(1, 2).flip(1)",
    }  # fmt: skip
    table = ", ".join(f"{number}: lambda x: {text}" for number, text in turns.items())
    turn = (
        "$lambda item, turns=@turns: {**item, 'image': turns.get(Image.open(item['path']).getexif().get(274, 1) "
        "if item['path'].lower().endswith(('.jpg', '.jpeg', '.png')) else 1, lambda x: x)(item['image'])}"
    )
    return {
        "suffixes": list(SUFFIXES),
        "files": files,
        "data": "$list(map(lambda path, root=@dataset_dir: {'image': str(path), 'path': str(path), "
        "'file': path.relative_to(root).as_posix()}, @files))",
        # LoadImage goes on to other readers in silence when the one it was given fails, and those do not invert
        # MONOCHROME1. Given at call time, the reader is the only one.
        "reader": {"_target_": "ITKReader"},
        "load": {"_target_": "LoadImage", "image_only": True, "dtype": "$numpy.float32"},
        "turns": f"${{{table}}}",
        "reading": [
            {
                "_target_": "Lambdad",
                "keys": "image",
                "func": "$lambda path, load=@load, reader=@reader: load(path, reader=reader)",
            },
            {"_target_": "Lambdad", "keys": "image", "func": arrange, "track_meta": False},
            {"_target_": "Lambda", "func": turn},
        ],
    }


def _preprocessing(steps: Sequence[WritesMonai]) -> dict[str, Any]:
    plain = {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False}
    return {
        "preprocessing": {
            "_target_": "Compose",
            # a plain tensor at the end: metadata of DICOM and of pictures do not fit into one batch
            "transforms": ["$@reading[0]", "$@reading[1]", "$@reading[2]", *[step.monai("image") for step in steps], plain],
        },
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 8, "shuffle": False, "num_workers": 0},
    }


def _running(classes: Sequence[str]) -> dict[str, Any]:
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(["file", *[f"p_{name}" for name in classes]])
    named = (
        "$lambda batch: [{'filename_or_obj': '\"' + item['file'].replace('\"', '\"\"') + '\"' "
        "if set(item['file']) & set(',\"\\n\\r') else item['file']} for item in batch]"
    )
    return {
        "program": "$torch.export.load(os.path.join(@bundle_root, 'models', 'model.pt2'))",
        "moved": "$torch.export.passes.move_to_device_pass(@program, str(@device)) if @device.type != 'cpu' else @program",
        "called": "$@moved.module()",
        # a program cannot be told eval(), which evaluators do: a module around it can
        "network_def": "$type('Exported', (torch.nn.Module,), {'forward': lambda self, x, run=@called: run(x)})()",
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "EnsureTyped", "keys": "pred", "device": "cpu", "track_meta": False}],
        },
        "csv_header": header.getvalue(),
        # the header is there first, so it appends
        "saver": {
            "_target_": "CSVSaver",
            "output_dir": "@output_dir",
            "filename": "predictions.csv",
            "overwrite": False,
        },
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "saver": "@saver",
                "batch_transform": named,
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$@files or sys.exit('no DICOM, PNG, JPEG, BMP or TIFF file below ' + str(@dataset_dir))"],
        "run": [
            "$pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True)",
            "$pathlib.Path(@output_dir, 'predictions.csv').write_text(@csv_header, encoding='utf-8')",
            "$@evaluator.run()",
        ],
        "finalize": ["$print('wrote', os.path.join(@output_dir, 'predictions.csv'))"],
    }
