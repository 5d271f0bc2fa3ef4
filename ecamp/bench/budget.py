"""Time budget of a run, and the times measured in its folder. Imports no torch."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ecamp.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Read `90s`, `30m` or `1.5h` as seconds.

    Raises:
        UsageError: Anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"--budget '{text}' is not a duration.", "Write 90s, 30m or 1.5h.")
    return float(match[1]) * UNITS[match[2]]


class Timings:
    """Measured seconds by kind."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @classmethod
    def of_run(cls, path: Path) -> Timings:
        """Read the times in the `run.json` files of a run folder; damaged files are passed over."""
        timings = cls()
        for file in sorted((*path.glob("cells/*/run.json"), *path.glob("pretrain/*/run.json"))):
            try:
                run_info = json.loads(file.read_text(encoding="utf-8"))
                for kind, seconds in dict(run_info["timings"]).items():
                    timings.add(str(kind), float(seconds))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return timings

    def add(self, kind: str, seconds: float) -> None:
        """Add a measurement."""
        self._seconds[kind].append(seconds)

    def expected(self, kind: str) -> float | None:
        """Return the mean of a kind; None when none was measured."""
        seconds = self._seconds.get(kind)
        return sum(seconds) / len(seconds) if seconds else None


class OutOfTime(Exception):
    """Signal that the budget does not allow the next piece of work."""


class Budget:
    """Time that a command may start work in.

    Args:
        seconds: None for no limit.
        clock: Seconds that never go back.
    """

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds, self._clock, self._began = seconds, clock, clock()

    def check(self, timings: Timings, kind: str) -> None:
        """Pass when work of a kind may be started.

        A kind that was never measured counts as nothing: something has to be started once.

        Raises:
            OutOfTime: The time is spent, or the expected time does not fit.
        """
        if self.seconds is None:
            return
        left = self.seconds - (self._clock() - self._began)
        expected = timings.expected(kind) or 0.0
        if left <= 0:
            raise OutOfTime("the budget is spent")
        if expected > left:
            raise OutOfTime(
                f"{kind} takes about {expected:.0f} s, the budget has {left:.0f} s left"
            )
