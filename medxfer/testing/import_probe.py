"""What importing a plugin does besides: looked at in a fresh process, once a distribution.

`python -m medxfer.testing.import_probe MODULE... --to FILE` imports the modules in turn and writes what it saw.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_STANDARD = sysconfig.get_path("stdlib")
_CODE = {".py", ".pyc", ".so", ".pyd"}


@functools.cache
def side_effects(modules: tuple[str, ...], path: tuple[str, ...]) -> dict[str, list[str]]:
    """Import modules in a fresh process and tell what else happened.

    Args:
        modules: Dotted names.
        path: `sys.path` of that process.

    Returns:
        Module -> sentences; an empty list is a clean import.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "effects.json"
        done = subprocess.run(
            [sys.executable, "-m", "medxfer.testing.import_probe", *modules, "--to", str(answer)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in path if one)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return {module: [f"importing it ended the process: {last}"] for module in modules}
        found: dict[str, list[str]] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def _probe(modules: list[str]) -> dict[str, list[str]]:
    """Sentences for each module, looked at from inside the fresh process."""
    from medxfer.encoders.registry import list_encoders

    list_encoders()
    early = {name for name in modules if {name, _top(name)} - {"medxfer"} & set(sys.modules)}
    effects = {name: _of_import(name) for name in modules}
    for name in early:
        effects[name].append(f"`{name}` was imported by listing: the card must be found without it")
    return effects


def _top(module: str) -> str:
    return module.partition(".")[0]


def _of_import(module: str) -> list[str]:
    """Import one module, watched."""
    place = _folder_of(module)
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event in ("open", "socket.connect", "socket.getaddrinfo"):
            seen = _reached(event, arguments, place)
            if seen and seen not in opened:
                opened.append(seen)

    before = _state()
    sys.addaudithook(watch)
    problem = ""
    with warnings.catch_warnings(record=True) as warned:
        printed, problem = _captured(lambda: importlib.import_module(module))
    watching[0] = False
    effects = [problem] if problem else []
    if printed.strip():
        effects.append(f"printed {printed.strip().splitlines()[0][:80]!r}; print nothing on import")
    effects += [f"warned `{one.message}`; warn when it is built, or mend the cause" for one in warned]
    for name, value in _state().items():
        if value != before[name]:
            effects.append(f"changed {name}; move the call into `build`")
    return effects + [f"{seen} while being imported; do it in `build`" for seen in opened]


def _state() -> dict[str, Any]:
    """The global settings that an import has to leave alone."""
    import random

    import numpy as np
    import torch

    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "Python's random state": random.getstate(),
        "NumPy's random state": [str(one) for one in np.random.get_state()],  # noqa: NPY002
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuDNN's benchmark mode": torch.backends.cudnn.benchmark,
        "torch's float32 matrix product": torch.get_float32_matmul_precision(),
    }


def _captured(action: Callable[[], object]) -> tuple[str, str]:
    """What the action wrote to the two standard streams, from C as well, and how it failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    problem = ""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            action()
        except BaseException as error:  # SystemExit, too: an import must not end the process
            problem = f"cannot be imported: {type(error).__name__}: {error}"
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in enumerate(kept, start=1):
                os.dup2(handle, number)
                os.close(handle)
        file.seek(0)
        return file.read().decode(errors="replace"), problem


def _folder_of(module: str) -> str:
    """Where the top-level package of a module lies."""
    spec = importlib.util.find_spec(_top(module))
    places = list(spec.submodule_search_locations or ()) if spec else []
    return places[0] if places else (spec.origin if spec and spec.origin else "")


def _reached(event: str, arguments: tuple[Any, ...], place: str) -> str:
    """In words what was opened, or nothing where that is Python at work or another library's business."""
    if event == "socket.connect":
        return f"connected to {arguments[1]!r}"
    if event == "socket.getaddrinfo":
        return f"looked up {arguments[0]!r}"
    name, mode, flags = arguments
    if not isinstance(name, str | bytes) or os.fsdecode(name) == os.devnull:
        return ""
    path = Path(os.fsdecode(name))
    if path.suffix in _CODE or "__pycache__" in path.parts or path.is_dir():
        return ""
    if not _asked_by(place, sys._getframe(1)):
        return ""
    writes = any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))
    return f"{'wrote' if writes else 'opened'} the file {path.name}"


def _asked_by(place: str, frame: FrameType | None) -> bool:
    """Whether the first caller outside the standard library and this file is code of that package."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(("<frozen", _STANDARD + os.sep)):
            return file.startswith(place)
        if file.startswith(_STANDARD) and "site-packages" in file:  # below the standard library's folder
            return file.startswith(place)
        frame = frame.f_back
    return False


def main(arguments: list[str]) -> None:
    """Write what was seen as JSON."""
    *modules, _, target = arguments
    effects = _probe(modules)
    from medxfer.files import write_json

    write_json(Path(target), effects)


if __name__ == "__main__":
    main(sys.argv[1:])
