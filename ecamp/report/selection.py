"""Selections of cells of a run: `RUN` or `RUN:pretext=ecamp,fraction=0.1`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecamp.bench.cell_result import CellFields
from ecamp.errors import MissingError, UsageError, did_you_mean

KEYS = ("dataset", "task", "encoder", "pretext", "protocol", "fraction", "seed")


@dataclass(frozen=True)
class Selection:
    """A run folder and the values that its cells must have."""

    run: Path
    wanted: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read `RUN[:key=value,...]`.

        Raises:
            UsageError: No such key. MissingError: No run there.
        """
        path, wanted = Path(text), {}
        if not (path / "cells").is_dir() and ":" in text:
            head, tail = text.rsplit(":", 1)
            path = Path(head)
            for part in tail.split(","):
                key, equals, value = part.partition("=")
                if key not in KEYS or not equals:
                    raise UsageError(
                        f"{text}: '{part}' selects nothing.",
                        f"Write RUN:key=value,...; {did_you_mean(key, KEYS)}",
                    )
                wanted[key] = value
        if not (path / "cells").is_dir():
            raise MissingError(
                f"{path}: not a run folder (it has no cells).", "Name the folder given to --run."
            )
        return cls(path, wanted)

    def __str__(self) -> str:
        rest = ",".join(f"{key}={value}" for key, value in self.wanted.items())
        return f"{self.run}:{rest}" if rest else str(self.run)

    def holds(self, cell: CellFields) -> bool:
        """Tell whether a cell is selected."""
        return all(_equal(getattr(cell, key), value) for key, value in self.wanted.items())


def _equal(have: Any, wanted: str) -> bool:
    if isinstance(have, float | int):
        try:
            return float(have) == float(wanted)
        except ValueError:
            return False
    return str(have) == wanted
