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

from medxfer.bundle.schema import DataSpec, ImagesSpec
from medxfer.data.cache import Arrays, cache_arrays
from medxfer.data.cases import find_cases
from medxfer.data.presets import preprocess, steps_of
from medxfer.data.readers import read_image
from medxfer.errors import DataError
from medxfer.files import sha256_of
from medxfer.progress import Progress

from .faults import chest, class_folders, picture

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


@pytest.mark.parametrize("store", ["uint8", "float16"])
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
    monkeypatch.setattr("medxfer.data.cache.decode", None)

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


@pytest.mark.parametrize("name", ["images.npy", "entry.json"])
@pytest.mark.parametrize("fault", ["flip", "cut", "absent"])
def test_c4_corrupt_entries_are_rebuilt(tmp_path: Path, own_home: Path, name: str, fault: str) -> None:
    root = class_folders(tmp_path / "data")
    expected = np.array(read(root).images)
    file = entries(own_home)[0] / name
    content = bytearray(file.read_bytes())
    if fault == "absent":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        file.write_bytes(content)

    np.testing.assert_array_equal(read(root).images, expected)


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

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(3)]
    said = {process.communicate(timeout=100)[0] for process in processes}

    assert len(said) == 1
    assert said != {b""}
    assert len(entries(own_home)) == 1
    assert {path.name for path in entries(own_home)[0].iterdir()} == {"images.npy", "entry.json"}


def test_stale_pieces_of_a_killed_process_do_no_harm(tmp_path: Path, own_home: Path) -> None:
    root = class_folders(tmp_path / "data")
    expected = np.array(read(root).images)
    entry = entries(own_home)[0]
    shutil.rmtree(entry)
    (own_home / "cache" / f".{entry.name}.tmp-{os.getpid()}").mkdir()

    np.testing.assert_array_equal(read(root).images, expected)
