"""PNG, JPEG, TIFF and BMP through Pillow: depth kept, orientation applied, palettes and alpha resolved."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import Image as Pillow

from ...errors import DataError
from ..image import Image, heard, refuse_size, shown
from ..policy import STRICT, ReadPolicy
from .kinds import kind_of

try:
    import simplejpeg
except ImportError:  # `pip install medxfer[fast]`
    simplejpeg = None

# The classes themselves, not `Image.open`: no other format is tried, and our own size limit counts, not Pillow's.
_CLASSES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_SCAN = 0xDA
# Tables, restart interval, JFIF, comment: what says nothing about how the pixels are to be shown.
_PLAIN_SEGMENTS = frozenset({*_FRAMES, _SCAN, 0xC4, 0xDB, 0xDD, 0xE0, 0xFE})
_ORIENTATION = 0x0112  # EXIF 2.32, tag 274
_TO_RGB = {"P": "palette to RGB", "CMYK": "CMYK to RGB", "YCbCr": "YCbCr to RGB"}
_ALPHA = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB", "PA": "RGB", "RGBX": "RGB"}


def read_picture(
    path: Path, content: bytes, kind: str, *, policy: ReadPolicy = STRICT, as_stored: bool = False
) -> Image:
    """Decode a picture.

    Args:
        path: For messages.
        content: The file.
        kind: JPEG, PNG, TIFF or BMP.
        policy: Which of several pages (`frames`).
        as_stored: Give pixels of 8 bits as uint8, else everything as float32.

    Raises:
        DataError: Damaged, too large, several pages, or a colour space that is not read.
    """
    if kind == "PNG" and _is_cut_png(content):
        raise _cut(path, content, kind)
    if kind == "JPEG" and (plain := _plain_grey(path, content, as_stored)) is not None:
        return plain
    with heard() as said:
        try:
            picture: Pillow.Image = _CLASSES[kind](io.BytesIO(content))
            applied: list[str] = []
            _choose_page(path, picture, policy, applied)
            columns, rows = picture.size
            refuse_size(path, rows, columns, len(picture.getbands()))
            applied += _depth_lost(picture)
            top = _white_is_zero(path, picture, applied) if kind == "TIFF" else 0
            turn = picture.getexif().get(_ORIENTATION, 1)
            picture.load()
            picture = _turned(picture, turn, kind, applied)
            array = _planes(path, picture, applied, as_stored)
            if top:
                array = top - array
        except DataError:
            raise
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if "truncated" in str(error) or "Truncated" in str(error) or isinstance(error, EOFError):
                raise _cut(path, content, kind) from error
            raise
    if array.shape[0] == 3 and np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2]):
        applied.append("three equal channels")
    return Image(array=array, reader="Pillow", applied=tuple(applied), warnings=tuple(said))


def _plain_grey(path: Path, content: bytes, as_stored: bool) -> Image | None:
    """A grey JPEG with nothing to turn by simplejpeg, where that is installed: Pillow's pixels in half the time.

    None for every other JPEG and for one at which libjpeg-turbo has anything to remark: Pillow says what it is.

    Raises:
        DataError: Too large.
    """
    size = _size_of_plain_grey(content)
    if size is None or simplejpeg is None:
        return None
    refuse_size(path, *size, 1)
    try:
        pixels = simplejpeg.decode_jpeg(content, "GRAY")[..., 0]
    except ValueError:
        return None
    extent = (float(pixels.min()), float(pixels.max()))
    array = pixels if as_stored else pixels.astype(np.float32)
    return Image(array=array[None], reader="simplejpeg", extent=extent, filename=str(path))


def _size_of_plain_grey(content: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG of one component of 8 bits without Exif or XMP; ITU-T T.81, annex B."""
    size, place = None, 2
    try:
        while content[place] == 0xFF and content[place + 1] in _PLAIN_SEGMENTS:
            marker = content[place + 1]
            if marker in _FRAMES:
                depth, rows, columns, components = struct.unpack_from(">BHHB", content, place + 4)
                if depth != 8 or components != 1 or size is not None or not rows * columns:
                    return None
                size = (rows, columns)
            if marker == _SCAN:
                return size
            place += 2 + (content[place + 2] << 8 | content[place + 3])
    except (IndexError, struct.error):
        return None
    return None


def _cut(path: Path, content: bytes, kind: str) -> DataError:
    seen = f"truncated {kind}: the file ends after {len(content)} bytes, before the picture does"
    return DataError(shown(path), seen, "a whole file", "copy the file again, or list it in data.exclude")


