"""Masks on the grid of each file in plain MONAI: sliding window, back to the file, decision, NIfTI or PNG.

The texts do what `data.regrid.decided_on_grid` and `data.writers` do. Steps crop, pad and scale along the axes of the
array and readers turn by right angles, so that the network's grid and the file's are parallel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..tasks.base import MaskAnswer
from .answering_part import AnsweringPart, Writing
from .answering_rows import header_line
from .reading_part import ReadingPart

_AT_ONCE = 2**21  # pixels or voxels that the network gets in one go
_ROUNDING = 1e-6  # voxels, as in data.regrid


def masks(
    answer: MaskAnswer, reading: ReadingPart, shape: Sequence[int], _calibration: Mapping[str, Any]
) -> AnsweringPart:
    """A mask file an image, and a row with the size of each class.

    Raises:
        ConfigError: Images that are slices cut from a volume: they have no file of their own.
    """
    if reading.written is None:
        todo = "leave out data.slices and train on volumes, or use `medxfer predict`"
        raise ConfigError("export of masks", "data.slices cuts volumes into pictures", "whole images", todo)
    writing = WRITINGS[reading.written]
    changes = [name for name in CHANGES if getattr(answer, name)]
    columns = [f"{size}_{name}" for size in writing.sizes for name in answer.classes]
    return AnsweringPart(
        config={
            **_inferring(shape, answer.overlap),
            **_regridding(answer.threshold),
            **_changing(answer, changes),
            **_saving(answer, reading, writing),
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "EnsureTyped", "keys": "pred", "device": "cpu", "track_meta": False},
                    "@probabilities", "@on_grid", *[f"@{name}" for name in changes], "@save",
                ],
            },
            "csv_header": header_line(["file", *columns, "mask"]),
            "handlers": [],
        },
        output=_output(answer, shape),
        is_patch=True,
        stored=("@source",),
        ready=("@place",),
        batch=1,  # images differ in size
        activation=softmax if answer.threshold is None else sigmoid,
        imports=("collections", "csv", *writing.imports),
        extras=tuple(EXTRAS[name] for name in changes),
        packages=tuple(PACKAGES[name] for name in changes),
        what="A mask",
        columns=f"{', '.join(f'`{one}`' for one in columns)} and the `mask` written for it",
        files=f"{writing.what} goes to `OUT/masks`, under the name of its file.",
        numbers=_numbers(answer, shape, changes),
        agreement="Masks differ from medxfer's in at most one voxel of 10,000, where two classes are equally probable.",
    )  # fmt: skip


def softmax(logits: Tensor) -> Tensor:
    """One class a voxel."""
    return logits.softmax(1)


def sigmoid(logits: Tensor) -> Tensor:
    """Classes that may overlap."""
    return logits.sigmoid()


# MONAI's transform, its other arguments, and how it is used on a mask `one` (1, *spatial).
CHANGES: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "keep_largest": ("KeepLargestConnectedComponent", {"is_onehot": False}, "change(one)"),
    # a hole is background: a class inside another stays; MONAI works in place
    "fill_holes": ("FillHoles", {}, "torch.where(one == 0, change(one.clone()), one)"),
}
EXTRAS = {"keep_largest": "skimage", "fill_holes": "scipy"}
PACKAGES = {"keep_largest": "scikit-image", "fill_holes": "scipy"}


def _inferring(shape: Sequence[int], overlap: float) -> dict[str, Any]:
    return {
        # the grid of the file, before the image is turned
        "source": "$lambda item: {**item, 'source_affine': item['image'].affine, "
        "'source_shape': torch.tensor(item['image'].shape[1:])}",
        # the grid that the steps made of it
        "place": "$lambda item: {**item, 'affine': item['image'].affine}",
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(shape),
            "sw_batch_size": max(1, _AT_ONCE // math.prod(shape)),
            "overlap": overlap,
            "mode": "gaussian",
            "device": "cpu",  # where the whole image is put together
        },
    }


def _regridding(threshold: float | None) -> dict[str, Any]:
    """Probabilities to the grid of the file, linear between voxels, then the decision."""
    # of places along an axis that lie in the prediction: how many come before and after these, and of each the
    # neighbours below and above and the share of the upper one
    along = (
        "$lambda places, length: (lambda inside: (lambda at, low: (int(inside[0]), len(places) - 1 - int(inside[-1]), "
        "low, (low + 1).clamp(max=length - 1), (at - low).float()))"
        "(places[inside].clamp(0, length - 1), places[inside].clamp(0, length - 1).long()))"
        f"(((places + {0.5 + _ROUNDING}).floor() >= 0).logical_and((places + {0.5 + _ROUNDING}).floor() < length)"
        ".nonzero().flatten())"
    )
    # the axis of the prediction that each axis of the file follows, and the places along it
    axes = (
        "$lambda way, shape, lengths, along=@along: (lambda order: (order, [along(way[own, 3] + way[own, axis] "
        "* torch.arange(shape[axis], dtype=torch.float64), lengths[own]) for axis, own in enumerate(order)]))"
        "(way[:3, :3].abs().argmax(0).tolist())"
    )
    between = (
        "$lambda x, axis, part: (lambda low, high, share: low + (high - low) * share)(x.index_select(axis, part[2]), "
        "x.index_select(axis, part[3]), part[4].view([-1 if one == axis else 1 for one in range(x.ndim)]))"
    )
    plane = (
        "$lambda x, at, parts, between=@between: between(between(x[..., parts[2][2][at]] + (x[..., parts[2][3][at]] "
        "- x[..., parts[2][2][at]]) * parts[2][4][at], 1, parts[0]), 2, parts[1])"
    )
    # outside of the prediction is background
    regrid = (
        "$lambda x, order, parts, plane=@plane, decide=@decide: torch.nn.functional.pad(torch.stack([decide(plane("
        "x.permute(0, *[own + 1 for own in order]), at, parts)) for at in range(len(parts[2][2]))], -1), "
        "[side for one in reversed(parts) for side in one[:2]])"
    )
    # a picture is a volume of one slice
    on_grid = (
        "$lambda item, regrid=@regrid, axes=@axes: (lambda x, way, shape: {**item, 'pred': regrid(x, *axes(way, "
        "[*shape, 1][:3], x.shape[1:])).reshape(-1, *shape)})(item['pred'][(..., *[None] * (4 - item['pred'].ndim))], "
        "torch.linalg.inv(item['affine']).mm(item['source_affine']), item['source_shape'].tolist())"
    )
    decide = "plane.argmax(0, keepdim=True)" if threshold is None else f"(plane >= {threshold!r})"
    made = "x.softmax(0)" if threshold is None else "x.sigmoid()"
    return {
        "probabilities": {
            "_target_": "Lambdad",
            "keys": "pred",
            "func": f"$lambda x: {made}",
            "track_meta": False,
        },
        "along": along,
        "axes": axes,
        "between": between,
        "plane": plane,
        "decide": f"$lambda plane: {decide}.to(torch.uint8)",
        "regrid": regrid,
        "on_grid": on_grid,
    }


def _changing(answer: MaskAnswer, changes: Sequence[str]) -> dict[str, Any]:
    """What is done to each class of a mask; overlapping classes are masks of their own."""
    labels = [1] if answer.threshold is not None else list(range(1, len(answer.classes) + 1))
    config: dict[str, Any] = {}
    for name in changes:
        target, own, each = CHANGES[name]
        func = f"$lambda x, change=@{name}_in_class: torch.cat([{each} for one in x[:, None]])"
        config[f"{name}_in_class"] = {"_target_": target, "applied_labels": labels, **own}
        config[name] = {"_target_": "Lambdad", "keys": "pred", "func": func, "track_meta": False}
    return config


def _saving(answer: MaskAnswer, reading: ReadingPart, writing: Writing) -> dict[str, Any]:
    """Files of masks, named as their images, and a line of the CSV file each."""
    stem = (
        "$lambda file, endings=tuple(@endings): next((file[:-len(one)] for one in endings "
        "if file.lower().endswith(one)), file)"
    )
    # where two files have the same name but for their ending, the whole name; the folder's own name where it is read
    names = (
        "$(lambda data, root, stem: (lambda stems, count: {file: root.name if file == '.' else one if count[one] == 1 "
        "else file for file, one in stems.items()})(*(lambda stems: (stems, collections.Counter(stems.values())))"
        "({item['file']: stem(item['file']) for item in data})))(@data, pathlib.Path(@dataset_dir).resolve(), @stem)"
    )
    overlap = answer.threshold is not None
    split = overlap and not writing.is_stack
    own = [re.sub(r"[^\w-]+", "_", name) for name in answer.classes] if split else [""]
    # one file, or one of each class
    parts = "list(mask[:, None])" if split else "[mask]"
    numbers = f"range(1, {len(answer.classes) + 1})"
    counts = (
        "[int(one.sum()) for one in mask]" if overlap else f"[int((mask == one).sum()) for one in {numbers}]"
    )
    targets = (
        "$lambda file, names=@names, endings=@mask_endings: [f'masks/{names[file]}{one}' for one in endings]"
    )
    write = (
        "$lambda path, mask, affine, target, write=@write_file: [target.parent.mkdir(parents=True, exist_ok=True), "
        "write(path, mask, affine, str(target))]"
    )
    append = (
        "$lambda row, out=@output_dir: (lambda file: [csv.writer(file, lineterminator=chr(10)).writerow(row), "
        "file.close()])(open(os.path.join(out, 'predictions.csv'), 'a', encoding='utf-8', newline=''))"
    )
    save = (
        "$lambda item, targets=@targets, write=@write, counts=@counts, measures=@measures, append=@append, "
        "root=@dataset_dir, out=@output_dir: (lambda mask, affine, files: [[write(os.path.join(root, item['file']), "
        f"part, affine, pathlib.Path(out, file)) for part, file in zip({parts}, files)], append([item['file'], "
        "*measures(counts(mask), affine), ';'.join(files)]), item][-1])"
        "(item['pred'].as_subclass(torch.Tensor), item['source_affine'], targets(item['file']))"
    )
    return {
        "endings": sorted(reading.endings, key=len, reverse=True),
        "stem": stem,
        "names": names,
        "mask_endings": [f"_{one}{writing.ending}" if one else writing.ending for one in own],
        "targets": targets,
        "write_file": f"${writing.write}",
        "write": write,
        "counts": f"$lambda mask: {counts}",
        "measures": f"${writing.measures}",
        "append": append,
        "save": save,
    }


_NIFTI = (
    "lambda path, mask, affine, target, suffixes=tuple(@nifti_suffixes): (lambda array, own: (lambda made: ["
    "made.set_data_dtype('uint8'), made.header.set_intent('none'), made.header.extensions.clear(), "
    # nothing of the patient
    "[made.header.__setitem__(name, b'') for name in ('descrip', 'aux_file', 'db_name', 'data_type') "
    "if name in made.header.keys()], "
    "[made.header.__setitem__(name, 0) for name in ('cal_min', 'cal_max')], nibabel.save(made, target)])"
    # of a NIfTI file its own header: codes, units, and numbers as they stand there
    "((nibabel.Nifti2Image if isinstance(own.header, nibabel.Nifti2Header) else nibabel.Nifti1Image)"
    "(array.reshape(own.shape if array.size == numpy.prod(own.shape) else array.shape), own.affine, own.header) "
    "if own is not None else (lambda made: [made.header.set_xyzt_units('mm'), "
    "made.set_sform(affine.numpy(), 1), made][-1])(nibabel.Nifti1Image(array, affine.numpy()))))"
    "(mask[0].numpy() if len(mask) == 1 else mask.movedim(0, -1).numpy(), "
    "nibabel.load(path) if path.lower().endswith(suffixes) else None)"
)
_PNG = (
    "lambda path, mask, affine, target: (lambda made: [made.putpalette([0, 0, 0, *[round(255 * part) "
    "for one in range(255) for part in colorsys.hsv_to_rgb(one * 0.618034 % 1, 0.8, 1 - 0.25 * (one % 3))]]), "
    "made.save(target)])(Picture.fromarray(mask[0].numpy()))"
)

WRITINGS: Mapping[str, Writing] = MappingProxyType(
    {
        "nifti": Writing(
            ending=".nii.gz",
            write=_NIFTI,
            sizes=("ml",),
            measures="lambda counts, affine: [round(one * abs(float(torch.linalg.det(affine[:3, :3]))) / 1000, 4) "
            "for one in counts]",
            is_stack=True,
            what="Each mask (NIfTI, of the file's own shape and place; `medxfer predict` writes DICOM SEG for DICOM)",
        ),
        "png": Writing(
            ending=".png",
            write=_PNG,
            sizes=("cm2", "pixels"),
            # the size of a pixel is unknown: no number
            measures="lambda counts, affine: [*['' if torch.equal(affine, torch.eye(4, dtype=torch.float64)) else "
            "round(one * abs(float(torch.linalg.det(affine[:3, :3]))) / 100, 4) for one in counts], *counts]",
            imports=("colorsys", "PIL.Image as Picture"),
            is_stack=False,
            what="Each mask (PNG of the picture's own shape; a pixel's value is its class)",
        ),
    }
)


def _output(answer: MaskAnswer, shape: Sequence[int]) -> dict[str, Any]:
    names = answer.classes if answer.threshold is not None else ("background", *answer.classes)
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(names),
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [],  # logits
        "is_patch_data": True,
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }


def _numbers(answer: MaskAnswer, shape: Sequence[int], changes: Sequence[str]) -> str:
    size = " x ".join(map(str, shape))
    if answer.threshold is None:
        named = ", ".join(f"{number} {name}" for number, name in enumerate(answer.classes, start=1))
        made, decided = "Softmax", f"the most probable class is taken: 0 background, {named}"
    else:
        named = ", ".join(answer.classes)
        made = "The sigmoid function"
        decided = f"a voxel belongs to each of {named} from {answer.threshold:g} on"
    then = {
        "keep_largest": "Of each class the largest connected part is kept.",
        "fill_holes": "Holes in each class are filled.",
    }
    told = (
        f"The program gives logits of a patch of {size}. MONAI's SlidingWindowInferer averages those of neighbouring "
        f"windows (overlap {answer.overlap:g}, Gaussian weights); an image smaller than the patch is padded with 0 on "
        f"both sides. {made} makes probabilities of them, these are brought to the file's own grid, linear between "
        f"voxels, and there {decided}."
    )
    return " ".join([told, *[then[name] for name in changes]])
