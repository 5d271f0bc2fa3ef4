"""The text of the command line: every command, argument and option, as it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ecamp.cli import cli
from tests.gold import check_gold

GOLD = Path(__file__).parent / "gold"


def describe(command: click.Command, path: str, context: click.Context) -> Iterator[str]:
    """Describe a command and those below it; independent of how click wraps lines."""
    yield f"{path}\n  {' '.join((command.help or '').split())}"
    for parameter in command.params:
        names = ", ".join(parameter.opts) if isinstance(parameter, click.Option) else parameter.name
        text = parameter.help or "" if isinstance(parameter, click.Option) else ""
        kind = "flag" if getattr(parameter, "is_flag", False) else parameter.type.name
        if isinstance(parameter.type, click.Choice):
            kind = "|".join(parameter.type.choices)
        shown = getattr(parameter, "show_default", False)
        default = f" [{parameter.default}]" if shown and parameter.default is not None else ""
        yield f"  {names} <{kind}> {text}{default}".rstrip()
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from describe(below, f"{path} {name}", context)


def test_the_text_of_every_command() -> None:
    lines = describe(cli, "ecamp", click.Context(cli))
    check_gold(GOLD / "commands.txt", "\n".join(lines))
