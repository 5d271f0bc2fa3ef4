"""Every command, and every option of it, is on a page of the docs that names the command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ecamp.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [(ROOT / "README.md"), *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [" ".join(page.read_text(encoding="utf-8").split()) for page in PAGES]


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, f"{path} {name}")


COMMANDS = dict(_commands(cli, "ecamp"))


def _undocumented(path: str, command: click.Command, texts: list[str]) -> list[str]:
    """Options that are on no page with the command; the command itself, where none has it."""
    named = [text for text in texts if re.search(rf"{re.escape(path)}(?![\w-])", text)]
    if not named:
        return [path]
    missing = []
    for option in command.params:
        if isinstance(option, click.Option):
            spellings = [*option.opts, *option.secondary_opts]
            found = rf"(?<![\w-])({'|'.join(map(re.escape, spellings))})(?![\w-])"
            if not any(re.search(found, text) for text in named):
                missing.append(f"{path} {spellings[-1]}")
    return missing


def test_the_search_tells_what_is_missing() -> None:
    @click.command()
    @click.option("--there")
    @click.option("--not-there")
    def command() -> None: ...

    texts = ["ecamp odd --there", "ecamp other --not-there", "ecamp odd-ones"]
    assert _undocumented("ecamp odd", command, texts) == ["ecamp odd --not-there"]
    assert _undocumented("ecamp od", command, texts) == ["ecamp od"]


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_its_options_are_on_a_page(path: str) -> None:
    missing = _undocumented(path, COMMANDS[path], TEXTS)
    assert not missing, f"on no page of docs/ that names the command: {missing}"