def _is_cut_png(content: bytes) -> bool:
    """Whether the end chunk is missing: Pillow reads such a file when only its last bytes are lost."""
    return b"IEND" not in content[-4096:]


def _choose_page(path: Path, picture: Pillow.Image, policy: ReadPolicy, applied: list[str]) -> None:
    """Go to the page that the policy names."""
    pages = getattr(picture, "n_frames", 1)
    if pages == 1:
        return
    if policy.frames is None:
        todo = "save the page that is meant as a file of its own, or set data.frames: first, middle or its number"
        raise DataError(shown(path), f"{pages} pages", "one picture a file", todo)
    named = {"first": 1, "middle": (pages + 1) // 2}
    page = named[policy.frames] if isinstance(policy.frames, str) else policy.frames
    if page > pages:
        raise DataError(
            shown(path), f"page {page} asked for, {pages} in the file", f"1 to {pages}", "correct frames"
        )
    picture.seek(page - 1)
    applied.append(f"page {page} of {pages}")


def _white_is_zero(path: Path, picture: Pillow.Image, applied: list[str]) -> int:
    """The value to count from where a TIFF file stores white as 0 and Pillow does not turn that; else 0.

    Pillow inverts up to 8 bits only.
    """
    tags = getattr(picture, "tag_v2", {})
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) != 0:
        return 0
    applied.append("white is zero: inverted")
    if not picture.mode.startswith("I;16") and picture.mode not in ("I", "F"):
        return 0
    if picture.mode in ("I", "F") or tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] != 1:
        todo = "save it with black as zero"
        raise DataError(
            shown(path), f"white is zero in a TIFF file of mode {picture.mode}", "unsigned pixels", todo
        )
    return int(2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]) - 1


def _depth_lost(picture: Pillow.Image) -> tuple[str, ...]:
    """Pillow has no mode for colour of 16 bits: it keeps the upper 8."""
    tiles = getattr(picture, "tile", ())
    raw_modes = str([tile[3] for tile in tiles])
    deep = picture.mode in ("RGB", "RGBA") and ";16" in raw_modes
    return ("colour of 16 bits read as 8",) if deep else ()


def _turned(picture: Pillow.Image, turn: int, kind: str, applied: list[str]) -> Pillow.Image:
    if turn not in (2, 3, 4, 5, 6, 7, 8):
        return picture
    applied.append(f"EXIF orientation {turn} turned")
    return picture if kind == "TIFF" else ImageOps.exif_transpose(picture)  # Pillow turns TIFF itself


def palette_numbers(path: Path, *, policy: ReadPolicy = STRICT) -> np.ndarray:
    """The numbers that a picture with a palette stores, float32 (1, rows, columns), turned as `read_picture` does.

    Args:
        path: A picture that `read_picture` took.
        policy: As it was read.
    """
    content = path.read_bytes()
    kind = kind_of(content) or ""
    picture: Pillow.Image = _CLASSES[kind](io.BytesIO(content))
    _choose_page(path, picture, policy, [])
    turn = picture.getexif().get(_ORIENTATION, 1)
    picture.load()
    return np.asarray(_turned(picture, turn, kind, [])).astype(np.float32)[None]


def _planes(path: Path, picture: Pillow.Image, applied: list[str], as_stored: bool) -> np.ndarray:
    """Float32 (1 or 3, rows, columns); uint8 where it is stored so and wanted."""
    if picture.mode == "P" and "transparency" in picture.info:
        applied.append("alpha dropped")
    if picture.mode in _ALPHA:
        applied.append("alpha dropped")
        if picture.mode in ("La", "RGBa"):  # premultiplied: undo that first
            picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
        picture = picture.convert(_ALPHA[picture.mode])
    elif picture.mode in _TO_RGB:
        applied.append(_TO_RGB[picture.mode])
        picture = picture.convert("RGB")
    elif picture.mode == "1":
        applied.append("1 bit to 0 and 255")
        picture = picture.convert("L")
    if picture.mode not in ("L", "RGB", "I", "F") and not picture.mode.startswith("I;16"):
        todo = "save it as grey or RGB"
        raise DataError(shown(path), f"colour space {picture.mode}", "grey, RGB, palette or CMYK", todo)
    array = np.asarray(picture)
    dtype = array.dtype if as_stored and array.dtype == np.uint8 else np.float32
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return planes.astype(dtype, order="C")
