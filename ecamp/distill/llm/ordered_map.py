"""Many things at work at a time, results in order: asyncio inside, an iterator outside."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Awaitable[Result]]
Session = Callable[[], AbstractAsyncContextManager[Work[Item, Result]]]

# Seconds between deliveries. Each wakes the caller's thread, which then competes with the loop for the
# interpreter: woken for each result, 1,000 a second cost a tenth of the throughput.
_DELIVERY = 0.005


def in_order(
    items: Iterable[Item], session: Session[Item, Result], workers: int, window: int
) -> Iterator[Result]:  # fmt: skip
    """Apply an async function to items, `workers` at a time; at most `window` are held.

    The event loop has a thread of its own: it goes on while the caller reads its source or writes
    results, and the caller may have a loop itself. Where the source fails, what was begun is yielded
    before the error is raised. Ending the iteration early cancels what is at work.

    Args:
        session: What the loop enters first, giving the function.
    """
    line = _Line(session, workers)
    source, trouble = iter(items), None
    held, ended = 0, False
    try:
        while held or not ended:
            if line.outbox:
                outcome = line.outbox.popleft()
                held -= 1
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.result  # type: ignore[misc]
            elif ended or held >= window:
                line.wait()
            else:
                try:
                    line.feed(next(source))
                    held += 1
                except StopIteration:
                    ended = True
                except Exception as error:
                    ended, trouble = True, error
        if trouble is not None:
            raise trouble
    finally:
        line.close()


@dataclass
class _Outcome(Generic[Result]):
    result: Result | None = None
    error: Exception | None = None


class _Line(Generic[Item, Result]):
    """The loop's thread and what passes between it and the caller's.

    Each of the two deques has one thread that appends and one that takes, so they need no lock.
    """

    def __init__(self, session: Session[Item, Result], workers: int) -> None:
        self.outbox: deque[_Outcome[Result]] = deque()
        self._inbox: deque[tuple[int, Item]] = deque()
        self._finished: dict[int, _Outcome[Result]] = {}
        self._fed = self._given = 0  # items in, results out
        self._hungry = self._due = False
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._stop, self._food = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(session, workers), name="ecamp-distill", daemon=True
        )
        self._thread.start()

    # --- the caller's thread ---

    def feed(self, item: Item) -> None:
        """Hand in an item."""
        self._inbox.append((self._fed, item))
        self._fed += 1
        if self._hungry:
            self._hungry = False
            self._loop.call_soon_threadsafe(self._food.set)

    def wait(self) -> None:
        """Wait for results; raises what went wrong with the session."""
        self._ready.wait()
        self._ready.clear()
        if self._failure is not None and not self.outbox:
            raise self._failure

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    # --- the loop's thread ---

    def _run(self, session: Session[Item, Result], workers: int) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._live(session, workers))

    async def _live(self, session: Session[Item, Result], workers: int) -> None:
        try:
            async with session() as work:
                tasks = [asyncio.create_task(self._worker(work)) for _ in range(workers)]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except Exception as error:
            self._failure = error
            self._ready.set()
            await self._stop.wait()

    async def _worker(self, work: Work[Item, Result]) -> None:
        while True:
            while not self._inbox:
                self._food.clear()
                self._hungry = True
                if not self._inbox:  # it may have been fed just before it said so
                    await self._food.wait()
            number, item = self._inbox.popleft()
            try:
                self._finished[number] = _Outcome(await work(item))
            except Exception as error:
                self._finished[number] = _Outcome(error=error)
            if not self._due and self._given in self._finished:
                self._due = True
                self._loop.call_later(_DELIVERY, self._deliver)

    def _deliver(self) -> None:
        self._due = False
        while (outcome := self._finished.pop(self._given, None)) is not None:
            self.outbox.append(outcome)
            self._given += 1
        self._ready.set()
