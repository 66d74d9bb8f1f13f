"""Every step computes what its MONAI configuration computes, and says truly where its voxels lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from medxfer.data.placed import Placed
from medxfer.data.steps.base import Step
from medxfer.data.steps.intensity import (
    ForegroundWindow,
    ForegroundZScore,
    HUWindow,
    RemoveBiasField,
    ValueRange,
)
from medxfer.data.steps.pathology import StainNormalise
from medxfer.data.steps.pictures import Channels, PadToSquare, PercentileWindow, Resize
from medxfer.data.steps.spatial import CropBody, FitTo, Resample
from medxfer.data.steps.xray import EqualiseLocally

AFFINE = np.array([[0.8, 0.1, 0, -40], [-0.1, 0.9, 0, -60], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])


def body(*shape: int, seed: int = 0) -> Tensor:
    """Air around a body with noise, in HU."""
    random = torch.Generator().manual_seed(seed)
    x = torch.full((1, *shape), -1000.0)
    inner = tuple(slice(n // 5, n - n // 4) for n in shape)
    x[(0, *inner)] = torch.rand(x[(0, *inner)].shape, generator=random) * 400 - 100
    return x


def tissue(seed: int = 0) -> Tensor:
    """Pink and violet patches on white, 0 to 255."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.tensor([[230.0, 150.0, 190.0], [120.0, 80.0, 160.0], [245.0, 244.0, 246.0]])
    kinds = torch.randint(3, (40, 48), generator=random)
    return (
        (colours[kinds] + 8 * torch.randn(40, 48, 3, generator=random))
        .clamp(0, 255)
        .permute(2, 0, 1)
        .contiguous()
    )


def as_monai(step: Step) -> Any:
    from monai.bundle import ConfigParser

    imports = ["torch", "numpy", "monai", *getattr(step, "imports", ())]
    parser = ConfigParser({"imports": [f"$import {name}" for name in imports], "step": step.monai("image")})
    parser.parse()
    parser.get_parsed_content("imports")
    return parser.get_parsed_content("step")


CASES: list[tuple[Step, Tensor]] = [
    (Channels(3), body(20, 24, 9)), (Resize(16), body(20, 24, 9)), (Resize((12, 30, 9)), body(20, 24, 9)),
    (Resample((1.5, 1.5, 2.0)), body(31, 24, 9)), (FitTo(20), body(31, 14, 9)), (FitTo((8, 8, 12)), body(31, 14, 9)),
    (CropBody(), body(31, 24, 19)), (CropBody(margin=0), body(40, 44)), (CropBody(), torch.full((1, 9, 9, 9), -1000.0)),
    (HUWindow(["lung", "bone", [0, 80]]), body(20, 24, 9)), (HUWindow(), torch.cat([body(20, 24), body(20, 24)])),
    (ForegroundWindow(), torch.cat([body(20, 24, 9), -body(20, 24, 9, seed=1)])),
    (ForegroundWindow(), torch.ones(1, 8, 8)), (ForegroundZScore(), body(20, 24, 9)),
    (ForegroundZScore(2.5), torch.zeros(1, 8, 8)), (PercentileWindow(1, 99), body(20, 24, 9)),
    (ValueRange(), tissue()), (StainNormalise(), tissue()), (StainNormalise(), torch.full((3, 20, 20), 244.0)),
    (EqualiseLocally(), torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(3))),
    (RemoveBiasField(2, 4), body(24, 28, 16) + 1000), (RemoveBiasField(2, 4), body(40, 36) + 1000),
]  # fmt: skip


@pytest.mark.parametrize(("step", "x"), CASES, ids=lambda value: type(value).__name__)
def test_monai_configuration_computes_the_same(step: Step, x: Tensor) -> None:
    from monai.data import MetaTensor

    image = x if x.ndim == 3 else MetaTensor(x.clone(), affine=torch.from_numpy(AFFINE))
    affine = np.eye(3) if x.ndim == 3 else AFFINE

    other = torch.as_tensor(as_monai(step)({"image": image})["image"])

    expected = step(Placed(x.clone(), affine)).values
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-6 * max(1.0, float(x.abs().max())))


SPATIAL = [Resample((1.1, 2.0, 2.0)), FitTo((18, 40, 7)), CropBody(), Resize((10, 11, 12))]


@pytest.mark.parametrize("step", SPATIAL, ids=lambda step: type(step).__name__)
def test_every_voxel_stays_where_it_was_in_space(step: Step) -> None:
    """A field that is linear in mm must read the same numbers at the new voxels' places."""
    shape = (24, 30, 16)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    places = grid @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    field = torch.from_numpy(places @ [1.0, 0.5, -0.3]).float()[None]

    after = step(Placed(field, AFFINE))

    centre = tuple(n // 2 for n in after.shape)
    seen = float(after.values[(0, *centre)])
    where = after.affine[:3, :3] @ centre + after.affine[:3, 3]
    assert seen == pytest.approx(float(where @ [1.0, 0.5, -0.3]), abs=0.05)


@given(rows=some.integers(3, 40), columns=some.integers(3, 40), size=some.integers(2, 50))
def test_square_and_resized_picture_keeps_its_centre(rows: int, columns: int, size: int) -> None:
    image = Placed(torch.zeros(1, rows, columns), np.eye(3))

    after = Resize(size)(PadToSquare()(image))

    middle = after.affine @ [(size - 1) / 2, (size - 1) / 2, 1]
    np.testing.assert_allclose(middle[:2], [(rows - 1) / 2, (columns - 1) / 2], atol=0.5 + 1e-9)


def test_resampling_reaches_the_spacing_over_the_same_extent() -> None:
    image = Placed(torch.zeros(1, 60, 50, 20), np.diag([0.7, 0.7, 3.0, 1.0]))

    after = Resample((1.4, 1.0, 1.5))(image)

    assert after.shape == (30, 35, 40)
    np.testing.assert_allclose(after.spacing, (1.4, 1.0, 1.5))
    # outer edges of the first voxels coincide
    np.testing.assert_allclose(after.affine @ [-0.5, -0.5, -0.5, 1], image.affine @ [-0.5, -0.5, -0.5, 1])


def test_bias_field_is_evened_out() -> None:
    x = torch.linspace(-1, 1, 64)
    ramp = 1 + 0.4 * x[:, None] * torch.ones(64, 64)
    truth = torch.where(torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) > 0.5, 200.0, 300.0)

    after = RemoveBiasField(shrink=1)(Placed((truth * ramp)[None], np.eye(3))).values[0]

    def unevenness(values: Tensor) -> float:
        return float(values[:12].mean() / values[-12:].mean())

    assert abs(unevenness(truth * ramp) - 1) > 0.4
    assert abs(unevenness(after) - 1) < 0.1


def test_stains_of_two_slides_come_closer() -> None:
    one, other = tissue(0), (tissue(1) * torch.tensor([0.85, 1.0, 0.9]).view(3, 1, 1)).clamp(0, 255)

    def distance(first: Tensor, second: Tensor) -> float:
        return float((first.mean((1, 2)) - second.mean((1, 2))).abs().mean())

    step = StainNormalise()
    assert distance(step.change(one), step.change(other)) < 0.5 * distance(one, other)
