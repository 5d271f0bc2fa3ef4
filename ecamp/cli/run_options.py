"""Options of the commands that execute a plan, as one typed value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

Format = Literal["table", "json", "csv", "md"]


@dataclass(frozen=True)
class RunOptions:
    """How a plan is executed and shown.

    Attributes:
        run_path: Run folder.
        cache: Folder of decoded images, features and weights; the user's cache without one.
        budget: Time in which cells may be started, as the user wrote it.
        dry_run: Show the plan and its estimated cost only.
        no_estimate: Do not measure for the estimate.
        form: Format of the summary on stdout.
    """

    run_path: Path
    cache: Path | None
    budget: str | None
    dry_run: bool
    no_estimate: bool
    form: Format


def run_options(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a run, passed on as its first argument.

    Args:
        default: Run folder without `--run`.
    """
    names = [field.name for field in fields(RunOptions)]
    options = [
        click.option("--run", "run_path", type=click.Path(path_type=Path), default=Path(default),
                     show_default=True, help="run folder; an interrupted run resumes"),
        click.option("--cache", type=click.Path(path_type=Path),
                     help="folder of decoded images, features and weights"),
        click.option("--budget", metavar="TIME",
                     help="start no cell that would end later: 90s, 30m, 2h"),
        click.option("--dry-run", is_flag=True,
                     help="show the cells and their estimated cost; run none"),
        click.option("--no-estimate", is_flag=True,
                     help="with --dry-run: only the cells, nothing measured"),
        click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv", "md"]),
                     default="table", show_default=True, help="format of the summary"),
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(**values: Any) -> None:
            command(RunOptions(**{name: values.pop(name) for name in names}), **values)

        decorated: Callable[..., None] = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
