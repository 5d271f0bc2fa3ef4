"""Many at work, results in order, whatever fails or takes long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.distill.llm.ordered_map import ordered_map


def session(work: Callable[[int], Awaitable[int]]) -> Callable[[], object]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Callable[[int], Awaitable[int]]]:
        yield work

    return opened


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9), st.integers(1, 20))
def test_as_a_plain_loop(delays: list[int], workers: int, window: int) -> None:
    busy = most = 0

    async def work(item: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(delays[item] / 1000)
        busy -= 1
        return item * item

    got = list(ordered_map(range(len(delays)), session(work), workers, window))
    assert got == [item * item for item in range(len(delays))]
    assert most <= min(workers, max(window, 1))


def test_all_workers_work_on_a_source_that_halts() -> None:
    """Items come in bursts with pauses between, so that workers fall asleep and are woken again."""
    busy = most = 0

    async def work(item: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        return item

    peaks = []

    def source() -> Iterator[int]:
        nonlocal most
        for burst in range(12):
            yield from range(burst * 8, burst * 8 + 8)
            time.sleep(0.05 + random.random() / 100)
            peaks.append(most)
            most = 0

    assert list(ordered_map(source(), session(work), 8, 100)) == list(range(96))
    assert sum(peak == 8 for peak in peaks) >= 6, peaks


def test_an_error_is_raised_in_its_place() -> None:
    async def work(item: int) -> int:
        await asyncio.sleep((5 - item) / 100)
        if item == 3:
            raise ValueError("three")
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="three"):
        seen.extend(ordered_map(range(9), session(work), 9, 9))
    assert seen == [0, 1, 2]


def test_a_session_that_cannot_open() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Callable[[int], Awaitable[int]]]:
        raise OSError("no session")
        yield  # pragma: no cover

    with pytest.raises(OSError, match="no session"):
        list(ordered_map(range(3), opened, 2, 2))


def test_within_a_running_loop() -> None:
    async def work(item: int) -> int:
        return item

    async def main() -> list[int]:
        return list(ordered_map(range(5), session(work), 2, 4))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
