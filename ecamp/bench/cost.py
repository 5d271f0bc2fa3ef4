"""What cells cost: a budget, and the times measured in a run folder. No torch."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ecamp.errors import UsageError

if TYPE_CHECKING:
    from ecamp.bench.plan import Cell
    from ecamp.bench.pretraining import Pretraining

UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `1.5h` in seconds.

    Raises:
        UsageError: Anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"--budget '{text}' is no duration.", "Write 90s, 30m or 1.5h.")
    return float(match[1]) * UNITS[match[2]]


def cell_kind(cell: Cell) -> str:
    """Cells that take about as long as one another, features apart."""
    if cell.floor:
        return f"floor {cell.task} {cell.floor} {cell.dataset}"
    return f"{cell.task} {cell.protocol} {cell.dataset} {cell.encoder}"


def feature_kind(cell: Cell) -> str:
    """Features that take about as long as one another."""
    return f"features {cell.dataset} {cell.encoder}"


def pretrain_kind(plan: Pretraining) -> str:
    """Pre-trainings that take about as long as one another."""
    return f"pretrain {plan.encoder} {plan.label}"


class Timings:
    """Measured seconds by kind."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @classmethod
    def of_run(cls, path: Path) -> Timings:
        """What the `run.json` files of a run folder tell; damaged ones tell nothing."""
        timings = cls()
        for file in sorted((*path.glob("cells/*/run.json"), *path.glob("pretrain/*/run.json"))):
            try:
                told = json.loads(file.read_text(encoding="utf-8"))
                for kind, seconds in dict(told["timings"]).items():
                    timings.add(str(kind), float(seconds))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return timings

    def add(self, kind: str, seconds: float) -> None:
        """Note a measurement."""
        self._seconds[kind].append(seconds)

    def expected(self, kind: str) -> float | None:
        """Mean of a kind; None when none was measured."""
        seconds = self._seconds.get(kind)
        return sum(seconds) / len(seconds) if seconds else None


class OutOfTime(Exception):
    """The budget does not allow what comes next."""


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
