"""NRRD and MetaImage: what ITK writes is read as ITK reads it, and what ITK accepts in silence is refused."""

from __future__ import annotations

import gzip
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from medxfer.data.image import Image
from medxfer.data.policy import ReadPolicy
from medxfer.data.readers import decode, read_image
from medxfer.errors import DataError
from tests.bounds import memory_below

ANGLE = 0.3
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, -1.0]])
SPACING, ORIGIN = (0.5, 1.25, 3.0), (10.0, -20.0, 30.0)
NAMES = ("a.mha", "a.mhd", "a.nrrd", "a.nhdr")
AFFINE = np.eye(4)  # of `itk_image`, in RAS
AFFINE[:3, :3] = np.diag([-1, -1, 1]) @ TURN * SPACING
AFFINE[:3, 3] = np.diag([-1, -1, 1]) @ ORIGIN


@pytest.fixture(scope="module", autouse=True)
def _itk_is_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ITK loads its parts on first use, and its SWIG code dies of a warning that has become an error."""
    place = tmp_path_factory.mktemp("itk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("u1", "i2", "u2", "i4", "u4", "f4", "f8"):
            for name in ("a.mha", "a.nrrd"):
                itk.imwrite(itk.image_from_array(np.zeros((2, 2, 2), kind)), str(place / name))
                itk.array_from_image(itk.imread(str(place / name)))
        itk.matrix_from_array(np.eye(3))
        itk.image_from_array(np.zeros((2, 2, 2, 3), np.float32), is_vector=True)


def volume(shape: tuple[int, ...] = (4, 5, 6), dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def written(path: Path, array: np.ndarray, *, compressed: bool = False, parts: bool = False) -> Path:
    """(X, Y, Z), or (C, X, Y, Z) with `parts`, through ITK, oblique and anisotropic in LPS."""
    stored = array.transpose(3, 2, 1, 0) if parts else array.T
    image = itk.image_from_array(np.ascontiguousarray(stored), is_vector=parts)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(itk.matrix_from_array(TURN))
    itk.imwrite(image, str(path), compression=compressed)
    return path


def nrrd(path: Path, array: np.ndarray, data: bytes | None = None, **fields: str | None) -> Path:
    """A file made by hand; a field of None is left out."""
    names = {"i2": "short", "u1": "uchar", "f4": "float"}
    kept = {
        "type": names[array.dtype.str[1:]],
        "dimension": str(array.ndim),
        "space": "right-anterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space directions": "(1,0,0) (0,1,0) (0,0,1)",
        "space origin": "(0,0,0)",
        "encoding": "raw",
        "endian": "little",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in kept.items() if value is not None]
    content = ("NRRD0004\n" + "\n".join(lines) + "\n\n").encode("latin-1")
    path.write_bytes(content + (array.tobytes(order="F") if data is None else data))
    return path


def refusal(path: Path, **policy: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_image(path, policy=ReadPolicy(**policy))
    assert all((caught.value.where, caught.value.seen, caught.value.accepted, caught.value.todo))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def from_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Image:
    nibabel.Nifti1Image(array, affine).to_filename(path)
    return read_image(path)


def same(one: Image, other: Image) -> None:
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    assert one.spacing == pytest.approx(other.spacing)


@pytest.mark.parametrize("compressed", [False, True])
def test_tx3_tx4_the_same_volume_as_nrrd_metaimage_and_nifti_is_the_same_tensor(
    tmp_path: Path, compressed: bool
) -> None:
    truth = from_nifti(tmp_path / "a.nii", volume())

    for name in NAMES:
        image = read_image(written(tmp_path / name, volume(), compressed=compressed))
        same(image, truth)
        assert not image.warnings
        assert any("turned to RAS" in text for text in image.applied)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_all_number_types_are_read_as_itk_reads_them(tmp_path: Path, name: str, dtype: str) -> None:
    path = written(tmp_path / name, volume(dtype=dtype))

    np.testing.assert_array_equal(
        np.sort(read_image(path).array.ravel()), np.sort(itk.array_from_image(itk.imread(str(path))).ravel())
    )


def test_big_endian_is_swapped(tmp_path: Path) -> None:
    array = volume(dtype=">i2")
    truth = volume().astype(np.float32)

    image = read_image(nrrd(tmp_path / "a.nrrd", array, endian="big"))
    np.testing.assert_array_equal(image.array[0], truth)
    path = written(tmp_path / "a.mha", volume())
    header, _, data = path.read_bytes().partition(b"LOCAL\n")
    swapped = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    path.write_bytes(header.replace(b"OrderMSB = False", b"OrderMSB = True") + b"LOCAL\n" + swapped)
    same(read_image(path), read_image(written(tmp_path / "b.mha", volume())))


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_components_are_channels(tmp_path: Path, name: str) -> None:
    array = volume((3, 4, 5, 6), np.float32)

    image = read_image(written(tmp_path / name, array, parts=True))

    assert image.array.shape[0] == 3
    assert "3 components as channels" in image.applied
    for channel in range(3):
        same_channel = read_image(written(tmp_path / f"c{channel}{name[1:]}", array[channel]))
        np.testing.assert_array_equal(image.array[channel], same_channel.array[0])


def test_colour_with_alpha_loses_it(tmp_path: Path) -> None:
    array = volume((4, 3, 4, 5), np.uint8)
    kinds = {"kinds": "RGBA-color domain domain domain"}

    image = read_image(
        nrrd(tmp_path / "a.nrrd", array, space_directions="none (1,0,0) (0,1,0) (0,0,1)", **kinds)
    )

    np.testing.assert_array_equal(image.array, array[:3])
    assert "alpha dropped" in image.applied


def test_tn9_several_volumes_are_refused_or_one_is_chosen(tmp_path: Path) -> None:
    array = volume((4, 5, 6, 7))
    path = nrrd(tmp_path / "a.nrrd", array, space_directions="(1,0,0) (0,1,0) (0,0,1) none")
    shutil.copy(path, tmp_path / "b.nrrd")

    assert "7 volumes" in refusal(path).seen
    image = read_image(path, policy=ReadPolicy(volume=6))
    np.testing.assert_array_equal(image.array[0], array[..., 6])


def test_space_of_the_header_decides_left_and_front(tmp_path: Path) -> None:
    array = volume()
    ras = read_image(nrrd(tmp_path / "ras.nrrd", array))
    las = read_image(nrrd(tmp_path / "las.nrrd", array, space="LAS"))
    lps = read_image(nrrd(tmp_path / "lps.nrrd", array, space="left-posterior-superior"))

    np.testing.assert_array_equal(ras.array[0], array)
    np.testing.assert_array_equal(las.array[0], array[::-1])
    np.testing.assert_array_equal(lps.array[0], array[::-1, ::-1])
    unknown = read_image(
        nrrd(tmp_path / "none.nrrd", array, space=None, space_directions=None, space_origin=None)
    )
    assert any("orientation unknown" in text for text in unknown.warnings)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_pictures_keep_rows_and_columns(tmp_path: Path, name: str) -> None:
    rows = np.arange(20 * 30, dtype=np.int16).reshape(20, 30)
    image = itk.image_from_array(rows)
    image.SetSpacing((0.5, 2.0))
    itk.imwrite(image, str(tmp_path / name))

    read = read_image(tmp_path / name)

    np.testing.assert_array_equal(read.array[0], rows)
    assert read.spacing == (2.0, 0.5)
    assert read.affine is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_tn10_truncated_voxels_are_refused(tmp_path: Path, name: str, compressed: bool, share: float) -> None:
    path = written(tmp_path / name, volume((20, 20, 20)), compressed=compressed)
    cut = next((one for one in tmp_path.iterdir() if "raw" in one.suffix + one.stem), path)
    cut = next((one for one in tmp_path.iterdir() if one.name.endswith((".raw", ".zraw", ".raw.gz"))), cut)
    content = cut.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])

    assert re.search("truncated|damaged", refusal(path).seen)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_a_changed_byte_of_compressed_voxels_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, volume((20, 20, 20)), compressed=True)
    content = bytearray(path.read_bytes())
    content[-2000] ^= 4
    path.write_bytes(content)

    refusal(path)


@pytest.mark.parametrize(
    "target", ["../b.raw", "/etc/passwd", "http://x.org/b.raw", "sub/../../b.raw", "c:\\b.raw"]
)
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_tx5_data_file_elsewhere_is_refused(tmp_path: Path, name: str, target: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = written(folder / name, volume())
    shutil.copy(folder / "a.raw", tmp_path / "b.raw")
    path.write_bytes(path.read_bytes().replace(b"a.raw", target.encode()))

    assert "data file" in refusal(path).seen


def test_tx5_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = written(folder / "a.mhd", volume())
    (folder / "a.raw").rename(tmp_path / "b.raw")
    (folder / "a.raw").symlink_to(tmp_path / "b.raw")

    assert "data file" in refusal(path).seen


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_data_in_several_files_or_none_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, volume())
    header = path.read_bytes()

    path.write_bytes(header.replace(b"a.raw", b"LIST"))
    assert "several files" in refusal(path).seen
    path.write_bytes(header.replace(b"a.raw", b"a%03d.raw 1 9 1"))
    assert "several files" in refusal(path).seen
    path.write_bytes(header)
    (tmp_path / "a.raw").unlink()
    error = refusal(path)
    assert "a.raw" in error.where
    assert "no such file" in error.seen


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.mha", b"DimSize = 4 5 6", b"DimSize = 32000 32000 32000"),
        ("a.nrrd", b"sizes: 4 5 6", b"sizes: 32000 32000 32000"),
    ],
)
def test_tn11_header_that_asks_for_more_than_the_file_holds_is_refused_at_once(
    tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    for compressed in (False, True):
        path = written(tmp_path / name, volume(), compressed=compressed)
        path.write_bytes(path.read_bytes().replace(old, new))

        with memory_below(10):
            assert "32000 x 32000 x 32000" in refusal(path).seen


def test_tn12_zeros_after_the_voxels_are_not_unpacked(tmp_path: Path) -> None:
    data = gzip.compress(volume().tobytes(order="F") + bytes(64 * 2**20), 1)
    path = nrrd(tmp_path / "a.nrrd", volume(), data, encoding="gzip")

    with memory_below(10):
        image = read_image(path)

    np.testing.assert_array_equal(image.array[0], volume())
    assert any("after the voxels" in text for text in image.warnings)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "ascii"}, "encoding ascii"),
        ({"type": "block"}, "type block"),
        ({"type": None}, "no field type"),
        ({"endian": None}, "endian absent"),
        ({"space": "martian"}, "space martian"),
        ({"sizes": "4 5"}, "sizes"),
        ({"sizes": "4 5 -6"}, "sizes"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "voxels of size"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "NaN"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,x)"}, "vector"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,1,1)"}, "45.00 degrees"),
        ({"line_skip": "2"}, "line skip"),
        ({"space_units": '"m" "m" "m"'}, "units"),
        ({"kinds": "domain domain"}, "2 kinds"),
        ({"no_such_field": "1"}, "header line"),
    ],
)
def test_headers_that_make_no_sense_are_refused_by_field(
    tmp_path: Path, fields: dict[str, str | None], words: str
) -> None:
    assert words in refusal(nrrd(tmp_path / "a.nrrd", volume(), **fields)).seen


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"MET_SHORT", b"MET_NONE", "ElementType"),
        (b"BinaryData = True", b"BinaryData = False", "BinaryData"),
        (b"NDims = 3", b"NDims = 9", "NDims"),
        (b"DimSize = 4 5 6", b"DimSize = 4 5", "dimsize"),
        (b"ElementSpacing = 0.5", b"ElementSpacing = 0", "voxels of size"),
        (b"ElementSpacing = 0.5", b"ElementSpacing = nan", "elementspacing"),
        (b"CompressedData = False", b"CompressedData = maybe", "compresseddata"),
        (b"ElementDataFile", b"ElementDataFolder", "header line"),
    ],
)
def test_metaimage_headers_that_make_no_sense_are_refused_by_key(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    path = written(tmp_path / "a.mha", volume())
    path.write_bytes(path.read_bytes().replace(old, new))

    assert words in refusal(path).seen


def test_metaimage_without_direction_is_warned(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mha", volume())
    path.write_bytes(re.sub(rb"TransformMatrix[^\n]*\n", b"", path.read_bytes()))

    assert any("orientation unknown" in text for text in read_image(path).warnings)


@pytest.mark.parametrize("skip", [-1, 17])
def test_metaimage_may_skip_the_header_of_its_data_file(tmp_path: Path, skip: int) -> None:
    truth = read_image(written(tmp_path / "a.mhd", volume()))
    path = tmp_path / "a.mhd"
    path.write_bytes(
        path.read_bytes().replace(b"ElementDataFile", f"HeaderSize = {skip}\nElementDataFile".encode())
    )
    (tmp_path / "a.raw").write_bytes(bytes(17) + (tmp_path / "a.raw").read_bytes())

    same(read_image(path), truth)


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    truth = read_image(written(tmp_path / "a.nrrd", volume()))
    odd = Path(str(tmp_path / "Gr\udcf6\udcdfe \n.nrrd"))
    (tmp_path / "a.nrrd").rename(odd)

    same(read_image(odd), truth)


@given(data=some.data())
@settings(max_examples=120)
def test_changed_bytes_of_the_header_end_in_an_image_or_a_refusal(data: some.DataObject) -> None:
    mha = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\nDimSize = 4 5 6\n"
        b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    head = (
        b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        b"space origin: (1,2,3)\n\n"
    )
    header, name = data.draw(some.sampled_from([(mha, "a.mha"), (head, "a.nrrd")]))
    content = bytearray(header + volume().tobytes(order="F"))
    for _ in range(data.draw(some.integers(1, 3))):
        content[data.draw(some.integers(0, len(header) - 1))] = data.draw(some.integers(0, 255))

    try:
        image = decode(Path("/nowhere") / name, bytes(content))
    except DataError as error:
        image, fault = None, error.seen
    if image is None:
        assert "damaged" not in fault  # a fault that nobody thought of
        return
    assert np.isfinite(image.array).all()
