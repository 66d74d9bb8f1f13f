"""Work in threads and in processes: the same results in order, few held at a time, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec, ImagesSpec
from medxfer.data import workers
from medxfer.data.cache import cache_arrays
from medxfer.data.cases import find_cases
from medxfer.data.doctor import Request, examine
from medxfer.data.presets import steps_of
from medxfer.data.workers import at_work, can_fork, in_order, rows_at_once
from medxfer.errors import DataError, RunError
from medxfer.files import sha256_of
from medxfer.progress import Progress

from .faults import class_folders

needs_fork = pytest.mark.skipif(not can_fork(), reason="this platform forks no processes")
BOTH = pytest.mark.parametrize("forked", [False, pytest.param(True, marks=needs_fork)])


def whose(rows: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(first + second, len(rows), os.getpid()) for first, second in rows]


def children() -> set[int]:
    """Processes of this one that have not ended."""
    pids = (
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    )
    return set(pids)


@BOTH
def test_results_come_in_order_from_readers_that_are_gone_afterwards(forked: bool) -> None:
    before, threads = children(), threading.active_count()
    numbers = list(range(1000))

    with at_work(whose, numbers, numbers, most=16, forked=forked) as results:
        found = list(results)

    assert [value for value, _, _ in found] == [2 * number for number in numbers]
    assert max(rows for _, rows, _ in found) == 16
    assert (os.getpid() in {pid for _, _, pid in found}) is not forked
    assert (children(), threading.active_count()) == (before, threads)


def test_only_many_rows_of_small_files_go_to_processes() -> None:
    def are_forked(count: int, most: int) -> bool:
        with at_work(whose, range(count), range(count), most=most) as results:
            return os.getpid() not in {pid for _, _, pid in results}

    assert not are_forked(workers.FORKED_FROM - 1, 16)
    assert not are_forked(workers.FORKED_FROM, 1)
    assert are_forked(workers.FORKED_FROM, 16) is can_fork()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_platforms_that_spawn_use_threads(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    with at_work(whose, range(300), range(300), most=16) as results:
        assert {pid for _, _, pid in results} == {os.getpid()}


def test_a_system_without_semaphores_uses_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError("no /dev/shm")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", refuses)

    with at_work(whose, range(300), range(300), most=16) as results:
        assert {pid for _, _, pid in results} == {os.getpid()}


@BOTH
@pytest.mark.parametrize("error", [KeyError("40"), DataError("a.png", "damaged", "whole", "copy it")])
def test_a_fault_comes_out_as_it_was_raised_and_ends_the_work(
    forked: bool, error: Exception, tmp_path: Path
) -> None:
    def work(rows: list[tuple[int]]) -> list[int]:
        for (number,) in rows:
            (tmp_path / str(number)).touch()
            if number == 40:
                raise error
        return [number for (number,) in rows]

    with (
        pytest.raises(type(error)) as caught,
        at_work(work, range(2000), most=8, forked=forked) as results,
    ):
        list(results)

    assert caught.value.args == error.args
    assert len(list(tmp_path.iterdir())) < 150


@BOTH
def test_few_results_are_held_however_many_there_are(forked: bool, tmp_path: Path) -> None:
    def work(rows: list[tuple[int]]) -> list[int]:
        (tmp_path / str(rows[0][0])).touch()
        return [number for (number,) in rows]

    with at_work(work, range(5000), most=10, forked=forked) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        time.sleep(0.2)  # for what they would do ahead
        begun = len(list(tmp_path.iterdir()))

    assert begun <= 6
    assert len(list(tmp_path.iterdir())) <= 6


@needs_fork
def test_a_killed_reader_is_an_error_that_says_where() -> None:
    before = children()

    def work(rows: list[tuple[int]]) -> list[int]:
        if rows[0][0] == 320:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory is short
        return [number for (number,) in rows]

    with (
        pytest.raises(RunError, match=r"at one of the cases \d+ to \d+ of 1000") as caught,
        at_work(work, range(1000), most=32, forked=True) as results,
    ):
        list(results)

    found = re.search(r"cases (\d+) to (\d+)", caught.value.seen)
    assert found is not None
    assert int(found[1]) <= 321 <= int(found[2])
    assert "medxfer inspect" in caught.value.todo
    assert children() == before


_READS_FOR_EVER = """
import os, sys, time, torch
from medxfer.data.workers import at_work
def work(rows):
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(0.2)
    return [None for _ in rows]
