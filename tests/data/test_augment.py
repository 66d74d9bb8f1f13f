from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medxfer.bundle.schema import Component
from medxfer.data.augment import Augment
from medxfer.data.presets import default_augment
from medxfer.errors import ConfigError, UnsafeError

from .faults import chest


def part(name: str, **arguments: object) -> Component:
    return Component(target=name, arguments=arguments)


ALL = [
    part("RandomAffine"), part("RandomIntensity", gamma=0.2), part("RandomNoise"), part("RandomBlur"),
    part("RandomBiasField"), part("RandomGhosting"), part("RandomStain"),
]  # fmt: skip


def pictures(count: int = 6, channels: int = 1, side: int = 48) -> Tensor:
    stack = np.stack(
        [[chest(10 * one + channel, side) for channel in range(channels)] for one in range(count)]
    )
    return torch.from_numpy(stack.astype(np.float32)) / 255


PRESETS = [list(default_augment(name)) for name in ("xray", "ct", "mri", "pathology")]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("change", [*([one] for one in ALL), ALL, *PRESETS])
def test_a_case_changes_by_its_seed_alone(change: list[Component], dims: int) -> None:
    augment, x = Augment(change), pictures(6, 3)
    x = x if dims == 2 else x[:, :, None, ::3, ::2].repeat(1, 1, 10, 1, 1)

    together, _ = augment(x, [5, 6, 7, 8, 9, 2**61])
    alone, _ = augment(x[3:4], [8])
    other, _ = augment(x[3:4], [80])

    torch.testing.assert_close(alone[0], together[3], rtol=0, atol=1e-6)
    assert not torch.allclose(other, alone)
    assert together.shape == x.shape
    assert float(together.min()) >= 0.0
    assert float(together.max()) <= 1.0


def test_input_and_global_randomness_are_left_alone() -> None:
    x, state = pictures(), torch.get_rng_state()
    kept = x.clone()

    Augment(ALL)(x, range(6))

    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_components_change_nothing() -> None:
    x = pictures()

    assert torch.equal(Augment([])(x, range(6))[0], x)


def test_zero_limits_are_the_identity() -> None:
    x = pictures()
    still = [
        part("RandomAffine", degrees=0.0, shift=0.0, scale=0.0),
        part("RandomIntensity", brightness=0.0, contrast=0.0),
    ]

    torch.testing.assert_close(Augment(still)(x, range(6))[0], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("x", [pictures(), pictures()[:, :, :30], pictures(6, 20)[:, None, :, :, :40]])
def test_geometry_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> None:
    augment = Augment([part("RandomAffine", flip=True)])
    fast, _ = augment(x, range(6))
    monkeypatch.setattr(
        "medxfer.data.augment._grid",
        lambda theta, sides: functional.affine_grid(theta, [len(theta), 1, *sides], align_corners=False),
    )

    torch.testing.assert_close(augment(x, range(6))[0], fast, atol=1e-4, rtol=0)


def test_flip_mirrors_half_of_the_cases_left_to_right() -> None:
    x = pictures(1).expand(200, -1, -1, -1)

    changed, _ = Augment([part("RandomAffine", degrees=0.0, shift=0.0, scale=0.0, flip=True)])(x, range(200))

    mirrored = [torch.allclose(one, x[0].flip(-1), atol=1e-4) for one in changed]
    kept = [torch.allclose(one, x[0], atol=1e-4) for one in changed]
    assert 70 < sum(mirrored) < 130
    assert sum(mirrored) + sum(kept) == 200


def test_maps_move_with_their_images_and_keep_their_values() -> None:
    x = torch.zeros(8, 1, 64, 64)
    x[:, :, 20:44, 12:30] = 1
    maps = x[:, 0].long() * 3

    changed, moved = Augment([part("RandomAffine", degrees=30.0)])(x, range(8), maps)

    assert moved is not None
    assert moved.dtype == maps.dtype
    assert moved.shape == maps.shape
    assert set(moved.unique().tolist()) == {0, 3}
    overlap = ((changed[:, 0] > 0.5) == (moved == 3)).float().mean()
    assert float(overlap) > 0.995


def test_two_affines_cost_one_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    sample = functional.grid_sample
    monkeypatch.setattr(
        functional, "grid_sample", lambda *rest, **named: calls.append(1) or sample(*rest, **named)
    )

    Augment([part("RandomAffine"), part("RandomIntensity"), part("RandomAffine", degrees=3.0)])(
        pictures(), range(6)
    )

    assert len(calls) == 1


def test_blur_smooths_and_keeps_constants() -> None:
    noise = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    flat = torch.full((4, 3, 32, 32), 0.4)
    blur = Augment([part("RandomBlur", sigma=2.0)])

    blurred, _ = blur(noise, range(4))

    assert bool((blurred.std((1, 2, 3)) <= noise.std((1, 2, 3)) + 1e-6).all())
    assert float(blurred.std()) < 0.8 * float(noise.std())
    torch.testing.assert_close(blur(flat, range(4))[0], flat)


def test_unknown_parts_and_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="degree"):
        Augment([part("RandomAffine", degree=3)])
    with pytest.raises((ConfigError, UnsafeError)):
        Augment([part("os.system", command="true")])
    with pytest.raises(ConfigError):
        Augment([part("Resize", size=3)])


def test_a_rotated_volume_of_unequal_sides_is_not_sheared() -> None:
    """A ball stays a ball: its extents along the axes stay equal whatever the sides of the grid."""
    grids = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in (60, 40, 30)], indexing="ij")
    ball = (sum(grid.square() for grid in grids) < 10**2).float()[None, None]

    turned, _ = Augment([part("RandomAffine", degrees=60.0, shift=0.0, scale=0.0)])(ball, [3])

    assert float((turned - ball).abs().mean()) < 0.01  # an ellipsoid of axes 3 : 2 differs by 0.05


def test_flipped_volume_swaps_left_and_right_only() -> None:
    x = torch.rand(1, 1, 12, 10, 8, generator=torch.Generator().manual_seed(0))
    augment = Augment([part("RandomAffine", degrees=0.0, shift=0.0, scale=0.0, flip=True)])

    seen = [augment(x, [seed])[0] for seed in range(12)]

    assert any(torch.allclose(one, x.flip(2), atol=1e-5) for one in seen)
    assert all(torch.allclose(one, x, atol=1e-5) or torch.allclose(one, x.flip(2), atol=1e-5) for one in seen)


def test_stain_changes_leave_white_glass_nearly_white() -> None:
    glass = torch.full((4, 3, 8, 8), 1.0)

    changed, _ = Augment([part("RandomStain", strength=0.05)])(glass, range(4))

    assert float((changed - glass).abs().max()) < 0.15
