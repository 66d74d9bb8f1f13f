"""The repository: no paths of one machine, no large files, and the commands that the README promises."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.guards.source import REPOSITORY, name_of

LARGEST_KIB = 1024  # only packaged weights may be larger, and none is in the repository now
MACHINE_PATHS = re.compile(r"(?<![\w.~:$)}-])/(?:work|home/\w+|root|Users/\w+|mnt|scratch)/\w")


def kept_files() -> list[Path]:
    """Files that git keeps or would keep; outside a checkout there is nothing to look at."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: the list of kept files is unknown")
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_is_large() -> None:
    large = {name_of(path): path.stat().st_size // 1024 for path in kept_files()}

    assert not {name: size for name, size in large.items() if size > LARGEST_KIB}


def test_no_text_holds_a_path_of_one_machine() -> None:
    found = []
    for path in kept_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}: {hit[0]}" for hit in MACHINE_PATHS.finditer(text)]

    assert not found, "\n".join(found)


def test_no_mark_of_an_open_end_without_an_issue() -> None:
    words = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!.*#\d)")

    found = [
        f"{name_of(path)}:{number}"
        for path in kept_files()
        if path.suffix in (".py", ".yaml", ".toml", ".md")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line)
    ]

    assert not found, found


def test_what_lands_is_checked_by_the_commands_of_the_readme() -> None:
    script = REPOSITORY / ".ci" / "run"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = re.findall(
        r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )

    assert os.access(script, os.X_OK)
    for command in ("make test", "make check"):
        assert command in script.read_text(encoding="utf-8")
    assert {"run", "test", "check", "clean"} <= set(targets)
    assert "make run" in readme
    assert "make test" in readme


def test_make_targets_stay_short() -> None:
    recipes = re.split(r"^\S", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert max(recipe.count("\n\t") for recipe in recipes) < 6


@pytest.mark.parametrize(
    "page", sorted(REPOSITORY.glob("*.md")) + sorted((REPOSITORY / "docs").glob("*.md")), ids=name_of
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert not broken, f"{name_of(page)} points to {broken}"