with at_work(work, range(4000), most=1, forked=True) as results:
    try:
        for _ in results:
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
"""


@pytest.fixture
def reader() -> Iterator[subprocess.Popen[str]]:
    """A program that reads with two processes, in a group of its own as a terminal has it."""
    with subprocess.Popen(
        [sys.executable, "-c", _READS_FOR_EVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Ctrl-C is ignored by what runs in the background, and by what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as program:
        yield program
        program.kill()


def readers_of(program: subprocess.Popen[str]) -> set[int]:
    assert program.stdout is not None
    found: set[int] = set()
    while len(found) < 2:
        found.add(int(program.stdout.readline()))
    return found


def have_ended(pids: set[int]) -> bool:
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@needs_fork
def test_ctrl_c_ends_all_processes_and_only_the_program_says_so(reader: subprocess.Popen[str]) -> None:
    pids = readers_of(reader)

    os.killpg(reader.pid, signal.SIGINT)
    said, complained = reader.communicate(timeout=20)

    assert said.count("interrupted") == 1
    assert complained.count("Traceback") == 1
    assert complained.rstrip().endswith("KeyboardInterrupt")
    assert have_ended(pids)


@needs_fork
def test_readers_end_with_a_program_that_is_killed(reader: subprocess.Popen[str]) -> None:
    pids = readers_of(reader)

    reader.kill()

    assert have_ended(pids)


def test_pictures_go_many_at_once_and_large_files_and_folders_alone(tmp_path: Path) -> None:
    small, large, folder = tmp_path / "small", tmp_path / "large", tmp_path / "series"
    small.write_bytes(bytes(7000))
    with large.open("wb") as file:
        file.truncate(3 * 2**20)
    folder.mkdir()

    assert rows_at_once([(small,)] * 5000) == 64
    assert rows_at_once([(small,)] * 20) == 1
    assert rows_at_once([(small,)] * 5000 + [(large,)] * 5000) == 1
    assert rows_at_once([(folder,)] * 5000) == 1
    assert rows_at_once([(tmp_path / "absent",)] * 5000) == 64
    assert rows_at_once([]) == 1


@needs_fork
def test_processes_and_threads_make_the_same_cache_and_the_same_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    (root / "normal" / "n003.png").write_bytes(b"no picture")
    cases = find_cases(DataSpec(source=str(root)), root).cases
    seen = []
    forks = []
    monkeypatch.setattr(workers, "FORKED_FROM", 1)
    for name in ("cache_entry", "doctor"):
        monkeypatch.setattr(f"medxfer.data.{name}.rows_at_once", lambda _: 5)
    monkeypatch.setattr(
        workers, "_processes", lambda task, make=workers._processes: forks.append(1) or make(task)
    )

    for can in (False, True):
        monkeypatch.setattr(workers, "can_fork", lambda can=can: can)
        monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / f"home{can}"))
        steps = steps_of(ImagesSpec(size=32), 1)
        arrays = cache_arrays(cases, steps, "uint8", Progress(quiet=True), on_bad_image="skip")
        (entry,) = (tmp_path / f"home{can}" / "cache").iterdir()
        health = examine(root, Request(data=DataSpec(source=str(root)), steps=steps), Progress(quiet=True))
        seen.append(
            [
                [sha256_of(entry / name) for name in ("images.bin", "affines.npy", "entry.json")],
                [arrays.refused, arrays.cases, np.array(arrays.affines).tolist()],
                [health.to_plain(), [(look.case, look.content, look.preview) for look in health.looks]],
            ]
        )

    assert seen[0] == seen[1]
    assert len(forks) == 2
    assert len(seen[0][1][0]) == 1


def test_work_in_threads_keeps_order_and_holds_few_results() -> None:
    begun: list[int] = []
    results = in_order(lambda number: begun.append(number) or number, range(5000))

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(begun) < 200
    results.close()  # as Ctrl-C does
    assert len(begun) < 200
    assert list(in_order(pow, [2, 3, 4], [2, 2, 2])) == [4, 9, 16]
