"""Many at work, results in order, whatever fails or takes long."""

from __future__ import annotations

import asyncio
import threading
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
    """Each burst of eight ends when all eight workers are at work together; then they fall asleep.

    A worker that is not woken again leaves the others waiting for good.
    """
    workers, bursts = 8, 12
    together: list[asyncio.Barrier] = []
    finished = threading.Semaphore(0)

    async def work(item: int) -> int:
        if not together:
            together.append(asyncio.Barrier(workers))
        async with asyncio.timeout(300):
            await together[0].wait()
        finished.release()
        return item

    def source() -> Iterator[int]:
        for burst in range(bursts):
            for k in range(workers):
                yield burst * workers + k
            for _ in range(workers):
                finished.acquire()

    assert list(ordered_map(source(), session(work), workers, 100)) == list(range(workers * bursts))


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
