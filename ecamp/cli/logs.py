"""Log lines on stderr: progress of a command, what it found, what it could not use.

Why: docs/decisions.md#logging-and-progress.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger(__name__)


class StderrHandler(logging.Handler):
    """Writer of records to stderr, to the letter, after the seconds since the command began.

    A line is neither wrapped nor read for markup. On a terminal warnings are coloured.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._began = clock, clock()

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console  # late: most commands log nothing

        return Console(stderr=True)

    def format(self, record: logging.LogRecord) -> str:
        """Put the seconds before the message."""
        return f"{self._clock() - self._began:6.0f}s  {super().format(record)}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record.

        Raises:
            BrokenPipeError: The reader went away; the command ends as for every other line.
        """
        from rich.segment import Segment, Segments
        from rich.style import Style

        style = Style(color="yellow") if record.levelno >= logging.WARNING else None
        line = Segments([Segment(self.format(record), style), Segment.line()])
        try:
            self._console.print(line, end="", crop=False, soft_wrap=True)
        except SystemExit as gone:  # as rich answers a reader that went away
            raise BrokenPipeError from gone


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show what `ecamp` logs, from `info` on, within the block; other packages are left alone."""
    logger, handler = logging.getLogger("ecamp"), StderrHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class LoggedProgress:
    """Progress as log lines: per tenth, at most one per second, at least one per 30 s, and the last.

    One instance serves several pieces of work, one after another.
    """

    TENTHS, SHORTEST, LONGEST = 10, 1.0, 30.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: int | None = None
        self._total: int | None = None

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Log a line where one is due."""
        now, tenth = self._clock(), self.TENTHS * done // total if total else 0
        if self._done is None or done <= self._done or total != self._total:  # other work begins
            self._first, self._began = done, now
            self._done, self._total, self._tenth, self._shown = done, total, tenth, now
            return
        self._done, waited = done, now - self._shown
        next_tenth = tenth > self._tenth and waited >= self.SHORTEST
        if not (next_tenth or waited >= self.LONGEST or done == total):
            return
        self._tenth, self._shown = tenth, now
        if total is None:
            speed = (done - self._first) / max(now - self._began, 1e-9)
            _log.info("%s", f"{done:,} {note}, {speed:.0f}/s")
        else:
            _log.info("%s", f"{done:,} of {total:,} {note}")
