from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medxfer.bundle.schema import DataSpec, ImagesSpec, SliceSpec
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.case import Case
from medxfer.data.cases import find_cases
from medxfer.data.presets import preprocess, steps_of
from medxfer.data.readers import read_image
from medxfer.data.sampling import Reading
from medxfer.data.steps.pictures import Quantise
from medxfer.errors import DataError
from medxfer.files import sha256_of
from medxfer.progress import Progress

from .faults import anatomy, chest, class_folders, picture, saved_series, series

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def read(
    root: Path, *, store: str = "uint8", size: int = 32, on_bad_image: str = "stop", channels: int = 1
) -> Arrays:
    images = ImagesSpec(size=size, store=store)  # type: ignore[arg-type]
    cases = find_cases(DataSpec(source=str(root)), root).cases
    return cache_arrays(cases, steps_of(images, channels), store, QUIET, on_bad_image=on_bad_image)  # type: ignore[arg-type]


def entries(home: Path) -> list[Path]:
    return sorted((home / "cache").iterdir())


@pytest.mark.parametrize("store", ["uint8", "int16", "float16"])
def test_batches_equal_what_predict_computes(tmp_path: Path, store: str) -> None:
    root = class_folders(tmp_path / "data")

    arrays = read(root, store=store)

    steps = steps_of(ImagesSpec(size=32, store=store), 1)  # type: ignore[arg-type]
    expected = torch.stack([preprocess(read_image(case.images[0]), steps) for case in arrays.cases])
    assert torch.equal(arrays.batch(range(12)), expected)
    assert torch.equal(arrays.batch([7, 2]), expected[[7, 2]])
    assert arrays.images.dtype == np.dtype(store)
    assert arrays.sha256 == tuple(sha256_of(case.images[0]) for case in arrays.cases)


def test_second_run_reads_no_image_and_gives_the_same(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    first = np.array(read(root).images)
    monkeypatch.setattr("medxfer.data.sampling.decode", None)

    second = read(root)

    np.testing.assert_array_equal(second.images, first)
    assert isinstance(second.images, np.memmap)
    assert len(entries(own_home)) == 1


def test_moved_data_are_found_again_and_changed_data_are_not(tmp_path: Path, own_home: Path) -> None:
    root = class_folders(tmp_path / "data")
    read(root)
    root = root.rename(tmp_path / "elsewhere")
    read(root)
    assert len(entries(own_home)) == 1

    picture(root / "normal" / "n000.png", chest(77))
    changed = read(root)
    read(root, size=48)
    read(root, store="float16")

    assert len(entries(own_home)) == 4
    np.testing.assert_array_equal(changed.images[0, 0], read(root).images[0, 0])


@pytest.mark.parametrize("name", ["images.bin", "affines.npy", "entry.json"])
@pytest.mark.parametrize("fault", ["flip", "cut", "absent"])
def test_c4_corrupt_entries_are_rebuilt(tmp_path: Path, own_home: Path, name: str, fault: str) -> None:
    root = class_folders(tmp_path / "data")
    first = read(root)
    expected, affines = np.array(first.images), first.affines
    file = entries(own_home)[0] / name
    content = bytearray(file.read_bytes())
    if fault == "absent":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)

    again = read(root)
    np.testing.assert_array_equal(again.images, expected)
    np.testing.assert_array_equal(again.affines, affines)


