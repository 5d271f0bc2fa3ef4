"""Errors that a user can act on. The command line prints them; it never shows a traceback for one.

Exit codes (docs/index.md): 0 ok, 1 error, 2 usage, 3 some cells failed or are left, 4 missing data
or plugin, 5 threshold not met, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EcampError(Exception):
    """An error that a user can correct.

    Args:
        message: The problem, naming the file, row, field or plugin.
        hint: The next thing to do.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(EcampError):
    """The request itself makes no sense (unknown option, impossible pair, bad recipe)."""

    exit_code = 2


class MissingError(EcampError):
    """A data set, file or plugin that the request needs is missing."""

    exit_code = 4


class DataError(EcampError):
    """The data are there, but wrong: names the file, the row and the field."""


class PluginError(EcampError):
    """A plugin of another package fails: names it, its package and the method."""


class CorruptFileError(EcampError):
    """A file that ecamp wrote cannot be read; its content can be computed again."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `Did you mean 'x'? Known: a, b.` for an unknown word (only `Known:` without a match)."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    start = f"Did you mean '{close[0]}'? " if close else ""
    return f"{start}Known: {', '.join(names) or 'none'}."
