"""Reports, a distiller and scripts of the fake endpoint, for the tests of `llm`."""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ecamp.api.distiller import Distilled, Report, Section
from ecamp.distill.llm import LLMDistiller
from tests.distill.fake_server import FakeServer, Script, Turn

SAID = {"entity": "effusion", "polarity": "present", "evidence": "effusion", "descriptors": []}
GOOD = json.dumps({"statements": [SAID]})


def one(number: int, text: str = "Small effusion, case {}.") -> Report:
    text = text.format(number)
    return Report(str(number), text, (Section("", 0, len(text)),))


def good(report: str) -> str:
    return GOOD


def make(folder: Path, url: str, **options: Any) -> LLMDistiller:
    values = {"model": "m", "cache": str(folder), "backoff": 0.01, "endpoint": url, **options}
    return LLMDistiller(LLMDistiller.Config(**values))


def run(
    folder: Path, server: FakeServer, reports: Iterable[Report], **options: Any
) -> tuple[list[Distilled], dict[str, int]]:
    distiller = make(folder, server.url, **options)
    return list(distiller.distill(reports)), dict(distiller.counts())


def wait_until(what: Callable[[], bool], seconds: float = 300) -> None:
    """Poll; the limit is far beyond what a busy machine needs."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.01)


class LeapingClock:
    """Time of event loops that leaps on request: a time-out of an hour passes at once, and only then."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._loops: set[asyncio.AbstractEventLoop] = set()

    def time(self, loop: asyncio.AbstractEventLoop) -> float:
        """In place of the loop's own."""
        self._loops.add(loop)
        return time.monotonic() + self._ahead

    def leap(self, seconds: float = 3600.0) -> None:
        """Wake every loop that much later."""
        self._ahead += seconds
        for loop in list(self._loops):
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that does not sleep: where it would wait, its clock has moved on."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(selectors.DefaultSelector())
        plain = self._selector.select

        def select(timeout: float | None = None) -> list[Any]:
            assert timeout is not None, "nothing is left that could happen"
            self._seconds += timeout
            return plain(0)

        self._selector.select = select

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._seconds


def always(turn: Turn) -> Script:
    return lambda report, time: turn


def first(turn: Turn) -> Script:
    """Script a turn for the first request of each report."""
    return lambda report, time: turn if time == 1 else Turn()


def where(mark: str, turn: Turn) -> Script:
    """Script a turn for the reports that contain a mark."""
    return lambda report, time: turn if mark in report else Turn()


def found(row: Distilled) -> list[tuple[str, int, int]]:
    return [(s.entity, s.start, s.end) for s in row.statements]
