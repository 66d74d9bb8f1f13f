"""Volume files that readers disagree on, written for the tests of the exported bundle."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ..data.faults import enhanced, saved, saved_series, series

OBLIQUE = np.array([[0.8, -0.3, 0.1], [0.32, 0.7, 0.2], [-0.12, -0.2, 2.4]])


def body(seed: int = 0) -> np.ndarray:
    """Int16 (26, 30, 15) like HU: blocks with noise, no symmetry."""
    generator = np.random.default_rng(seed)
    values = np.kron(generator.integers(-900, 900, (4, 5, 3)), np.ones((7, 6, 5), int))[:26]
    return (values + generator.integers(0, 80, values.shape)).astype(np.int16)


def write_all(folder: Path) -> list[str]:
    """Every kind of volume; returns their paths below `folder`, sorted."""
    folder.mkdir(parents=True)
    _write_nifti(folder)
    _write_itk(folder)
    write_series(folder / "ct" / "series")
    write_series(folder / "ct" / "sagittal", seed=4, orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    write_inverted(folder / "ct" / "inverted")
    (folder / "notes.csv").write_text("not,an,image\n", encoding="utf-8")
    (folder / "._shadow.nii").write_bytes(b"left by another system")
    files = ["lps.nii.gz", "metre.nii", "oblique.nii", "ras.nii", "scaled.nii.gz", "one_of_one.nii"]
    return sorted([*files, "a.mha", "a.mhd", "a.nrrd", "ct/series", "ct/sagittal", "ct/inverted"])


def _write_nifti(folder: Path) -> None:
    straight = np.diag([0.8, 0.7, 2.5, 1.0])
    oblique = np.eye(4)
    oblique[:3, :3] = np.linalg.qr(OBLIQUE)[0] * [0.8, 0.7, 2.5]
    nibabel.save(nibabel.Nifti1Image(body(1), straight), folder / "ras.nii")
    nibabel.save(nibabel.Nifti1Image(body(2), np.diag([-0.8, -0.7, 2.5, 1.0])), folder / "lps.nii.gz")
    nibabel.save(nibabel.Nifti1Image(body(3), oblique), folder / "oblique.nii")
    nibabel.save(nibabel.Nifti1Image(body(4)[..., None], straight), folder / "one_of_one.nii")
    scaled = nibabel.Nifti1Image((body(5) // 4 + 300).astype(np.int16), straight)
    scaled.header.set_slope_inter(4.0, -1200.0)
    nibabel.save(scaled, folder / "scaled.nii.gz")
    metre = nibabel.Nifti1Image(body(6), np.diag([0.0008, 0.0007, 0.0025, 1.0]))
    metre.header.set_xyzt_units("meter")
    nibabel.save(metre, folder / "metre.nii")


def _write_itk(folder: Path) -> None:
    # SWIG warns while it makes ITK's types; an exception in its place ends the interpreter.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import itk

        for seed, name in enumerate(("a.nrrd", "a.mha", "a.mhd"), start=7):
            image = itk.image_from_array(np.ascontiguousarray(body(seed).T))
            image.SetSpacing([0.8, 0.7, 2.5])
            image.SetOrigin([3.0, 4.0, 5.0])
            image.SetDirection(itk.matrix_from_array(np.linalg.qr(OBLIQUE)[0]))
            itk.imwrite(image, str(folder / name), compression=name.endswith("nrrd"))


def write_series(folder: Path, *, seed: int = 3, **changes: Any) -> Path:
    """A CT series whose files are in no order."""
    stored = (body(seed).T.astype(int) + 1024).astype(np.uint16)
    images = series(stored, **changes)
    return saved_series([images[k] for k in np.random.default_rng(0).permutation(len(images))], folder)


def write_inverted(folder: Path) -> Path:
    """The values 0 to 4095 as MONOCHROME1, with padding."""
    stored = (4095 - (body(5).T.astype(int) + 1024)).astype(np.uint16)
    stored[:, :4] = 4095
    images = series(stored, PhotometricInterpretation="MONOCHROME1")
    for image in images:
        image.add_new("PixelPaddingValue", "US", 4095)
    return saved_series(images, folder)


def write_refused(folder: Path) -> dict[str, str]:
    """What the bundle refuses; path below `folder` -> a part of the reason."""
    stored = (body().T.astype(int) + 1024).astype(np.uint16)
    whole = series(stored)
    saved_series([*whole[:4], *whole[5:]], folder / "gap")
    saved_series(series(stored, step=(0.0, 0.6, 2.5)), folder / "tilted")
    saved_series(whole[:1], folder / "single")
    saved(enhanced(whole), folder / "frames" / "one.dcm")
    others = series(stored, SeriesInstanceUID="1.2.826.0.1.77")
    saved_series([*whole, *others], folder / "two")
    bad = body().astype(np.float32)
    bad[2, 3, 4] = np.nan
    nibabel.save(nibabel.Nifti1Image(bad, np.eye(4)), folder / "nan.nii")
    nibabel.save(nibabel.Nifti1Image(np.stack([body(1), body(2)], -1), np.eye(4)), folder / "two_volumes.nii")
    return {
        "frames": "multi-frame", "gap": "uneven steps", "nan.nii": "NaN", "single": "one slice",
        "tilted": "sheared axes", "two": "2 DICOM series", "two_volumes.nii": "2 volumes",
    }  # fmt: skip