def test_bad_images_stop_with_their_number_and_the_first_five(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", 10)
    for number in range(7):
        (root / "normal" / f"n{number:03}.png").write_bytes(b"")

    for _ in range(2):  # fresh, then from the cache
        with pytest.raises(DataError) as caught:
            read(root)
        assert "7 of 20" in caught.value.seen
        assert "n004.png: 0 bytes" in caught.value.seen
        assert "n005" not in caught.value.seen
        assert "2 more" in caught.value.seen
        assert "on_bad_image" in caught.value.todo


def test_bad_images_are_left_out_when_skipped(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    (root / "normal" / "n002.png").write_bytes(b"<html>")
    os.mkfifo(root / "pneumonia" / "pipe.png")

    arrays = read(root, on_bad_image="skip")

    assert len(arrays.cases) == len(arrays.sha256) == len(arrays.images) == 11
    assert [one.case for one in arrays.refused] == ["normal/n002.png", "pneumonia/pipe.png"]
    assert "HTML" in arrays.refused[0].seen
    expected = preprocess(read_image(root / "normal" / "n003.png"), steps_of(ImagesSpec(size=32), 1))
    assert torch.equal(arrays.batch([2])[0], expected)


def test_refusals_found_again_name_the_files_of_this_time(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    (root / "normal" / "n002.png").write_bytes(b"<html>")
    read(root, on_bad_image="skip")
    root = root.rename(tmp_path / "moved")

    (one,) = read(root, on_bad_image="skip").refused

    assert str(tmp_path / "moved") in one.where


def test_only_bad_images_are_refused_even_when_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.png").touch()

    with pytest.raises(DataError, match="2 of 2"):
        read(tmp_path / "data", on_bad_image="skip")


def test_td5_td6_odd_names_survive_the_cache(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    for name in (b"bad\n.png", b"bad\xff.png"):
        Path(os.fsdecode(os.fsencode(str(root / "normal")) + b"/" + name)).touch()

    arrays = read(root, on_bad_image="skip")

    assert len(arrays.refused) == 2
    json.dumps([one.case for one in arrays.refused], ensure_ascii=False).encode("utf-8")


def test_colour_and_grey_share_one_array(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    colours = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    picture(root / "normal" / "colour.png", colours)

    assert read(root).images.shape == (13, 1, 32, 32)
    assert read(root, channels=3).images.shape == (13, 3, 32, 32)


def test_c4_processes_filling_one_cache_give_one_result(tmp_path: Path, own_home: Path) -> None:
    root = class_folders(tmp_path / "data", 40)
    program = (
        "import sys; from pathlib import Path; from tests.data.test_cache import read; "
        "sys.stdout.write(str(int(read(Path(sys.argv[1])).images.astype(int).sum())))"
    )
    command = [sys.executable, "-c", program, str(root)]
    environment = {**os.environ, "MEDXFER_HOME": str(own_home), "PYTHONPATH": str(Path(__file__).parents[2])}

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    said = {process.communicate(timeout=100)[0] for process in processes}

    assert len(said) == 1
    assert said != {b""}
    assert len(entries(own_home)) == 1
    assert {path.name for path in entries(own_home)[0].iterdir()} == {
        "images.bin",
        "maps.bin",
        "affines.npy",
        "entry.json",
    }


def test_stale_pieces_of_a_killed_process_do_no_harm(tmp_path: Path, own_home: Path) -> None:
    root = class_folders(tmp_path / "data")
    expected = np.array(read(root).images)
    entry = entries(own_home)[0]
    shutil.rmtree(entry)
    (own_home / "cache" / f".{entry.name}.tmp-{os.getpid()}").mkdir()

    np.testing.assert_array_equal(read(root).images, expected)


def volume_case(folder: Path) -> Case:
    saved_series(series(), folder)
    return Case(id="ct", images=(folder,), patient="p", label="a")


@pytest.mark.parametrize("cut", [None, SliceSpec(every=5)])
def test_volumes_and_their_slices_are_found_again_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: SliceSpec | None
) -> None:
    case = volume_case(tmp_path / "ct")
    dims = 3 if cut is None else 2
    steps = steps_of(ImagesSpec(preset="ct", dims=dims, size=8, store="int16"), 1)  # type: ignore[arg-type]

    def arrays() -> Arrays:
        return cache_arrays([case], steps, "int16", QUIET, reading=Reading(slices=cut))

    first = arrays()
    monkeypatch.setattr("medxfer.data.sampling.read_image", None)
    second = arrays()

    assert first.images.shape == ((1, 1, 8, 8, 8) if cut is None else (3, 1, 8, 8))
    assert first.affines.shape == ((1, 4, 4) if cut is None else (3, 3, 3))
    assert [one.id for one in second.cases] == (
        ["ct"] if cut is None else [f"ct#axial-{number:03}" for number in (0, 5, 10)]
    )
    assert len(set(second.sha256)) == len(second.cases)
    assert second.sha256 == first.sha256
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.affines, first.affines)


def test_entry_of_a_volume_is_rebuilt_when_damaged_and_another_when_read_otherwise(
    tmp_path: Path, own_home: Path
) -> None:
    case = volume_case(tmp_path / "ct")
    steps = steps_of(ImagesSpec(preset="ct", size=8), 1)

    def arrays(every: int) -> Arrays:
        return cache_arrays([case], steps, "uint8", QUIET, reading=Reading(slices=SliceSpec(every=every)))

    expected = np.array(arrays(5).images)
    (entry,) = entries(own_home)
    (entry / "images.bin").write_bytes(b"")

    np.testing.assert_array_equal(arrays(5).images, expected)
    assert len(arrays(1).images) == len(anatomy())
    assert len(entries(own_home)) == 2


def test_int16_keeps_every_level_of_twelve_bits() -> None:
    levels = torch.arange(4096) / 4095

    for store, whole in (("uint8", False), ("int16", True), ("float16", False)):
        stored = Quantise(store).change(levels)  # type: ignore[arg-type]
        assert torch.equal((stored * 4095).round(), torch.arange(4096.0)) == whole


def test_bounded_cache_lets_the_least_recently_used_entry_go(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "data")
    old = read(root, size=32)
    read(root, size=40)
    for number, entry in enumerate(
        sorted(entries(own_home), key=lambda one: (one / "images.bin").stat().st_size)
    ):
        os.utime(entry, (number, number))
    read(root, size=32)  # used now
    total = sum(file.stat().st_size for entry in entries(own_home) for file in entry.iterdir())
    monkeypatch.setenv("MEDXFER_CACHE_BYTES", str(total))
    before = np.array(old.images)

    read(root, size=24)

    sizes = sorted((entry / "images.bin").stat().st_size for entry in entries(own_home))
    assert sizes == [12 * 24**2, 12 * 32**2]
    monkeypatch.setenv("MEDXFER_CACHE_BYTES", "1")
    kept = read(root, size=16)
    assert [entry.name for entry in entries(own_home)] == [Path(kept.images.filename).parent.name]  # type: ignore[attr-defined]
    assert "MEDXFER_CACHE_BYTES" in capfd.readouterr().err
    np.testing.assert_array_equal(old.images, before)  # still mapped


def test_bound_of_the_cache_has_to_be_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDXFER_CACHE_BYTES", "10 GB")

    with pytest.raises(DataError, match="MEDXFER_CACHE_BYTES"):
        read(class_folders(tmp_path / "data"))


def test_half_written_entries_of_killed_processes_go_after_a_day(tmp_path: Path, own_home: Path) -> None:
    root = class_folders(tmp_path / "data")
    stale, fresh = own_home / "cache" / ".a.tmp-1", own_home / "cache" / ".b.tmp-2"
    for folder in (stale, fresh):
        folder.mkdir(parents=True)
    os.utime(stale, (0, 0))

    read(root)

    assert not stale.exists()
    assert fresh.exists()


def test_tx2_many_images_of_one_value_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    picture(root / "normal" / "n002.png", np.full((40, 40), 7, np.uint8))

    with pytest.raises(DataError) as caught:
        read(root)

    assert "1 of 12 images are of one value all over as read: normal/n002.png" in caught.value.seen
    assert len(read(root, on_bad_image="skip").cases) == 12


def test_tp9_thumbnails_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    picture(root / "normal" / "n002.png", chest(0)[:9, :30])

    with pytest.raises(DataError, match="9 rows, 30 columns"):
        read(root)
