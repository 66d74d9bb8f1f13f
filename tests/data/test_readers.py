from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image, ImageCms

from medxfer.data.image import heard
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import decode, read_image
from medxfer.errors import DataError
from tests.bounds import memory_below

from .faults import chest, dicom, jpeg_bytes, picture, ramp, saved


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert all((caught.value.seen, caught.value.accepted, caught.value.todo))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def test_tp1_grey_stays_one_channel_and_rgb_three(tmp_path: Path) -> None:
    grey, colour = chest(0), np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)

    for suffix in ("png", "bmp", "tif"):
        np.testing.assert_array_equal(read_image(picture(tmp_path / f"g.{suffix}", grey)).array, grey[None])
        read = read_image(picture(tmp_path / f"c.{suffix}", colour)).array
        np.testing.assert_array_equal(read, colour.transpose(2, 0, 1))
    assert read_image(picture(tmp_path / "g.jpg", grey)).array.shape == (1, 48, 48)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_tp2_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    values = ramp(top=65535)

    np.testing.assert_array_equal(read_image(picture(tmp_path / f"a.{suffix}", values)).array[0], values)


def test_tp3_exif_orientation_is_applied_and_said(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    values = ramp(24, 32, np.uint8, 255)

    image = read_image(picture(tmp_path / "a.png", values, exif=tags))

    np.testing.assert_array_equal(image.array[0], np.rot90(values, -1))
    assert any("orientation 6" in text for text in image.applied)


@pytest.mark.parametrize("turn", [3, 6])
def test_tp3_orientation_of_tiff_is_applied_and_said(tmp_path: Path, turn: int) -> None:
    values = ramp(24, 32, np.uint16, 65535)

    image = read_image(picture(tmp_path / "a.tif", values, tiffinfo={0x0112: turn}))

    np.testing.assert_array_equal(image.array[0], np.rot90(values, {3: 2, 6: -1}[turn]))
    assert f"EXIF orientation {turn} turned" in image.applied


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tp10_tiff_with_white_as_zero_is_inverted(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    values = ramp(24, 32, dtype, top)
    path = picture(tmp_path / "a.tif", top - values)
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for place in range(start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], "little"), 12):
        if int.from_bytes(content[place : place + 2], "little") == 262:  # PhotometricInterpretation
            content[place + 8 : place + 10] = bytes(2)
    path.write_bytes(content)

    image = read_image(path)

    np.testing.assert_array_equal(image.array[0], values)
    assert "white is zero: inverted" in image.applied


def test_tp10_a_page_can_be_chosen(tmp_path: Path) -> None:
    pages = [Image.fromarray(chest(seed)) for seed in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])

    for frames, seed in (("first", 0), ("middle", 1), (4, 3)):
        image = read_image(tmp_path / "a.tif", policy=ReadPolicy(frames=frames))
        np.testing.assert_array_equal(image.array[0], chest(seed))
    assert "page 4 of 4" in image.applied
    with pytest.raises(DataError, match="page 5"):
        read_image(tmp_path / "a.tif", policy=ReadPolicy(frames=5))


def test_tp10_colour_profile_changes_no_value(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    image = read_image(picture(tmp_path / "a.png", chest(0), icc_profile=profile))

    np.testing.assert_array_equal(image.array[0], chest(0))


def test_tp4_alpha_is_dropped_and_colours_stay(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 20, 4)).astype(np.uint8)

    image = read_image(picture(tmp_path / "a.png", values))

    np.testing.assert_array_equal(image.array, values[..., :3].transpose(2, 0, 1))
    assert "alpha dropped" in image.applied


def test_tp5_palette_becomes_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    palette = Image.fromarray(colours).quantize(16)
    palette.save(tmp_path / "a.png")

    image = read_image(tmp_path / "a.png")

    np.testing.assert_array_equal(image.array, np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_tp6_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).convert("CMYK").save(tmp_path / "a.jpg")

    image = read_image(tmp_path / "a.jpg")

    assert image.array.shape == (3, 20, 20)
    assert abs(image.array.mean() - 200) < 3


def png_header(columns: int, rows: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


def test_tp7_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(60000, 60000))

    with memory_below(10):
        error = refusal(path)

    assert "60000 x 60000" in error.seen


def test_tp7_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDXFER_MAX_PIXELS", "1000")

    assert "48 x 48" in refusal(picture(tmp_path / "a.png", chest(0))).seen


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_tp8_truncated_pictures_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    content = picture(tmp_path / f"whole.{kind}", noise).read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(content[: int(len(content) * share)])

    refusal(path)


def test_tp8_truncated_jpeg_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes()[:1500])

    error = refusal(path)

    assert "truncated" in error.seen
    assert "1500 bytes" in error.seen


