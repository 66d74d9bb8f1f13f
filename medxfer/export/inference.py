"""`configs/inference.yaml` of an exported bundle: MONAI and torch only, nothing of medxfer."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Protocol

import yaml

from ..data.readers import DICOM_SUFFIXES, PICTURE_SUFFIXES

HEADER = """\
# Probabilities for every image below a folder, in plain MONAI, where medxfer is not installed:
#   pip install torch 'monai[fire,ignite,itk,pillow]' pyyaml
#   python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT
# writes OUT/predictions.csv. The `$` texts below are Python that MONAI runs: read them before you run them.
# bundle_root is found from the place of this file. Where something other than `monai.bundle run` reads it,
# bundle_root is the working folder; --bundle_root DIR names another.
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
        ident: Identifies the weights: a folder whose `inference.yaml` has another is not this bundle's.
    """
    config = {**_places(ident), **_reading(), **_preprocessing(steps), **_running(classes)}
    # one line a value: the texts are Python, and folded lines are hard to read
    return HEADER + "\n" + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=10_000)


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
            "$import os", "$import pathlib", "$import sys", "$import PIL.ImageOps as ImageOps",
            "$import monai", "$import numpy", "$import torch", "$import torch.export.passes",
        ],
        "bundle_id": ident,
        "bundle_root": root,
        "dataset_dir": "data",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }  # fmt: skip


def _reading() -> dict[str, Any]:
    files = (
        "$sorted(filter(lambda path, suffixes=tuple(@suffixes): path.is_file() "
        "and (path.suffix.lower() in suffixes "
        "or ((not path.suffix or path.suffix[1:].isdigit()) "
        "and path.name.upper() != 'DICOMDIR' "
        "and numpy.fromfile(path, 'uint8', 132)[128:].tobytes() == b'DICM')), "
        "pathlib.Path(@dataset_dir).rglob('*')))"
    )
    # Pillow has turned TIFF itself; palettes become colours; alpha is dropped
    upright = (
        "$lambda picture, modes=@modes: (lambda turned: turned.convert(modes.get(turned.mode, turned.mode)))"
        "(picture if picture.format == 'TIFF' else ImageOps.exif_transpose(picture))"
    )
    # LoadImage goes on to other readers in silence when the one it was given fails, and those do not invert
    # MONOCHROME1. Given at call time, the reader is the only one.
    read = (
        "$lambda path, load=@load, dicom=@dicom_reader, picture=@picture_reader, "
        "suffixes=tuple(@picture_suffixes): "
        "load(path, reader=picture if path.lower().endswith(suffixes) else dicom)"
    )
    # columns, rows[, 1][, channels] -> channels, rows, columns; several frames do not fit and stop here
    arrange = (
        "$lambda x: x.as_tensor().reshape(x.shape[0], x.shape[1], "
        "1 if x.ndim == len(x.meta['spatial_shape']) else x.shape[-1]).permute(2, 1, 0).contiguous()"
    )
    return {
        "picture_suffixes": sorted(PICTURE_SUFFIXES),
        "suffixes": sorted(PICTURE_SUFFIXES | DICOM_SUFFIXES),
        "files": files,
        "data": "$list(map(lambda path, root=@dataset_dir: {'image': str(path), "
        "'file': path.relative_to(root).as_posix()}, @files))",
        # ITK inverts MONOCHROME1 and applies slope and intercept; MONAI's pydicom reader does not invert
        "dicom_reader": {"_target_": "ITKReader"},
        # ITK decodes colour JPEG otherwise than Pillow, reads grey PNG with alpha as zeros and ignores EXIF
        "modes": {
            "1": "L",
            "LA": "L",
            "P": "RGB",
            "PA": "RGB",
            "RGBA": "RGB",
            "RGBX": "RGB",
            "CMYK": "RGB",
            "YCbCr": "RGB",
        },
        "picture_reader": {"_target_": "PILReader", "converter": upright},
        "load": {"_target_": "LoadImage", "image_only": True, "dtype": "$numpy.float32"},
        "read": {"_target_": "Lambdad", "keys": "image", "func": read},
        **_padding(),
        "arrange": {"_target_": "Lambdad", "keys": "image", "func": arrange, "track_meta": False},
    }


def _padding() -> dict[str, Any]:
    """Pixels outside a DICOM image get its lowest real value, which ITK leaves to others."""
    # a stored value, gone the way on which ITK took the pixels: inversion of MONOCHROME1, slope, intercept
    real = (
        "$lambda x, value, number=@number: "
        "((-1 if number(x, '0028|0103', 0) else 2 ** number(x, '0028|0101', 0) - 1) - value "
        "if x.meta.get('0028|0004', '').strip() == 'MONOCHROME1' else value) "
        "* number(x, '0028|1053', 1) + number(x, '0028|1052', 0)"
    )
    # PixelPaddingValue to PixelPaddingRangeLimit
    limits = (
        "$lambda x, real=@real, number=@number: sorted((real(x, number(x, '0028|0120', 0)), "
        "real(x, number(x, '0028|0121', x.meta['0028|0120']))))"
    )
    outside = (
        "$lambda x, limits=@limits: (lambda low, high: (x >= low - 1e-3) & (x <= high + 1e-3))(*limits(x))"
    )
    filled = "$lambda x, mask: torch.where(mask, x[~mask].min(), x) if mask.any() and not mask.all() else x"
    pad = "$lambda x, filled=@filled, outside=@outside: filled(x, outside(x)) if '0028|0120' in x.meta else x"
    return {
        "number": "$lambda x, name, default: float(x.meta.get(name, default))",
        "real": real,
        "limits": limits,
        "outside": outside,
        "filled": filled,
        "pad": {"_target_": "Lambdad", "keys": "image", "func": pad},
    }


def _preprocessing(steps: Sequence[WritesMonai]) -> dict[str, Any]:
    plain = {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False}
    return {
        "preprocessing": {
            "_target_": "Compose",
            # a plain tensor at the end: metadata of DICOM and of pictures do not fit into one batch
            "transforms": ["@read", "@pad", "@arrange", *[step.monai("image") for step in steps], plain],
        },
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 8,
            "shuffle": False,
            "num_workers": 0,
        },
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
        "moved": "$@program if torch.device(@device).type == 'cpu' "
        "else torch.export.passes.move_to_device_pass(@program, str(@device))",
        "called": "$@moved.module()",
        # a program cannot be told eval(), which evaluators do: a module around it can
        "network_def": "$type('Exported', (torch.nn.Module,), "
        "{'forward': lambda self, x, run=@called: run(x)})()",
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
        "initialize": [
            "$@files or sys.exit('no DICOM, PNG, JPEG, BMP or TIFF file below ' + str(@dataset_dir))"
        ],
        "run": [
            "$pathlib.Path(@output_dir).mkdir(parents=True, exist_ok=True)",
            "$pathlib.Path(@output_dir, 'predictions.csv').write_text(@csv_header, encoding='utf-8')",
            "$@evaluator.run()",
        ],
        "finalize": ["$print('wrote', os.path.join(@output_dir, 'predictions.csv'))"],
    }
