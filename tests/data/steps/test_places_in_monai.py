"""A step written as MONAI configuration says where its voxels lie, as the step itself does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from medxfer.data.placed import Placed
from medxfer.data.steps.base import Step
from medxfer.data.steps.intensity import ForegroundWindow, ForegroundZScore, HUWindow, ValueRange
from medxfer.data.steps.pathology import StainNormalise
from medxfer.data.steps.pictures import Channels, PadToSquare, PercentileWindow, Quantise, Resize
from medxfer.data.steps.spatial import CropBody, FitTo, Resample
from medxfer.data.steps.xray import EqualiseLocally

from .test_steps import AFFINE, as_monai, body, tissue

FLAT = np.diag([0.7, 1.3, 1.0])
OBLIQUE = np.array([[0.0, 0.2, -2.4, 9], [0.7, 0.3, 0.1, -60], [0.3, -0.8, 0.05, 30], [0, 0, 0, 1.0]])

MOVING: list[tuple[Step, Tensor]] = [
    (PadToSquare(), body(40, 31)), (PadToSquare(), body(30, 41)), (PadToSquare(), body(30, 30)),
    (Resize(16), body(20, 24)), (Resize((12, 30)), body(20, 24)), (Resize(16), body(20, 24, 9)),
    (Resize((12, 30, 9)), body(20, 24, 9)), (Resample((1.1, 0.9)), body(20, 24)),
    (Resample((1.5, 1.5, 2.0)), body(31, 24, 9)), (FitTo(20), body(31, 14)), (FitTo((8, 40, 12)), body(31, 14, 9)),
    (CropBody(), body(31, 24, 19)), (CropBody(margin=0), body(40, 44)),
    (CropBody(), torch.full((1, 9, 9, 9), -1000.0)),
]  # fmt: skip
RESTING: list[tuple[Step, Tensor]] = [
    (Channels(3), body(20, 24, 9)), (Channels(1), tissue()), (HUWindow(["lung", "bone"]), body(20, 24, 9)),
    (ValueRange(), tissue()), (ForegroundWindow(), body(20, 24, 9)), (ForegroundZScore(), body(20, 24)),
    (PercentileWindow(), body(20, 24)), (Quantise("uint8"), torch.rand(1, 9, 8)), (StainNormalise(), tissue()),
    (EqualiseLocally(), torch.rand(1, 40, 56)),
]  # fmt: skip


def embedded(affine: np.ndarray) -> np.ndarray:
    """A picture's affine as MONAI holds it."""
    whole = np.eye(4)
    whole[:2, :2], whole[:2, 3] = affine[:2, :2], affine[:2, 2]
    return whole if affine.shape == (3, 3) else affine


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize(("step", "x"), [*MOVING, *RESTING], ids=lambda value: type(value).__name__)
def test_affine_follows_the_voxels(step: Step, x: Tensor, affine: np.ndarray) -> None:
    affine = FLAT if x.ndim == 3 else affine
    image = MetaTensor(x.clone(), affine=torch.from_numpy(embedded(affine)))

    other = as_monai(step)({"image": image})["image"]

    own = step(Placed(x.clone(), affine))
    assert tuple(other.shape) == tuple(own.values.shape)
    np.testing.assert_allclose(other.affine.numpy(), embedded(own.affine), rtol=0, atol=1e-12)


def test_spacing_of_a_later_step_is_that_of_the_image_as_it_is_then() -> None:
    x = body(40, 44, 20)
    steps: list[Step] = [Resize((20, 30, 10)), CropBody(margin=1), Resample((1.0, 1.0, 4.0)), FitTo(24)]
    own, image = Placed(x, AFFINE), {"image": MetaTensor(x.clone(), affine=torch.from_numpy(AFFINE))}

    for step in steps:
        own, image = step(own), as_monai(step)(image)

    torch.testing.assert_close(image["image"].as_tensor(), own.values, rtol=0, atol=1e-3)
    np.testing.assert_allclose(image["image"].affine.numpy(), own.affine, rtol=0, atol=1e-12)
