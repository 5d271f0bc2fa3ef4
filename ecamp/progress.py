"""How work that counts tells how far it is. Why: docs/decisions.md#logging-and-progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listener to work that counts."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Hear how far the work is.

        Args:
            done: Items done; the first call of a work says how many were done before it.
            total: All items; None where nobody knows.
            note: What is counted, and what else there is to know: `steps, loss 0.693`.
        """


def no_progress(done: int, total: int | None, note: str = "") -> None:
    """Tell nobody: the default."""