def test_tp9_and_tx2_small_or_constant_pictures_are_remarked(tmp_path: Path) -> None:
    image = read_image(picture(tmp_path / "a.png", np.full((1, 1), 7, np.uint8)))

    assert any("1 x 1" in text for text in image.warnings)
    assert any("every pixel" in text for text in image.warnings)


def test_tp10_pages_are_refused_and_bits_floats_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(chest(seed)) for seed in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    values = np.linspace(-3, 5, 400, dtype=np.float32).reshape(20, 20)
    Image.fromarray(chest(0) > 100).save(tmp_path / "bit.png")

    assert "3 pages" in refusal(tmp_path / "pages.tif").seen
    np.testing.assert_array_equal(read_image(picture(tmp_path / "f.tif", values)).array[0], values)
    assert set(np.unique(read_image(tmp_path / "bit.png").array)) == {0, 255}
    grey = np.repeat(chest(0)[..., None], 3, 2)
    assert "three equal channels" in read_image(picture(tmp_path / "grey.png", grey)).applied


def test_tx1_nan_is_refused_with_count_and_place(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.float32)
    values[2, 5] = np.nan
    values[3, 5] = np.inf

    error = refusal(picture(tmp_path / "f.tif", values))

    assert "2 values" in error.seen
    assert "row 2, column 5" in error.seen


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"", "0 bytes"),
        ("a.dcm", np.random.default_rng(3).bytes(3000), "no known image format"),
        ("a.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        ("a.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git-LFS"),
        ("a.jpg", b"this is not an image\n", "plain text"),
        ("a.nii.gz", b"\x1f\x8b\x08" + bytes(50), "gzip"),
        ("a.gif", b"GIF89a" + bytes(40), "GIF"),
        ("a.pdf", b"%PDF-1.7", "PDF"),
        ("a.jpg", b"\xff\xd8\xff" + bytes(100), "JPEG"),
    ],
)
def test_td1_td2_other_content_is_recognised_by_name(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert words in refusal(path).seen


def test_td2_content_decides_and_a_wrong_name_is_remarked(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", chest(0)).rename(tmp_path / "a.dcm")

    image = read_image(tmp_path / "a.dcm")

    assert image.reader == "Pillow"
    assert any("content is PNG" in text for text in image.warnings)


def test_td3_td8_td9_td10_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    good = picture(tmp_path / "good.png", chest(0))
    (tmp_path / "link.png").symlink_to(good)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")

    assert "pipe" in refusal(tmp_path / "pipe.dcm").seen
    assert "no such file" in refusal(tmp_path / "absent.png").seen
    assert "no such file" in refusal(tmp_path / "gone.png").seen
    (tmp_path / "empty").mkdir()
    assert "no DICOM series" in refusal(tmp_path / "empty").seen
    np.testing.assert_array_equal(read_image(tmp_path / "link.png").array[0], chest(0))


def test_td5_td6_odd_names_cannot_break_a_message(tmp_path: Path) -> None:
    line = tmp_path / "a\n\x1b[31mb.png"
    line.touch()
    lost = Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.png"))
    lost.touch()

    assert "\\n" in refusal(line).where
    assert "\x1b" not in str(refusal(line))
    str(refusal(lost)).encode("utf-8")


def is_read_or_refused(name: str, content: bytes) -> bool:
    try:
        return bool(np.isfinite(decode(Path(name), content).array).all())
    except DataError as error:
        return bool(error.seen)


@given(place=some.integers(0, 1999), value=some.integers(0, 255), cut=some.integers(0, 2000))
def test_mutated_files_are_read_or_refused_and_never_raise_otherwise(
    place: int, value: int, cut: int
) -> None:
    content = bytearray(jpeg_bytes(32))
    content[place % len(content)] = value

    assert is_read_or_refused("a.jpg", bytes(content[: max(1, cut)]))


@given(place=some.integers(0, 5000), value=some.integers(0, 255))
def test_mutated_dicom_is_read_or_refused(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(saved(dicom(ramp()), tmp_path_factory.getbasetemp() / "seed.dcm").read_bytes())
    content[place % 700] = value  # the header is some 700 bytes long

    assert is_read_or_refused("a.dcm", bytes(content))


def test_threads_hear_their_own_warnings_and_filters_come_back() -> None:
    before = (list(warnings.filters), warnings.showwarning)
    gate = threading.Barrier(4)

    def work(number: int) -> list[str]:
        with heard() as said:
            gate.wait()
            warnings.warn(f"from {number}", UserWarning)
            warnings.warn(f"from {number}", UserWarning)
            gate.wait()
        return said

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(work, range(4)))

    assert said == [[f"from {number}"] for number in range(4)]
    assert (list(warnings.filters), warnings.showwarning) == before
