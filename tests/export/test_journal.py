"""Resumable runs: nothing done twice, bad items tried again, an interruption loses one chunk at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecamp.export.journal import CHUNK, Outcome, run_resumable


@dataclass(frozen=True)
class Square:
    """One line of the journal."""

    name: str
    value: int


class Interrupted(Exception):
    """A run that is killed."""


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    items = {f"{k:03}": k for k in range(3 * CHUNK)}
    calls: list[int] = []
    stop_at, bad = 2 * CHUNK, {5}

    def work(values: Sequence[int]) -> list[Square | str]:
        calls.extend(values)
        if stop_at in values:
            raise Interrupted
        return [f"{v} is bad" if v in bad else Square(f"{v:03}", v * v) for v in values]

    def run() -> Outcome[Square]:
        return run_resumable(
            items, work, tmp_path / "journal.jsonl", Square,
            key=lambda row: row.name, is_done=lambda row: row.value != 9, workers=1,
        )  # fmt: skip

    with pytest.raises(Interrupted):
        run()
    calls.clear()
    stop_at = -1
    outcome = run()
    # The first two chunks are kept, except the bad item and the one whose result is gone.
    assert calls == [3, 5, *range(2 * CHUNK, 3 * CHUNK)]
    assert (outcome.new, outcome.bad) == (CHUNK + 1, ("5 is bad",))
    assert [row.name for row in outcome.rows] == [name for name in items if name != "005"]
    bad.clear()
    calls.clear()
    assert run().new == 2
    assert calls == [3, 5]
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len(items)
    assert lines == sorted(lines)
    assert run_resumable(
        {}, work, tmp_path / "none.jsonl", Square, key=lambda row: row.name,
        is_done=lambda row: True, workers=1,
    ) == Outcome((), 0, ())  # fmt: skip
    assert not (tmp_path / "none.jsonl").exists()
