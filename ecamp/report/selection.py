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
    values: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read `RUN[:key=value,...]`.

        Raises:
            UsageError: Unknown key. MissingError: Not a run folder.
        """
        path, values = Path(text), {}
        if not (path / "cells").is_dir() and ":" in text:
            head, tail = text.rsplit(":", 1)
            path = Path(head)
            for part in tail.split(","):
                key, equals, value = part.partition("=")
                if key not in KEYS or not equals:
                    raise UsageError(
                        f"{text}: '{part}' is not a selection.",
                        f"Write RUN:key=value,...; {did_you_mean(key, KEYS)}",
                    )
                values[key] = value
        if not (path / "cells").is_dir():
            raise MissingError(
                f"{path}: not a run folder (it has no cells).", "Name the folder given to --run."
            )
        return cls(path, values)

    def __str__(self) -> str:
        rest = ",".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.run}:{rest}" if rest else str(self.run)

    def includes(self, cell: CellFields) -> bool:
        """Whether a cell is selected."""
        return all(_equal(getattr(cell, key), value) for key, value in self.values.items())


def _equal(actual: Any, text: str) -> bool:
    if isinstance(actual, float | int):
        try:
            return float(actual) == float(text)
        except ValueError:
            return False
    return str(actual) == text
