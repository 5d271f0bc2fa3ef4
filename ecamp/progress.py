"""Progress of countable work. Why: docs/decisions.md#logging-and-progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receiver of the progress of countable work: images, steps, reports."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Receive the number of finished items.

        Args:
            done: Finished items; the first call gives how many were finished before this run.
            total: All items; None when unknown.
            note: Unit and further values: `steps, loss 0.693`.
        """


def no_progress(done: int, total: int | None, note: str = "") -> None:
    """Ignore progress: the default."""
