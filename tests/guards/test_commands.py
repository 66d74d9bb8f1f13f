"""Every command and option is explained, stands in the guide, and every command line in the guide exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from medxfer.cli import medxfer as tree
from tests.guards.source import REPOSITORY, name_of

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES += sorted((REPOSITORY / "bundles").glob("*/docs/README.md")) + sorted(
    (REPOSITORY / "plugins").glob("*/README.md")
)


def commands(
    group: click.Group, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the tree that does something, with the words that call it."""
    context = click.Context(group, info_name="medxfer")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"`{name}` is listed and not there"
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


COMMANDS = dict(commands(tree))


def lines_of(page: Path) -> list[str]:
    """Command lines of a page: lines of code blocks, and code in the text, that begin with `medxfer`."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```[a-z]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    starts = ("medxfer ", "$ medxfer ", ".venv/bin/medxfer ", "$ .venv/bin/medxfer ")
    return [line.strip() for line in lines if line.strip().startswith(starts)]


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_command_and_options_have_help(names: tuple[str, ...]) -> None:
    command = COMMANDS[names]

    assert command.help, f"medxfer {' '.join(names)} has no help"
    bare = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert not bare, f"medxfer {' '.join(names)}: options {bare} have no help"


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_command_stands_in_the_readme_or_the_guide(names: tuple[str, ...]) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert f"medxfer {' '.join(names)}" in text, f"no page tells of `medxfer {' '.join(names)}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_of_the_page_exist(page: Path) -> None:
    for line in lines_of(page):
        words = shlex.split(line.removeprefix("$ "), comments=True)[1:]
        if words and words[0].startswith("-"):
            check_options(tree, words, line)
            continue
        command: click.Command = tree
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, f"{name_of(page)}: no such command: {line}"
            command, words = found, words[1:]
        check_options(command, words, line)


def check_options(command: click.Command, words: list[str], line: str) -> None:
    """Fail when a word that looks like an option is none of the command's, or lacks its value."""
    try:
        command.make_parser(click.Context(command)).parse_args(list(words))
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")
