"""Pictures preprocessed together, percentiles from tails and grey JPEGs read the fast way: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image as Pillow

from medxfer.bundle.schema import ImagesSpec
from medxfer.data.case import Case
from medxfer.data.formats import pictures
from medxfer.data.placed import Placed
from medxfer.data.presets import prepared, steps_of
from medxfer.data.readers import read_image
from medxfer.data.sampling import Reading, digest_of, read_case
from medxfer.data.steps.pictures import LEVELS, Channels, PercentileWindow, Quantise, quantiles
from medxfer.data.together import prepared_together
from medxfer.errors import DataError

from .faults import chest, jpeg_bytes


def grey(*shape: int, seed: int = 0, spacing: float = 1.0) -> Placed:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(255).round()
    return Placed(values, np.diag([spacing, spacing, 1.0]))


@pytest.mark.parametrize("preset", ["xray", "ct", "mri", "pathology"])
def test_pictures_taken_together_are_those_taken_one_by_one(preset: str) -> None:
    steps = steps_of(ImagesSpec(preset=preset, size=24), 3)
    pictures = [grey(3 if preset == "pathology" else 1, 40, 40, seed=seed) for seed in range(5)]
    pictures += [grey(3 if preset == "pathology" else 1, 33, 47, seed=seed) for seed in range(5, 8)]
    pictures += [grey(3, 64, 50), grey(3, 40, 40, spacing=0.5), grey(3, 40, 40)]

    for together, one in zip(prepared_together(pictures, steps), pictures, strict=True):
        alone = prepared(one, steps)
        assert torch.equal(together.values, alone.values)
        np.testing.assert_array_equal(together.affine, alone.affine)


def test_pictures_as_stored_give_the_same_as_float32(tmp_path: Path) -> None:
    colour = np.stack([chest(seed) for seed in range(3)], 2)
    alpha = np.concatenate([colour, colour[..., :1]], 2)
    paths = []
    for name, picture in {"grey": chest(3), "grey2": chest(4), "colour": colour, "alpha": alpha}.items():
        paths.append(tmp_path / f"{name}.png")
        Pillow.fromarray(picture).save(paths[-1])
    paths.append(saved_jpeg(tmp_path / "grey.jpg", chest(5)))
    paths.append(tmp_path / "deep.png")
    Pillow.fromarray(chest(6).astype(np.uint16) * 256).save(paths[-1])
    cases = [Case(id=path.name, images=(path,), patient=path.name) for path in paths]
    steps = steps_of(ImagesSpec(size=24), 1)

    stored = [read_case(case, digest_of(case), Reading(), as_stored=True).images[0].image for case in cases]
    read = [read_case(case, digest_of(case), Reading()).images[0].image for case in cases]

    assert [str(one.values.dtype) for one in stored] == ["torch.uint8"] * 5 + ["torch.float32"]
    assert {one.values.dtype for one in read} == {torch.float32}
    for one, other in zip(stored, read, strict=True):
        assert torch.equal(one.values.float(), other.values)
    for together, other in zip(prepared_together(stored, steps), read, strict=True):
        assert torch.equal(together.values, prepared(other, steps).values)


def test_pictures_larger_than_what_is_taken_together_and_volumes_go_alone() -> None:
    steps = steps_of(ImagesSpec(size=32), 1)
    large = [grey(1, 2200, 2000, seed=seed) for seed in range(2)]

    for together, one in zip(prepared_together(large, steps), large, strict=True):
        assert torch.equal(together.values, prepared(one, steps).values)
    volumes = [Placed(torch.rand(1, 8, 8, 9), np.eye(4)) for _ in range(2)]
    window = (PercentileWindow(),)
    for together, one in zip(prepared_together(volumes, window), volumes, strict=True):
        assert torch.equal(together.values, prepared(one, window).values)


def test_a_constant_picture_among_others_becomes_zero_and_leaves_them_as_they_are() -> None:
    flat = Placed(torch.full((1, 40, 40), 90.0), np.eye(3))
    steps = steps_of(ImagesSpec(size=24), 1)

    first, middle, last = prepared_together([grey(1, 40, 40), flat, grey(1, 40, 40, seed=1)], steps)

    assert not middle.values.any()
    assert first.values.max() == last.values.max() == 1.0


def test_steps_that_part_pictures_of_one_size_go_on_one_by_one() -> None:
    class CutDark:
        """Keeps rows that have something in them."""

        def __call__(self, image: Placed) -> Placed:
            rows = image.values[0].amax(1) > 0
            return image.cut(image.values[:, rows], (int(rows.float().argmax()), 0))

        def monai(self, keys: str = "image") -> dict[str, object]:
            return {}

    dark = grey(1, 40, 40)
    dark.values[:, :7] = 0
    steps = (CutDark(), *steps_of(ImagesSpec(size=24), 1))

    for together, one in zip(
        prepared_together([grey(1, 40, 40), dark], steps), (grey(1, 40, 40), dark), strict=True
    ):
        assert torch.equal(together.values, prepared(one, steps).values)


def test_channels_that_do_not_fit_are_refused_together_as_alone() -> None:
    with pytest.raises(DataError, match="2 channels"):
        prepared_together([grey(2, 20, 20), grey(2, 20, 20)], (Channels(3),))


@settings(deadline=None, max_examples=60)
@given(
    levels=some.integers(1, 400),
    count=some.integers(64, 5000),
    lower=some.sampled_from([0.0, 0.5, 1.0, 30.0]),
    upper=some.sampled_from([60.0, 99.0, 99.5, 100.0]),
    arranged=some.sampled_from(["random", "sorted", "blocks"]),
)
def test_percentiles_from_the_tails_are_those_of_the_sorted_values(
    levels: int, count: int, lower: float, upper: float, arranged: str
) -> None:
    """Also where the sample, one value in so many, says nothing about the rest."""
    x = torch.randint(levels, (count,), generator=torch.Generator().manual_seed(count)).float()
    if arranged == "sorted":
        x = x.sort().values
    if arranged == "blocks":
        x[::31] = 1000.0
    ordered = x.sort().values
    expected = []
    for percentile in (lower, upper):
        rank = percentile / 100 * (count - 1)
        pair = ordered[int(rank)], ordered[int(np.ceil(rank))]
        expected.append(float(torch.lerp(*pair, torch.tensor(rank - int(rank)))))

    assert [float(one) for one in quantiles(x, lower / 100, upper / 100)] == expected


@pytest.mark.parametrize("store", ["uint8", "int16"])
def test_rounding_twice_is_rounding_once(store: str) -> None:
    """So the cache may leave out a last `Quantise`, as it rounds itself."""
    x = torch.linspace(0, 1, 200_001)
    once = (x * LEVELS[store]).round()

    assert torch.equal((Quantise(store).change(x) * LEVELS[store]).round(), once)


def saved_jpeg(path: Path, picture: np.ndarray, **options: object) -> Path:
    Pillow.fromarray(picture).save(path, "JPEG", **options)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 30}, {"optimize": True}, {"dpi": (90, 90)}]
)
def test_grey_jpegs_have_the_pixels_of_pillow(tmp_path: Path, options: dict[str, object]) -> None:
    pytest.importorskip("simplejpeg", reason="extra `fast` is not installed")
    path = saved_jpeg(tmp_path / "a.jpg", chest(3, side=211)[:, :160], **options)

    image = read_image(path)

    assert image.reader == "simplejpeg"
    with Pillow.open(path) as picture:
        np.testing.assert_array_equal(image.array[0], np.asarray(picture).astype(np.float32))
    assert image.array.dtype == np.float32
    assert image.extent == (float(image.array.min()), float(image.array.max()))


def test_jpegs_with_something_to_turn_convert_or_remark_go_to_pillow(tmp_path: Path) -> None:
    turned = Pillow.Exif()
    turned[0x0112] = 6
    colour = np.stack([chest(seed) for seed in range(3)], 2)
    paths = [
        saved_jpeg(tmp_path / "turned.jpg", chest(0), exif=turned),
        saved_jpeg(tmp_path / "colour.jpg", colour),
        saved_jpeg(tmp_path / "profile.jpg", chest(1), icc_profile=b"profile"),
    ]

    assert {read_image(path).reader for path in paths} == {"Pillow"}
    assert "turned" in read_image(paths[0]).applied[0]


@pytest.mark.parametrize("length", [3, 30, 200, 700, 1500])
def test_damaged_grey_jpegs_are_refused_in_the_same_words_without_simplejpeg(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes()[:length])
    with pytest.raises(DataError) as fast:
        read_image(path)
    monkeypatch.setattr(pictures, "simplejpeg", None)
    with pytest.raises(DataError) as slow:
        read_image(path)

    assert str(fast.value) == str(slow.value)


@settings(deadline=None, max_examples=200)
@given(place=some.integers(2, 2500), value=some.integers(0, 255))
def test_a_grey_jpeg_with_a_wrong_byte_is_read_or_refused_as_pillow_does(place: int, value: int) -> None:
    content = bytearray(jpeg_bytes(48))
    content[min(place, len(content) - 1)] = value
    path = Path("a.jpg")
    with pytest.MonkeyPatch.context() as patch:
        fast = outcome(path, bytes(content))
        patch.setattr(pictures, "simplejpeg", None)
        assert fast == outcome(path, bytes(content))


def outcome(path: Path, content: bytes) -> str:
    """Pixels or refusal, as text."""
    from medxfer.data.readers import decode

    try:
        return decode(path, content).array.tobytes().hex()
    except DataError as error:
        return str(error)


def test_pictures_above_the_limit_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_jpeg(tmp_path / "a.jpg", chest(0, side=64))
    monkeypatch.setenv("MEDXFER_MAX_PIXELS", "4000")

    with pytest.raises(DataError, match="64 x 64 pixels"):
        read_image(path)
