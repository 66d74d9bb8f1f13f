"""The command line: parse, call one function, print. Heavy parts are imported inside the commands."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import click

from .. import __version__
from ..errors import MedxferError
from . import after, create, doctor, encoders, inspect, look, plugins, run

ABOUT = """Transfer learning in medical imaging: from a folder of images to a measured, explained, portable model.

\b
medxfer run bundles/pneumonia_cls              the main job, on built-in synthetic data
medxfer run bundles/pneumonia_cls --data DIR   the same on your images
medxfer init mine --data DIR                   a bundle for your own question
"""


@click.group(help=ABOUT, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="medxfer")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def medxfer(debug: bool) -> None:
    """Commands of medxfer; `main` reads --debug, which is understood wherever it stands."""


for group in (run, create, inspect, after, encoders, plugins, doctor, look):
    for command in group.COMMANDS:
        medxfer.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code (DESIGN: 0, 1, 2, 3, 4, 5 or 130)."""
    try:
        _run(arguments)
    except KeyboardInterrupt:  # while an error was being told, or another interrupt
        _fail("interrupted", 130)


def _run(arguments: list[str] | None) -> None:
    # Before torch: threads that spin while they wait make a step 7 times slower as soon as another process wants
    # a core (docs/decisions.md), and cost nothing measurable when none does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    # `--debug` is understood wherever it stands.
    given = (["--debug"] if debug else []) + [word for word in given if word != "--debug"]
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
    try:
        code = medxfer.main(args=given, prog_name="medxfer", standalone_mode=False)
        _leave(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except MedxferError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): not an error of ours, and stdout cannot be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        todo = "run the same command with --debug and report what it shows"
        _fail(f"a defect of medxfer\n  seen:     {text}\n  do:       {todo}", 1)


def _interrupt(_number: int, _frame: FrameType | None) -> Any:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: resumable, exit code 130."""
    raise KeyboardInterrupt


def _fail(text: str, code: int) -> None:
    sys.stderr.write(f"{text}\n")
    _leave(code)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.exit(code)
