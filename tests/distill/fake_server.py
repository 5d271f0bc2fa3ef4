"""A chat endpoint for tests: latency and faults by script, every request counted by its report.

In a thread of the test, or as a process of its own: `python fake_server.py LATENCY [JITTER]` prints its port.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # linger 0 s: closing sends a reset


@dataclass(frozen=True)
class Turn:
    """Action of the server on one request.

    Attributes:
        delay: Seconds before the answer.
        body: Sent as it stands instead of an answer.
        finish: Why the model stopped: `stop`, `length`.
        after: Requests that must have come, this one among them, before it is answered.
        fault: `reset`, `half` (closed in mid body), `drip` (a byte each 50 ms), `hang` (no answer), or
            `hold` (nothing before `release()`).
    """

    delay: float = 0.0
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    finish: str = "stop"
    after: int = 0
    fault: str = ""


Script = Callable[[str, int], Turn]  # (report, how often it was asked, from 1)


def no_statements(report: str) -> str:
    """Return the answer of a model that finds nothing."""
    return '{"statements": []}'


@dataclass
class FakeServer:
    """An endpoint on a free port of the loopback.

    Attributes:
        answer: Report text -> content of the model's message.
        script: Action for each request; answers at once without one.
        asked: Requests by report text.
        answered: Whole answers of status 200 that were written, by report text.
        bodies, heads, times: Received requests, and when.
        most, in_flight: Most requests in flight at one time, and now.
        on_stall: Called when an answer hangs, or has begun to drip.
    """

    answer: Callable[[str], str] = no_statements
    script: Script | None = None
    latency: float = 0.0
    jitter: float = 0.0  # latency varies by this fraction, both ways, evenly
    usage: bool = True
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most: int = 0
    keep: bool = True  # whether to keep bodies and heads
    on_stall: Callable[[], None] | None = None

    def __enter__(self) -> FakeServer:
        self._loop = asyncio.new_event_loop()
        self._now, self._since, self._area = 0, time.perf_counter(), 0.0
        self._full = self._last = (0.0, 0.0)
        # A semaphore, so that a release counts also where the request that it is for is not held yet.
        self._gate, self._held, self._holding = asyncio.Semaphore(0), 0, True
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The endpoint, as a user writes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def in_flight(self) -> int:
        """Requests that have come and are not answered."""
        return self._now

    def release(self, count: int | None = None) -> None:
        """Answer the first `count` that are held; all, and hold no more, without a number."""
        self._loop.call_soon_threadsafe(self._release, count)

    def _release(self, count: int | None) -> None:
        self._holding = self._holding and count is not None
        for _ in range(self._held if count is None else count):
            self._gate.release()

    def count(self, change: int) -> None:
        """Keep the number in flight, and its sum over time."""
        now = time.perf_counter()
        self._area += self._now * (now - self._since)
        self._since, self._now = now, self._now + change
        if self._now > self.most:
            self.most, self._full = self._now, (now, self._area)
        if change > 0:
            self._last = (now, self._area)

    @property
    def mean_when_full(self) -> float:
        """Mean number in flight, from when the most were so to the last request's arrival."""
        return (self._last[1] - self._full[1]) / (self._last[0] - self._full[0])

    def serve(self, connection: _Connection, head: bytes, body: bytes) -> None:
        """Begin with one request."""
        if self.keep:
            self.heads.append(head)
            self.bodies.append(body)
            self.times.append(time.monotonic())
        self.count(1)
        report = json.loads(body)["messages"][-1]["content"].rpartition("Report:\n")[2]
        self.asked[report] += 1
        turn = self.script(report, self.asked[report]) if self.script else Turn()
        if not turn.fault and turn.status == 200 and turn.body is None:
            delay = self.latency * (1 + random.uniform(-self.jitter, self.jitter)) + turn.delay
            self._loop.call_later(delay, self._finish, connection, report, turn)
        else:
            task = self._loop.create_task(self._act(connection, report, turn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _reply(self, report: str, turn: Turn) -> bytes:
        if turn.body is not None:
            body = turn.body
        elif turn.status != 200:
            body = json.dumps({"error": {"message": f"status {turn.status}"}}).encode()
        else:
            content = self.answer(report)
            message = {"role": "assistant", "content": content}
            choice = {"index": 0, "message": message, "finish_reason": turn.finish}
            value: dict[str, object] = {"object": "chat.completion", "choices": [choice]}
            if self.usage:
                value["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
            body = json.dumps(value).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in turn.headers)
        head = f"HTTP/1.1 {turn.status} X\r\ncontent-type: application/json\r\n{extra}"
        return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body

    def _finish(self, connection: _Connection, report: str, turn: Turn) -> None:
        self.count(-1)
        if not connection.transport.is_closing():
            connection.transport.write(self._reply(report, turn))
            if turn.status == 200 and turn.body is None:
                self.answered[report] += 1

    async def _act(self, connection: _Connection, report: str, turn: Turn) -> None:
        await asyncio.sleep(self.latency + turn.delay)
        while self.asked.total() < turn.after:
            await asyncio.sleep(0.001)
        transport, reply = connection.transport, self._reply(report, turn)
        if turn.fault == "hold" and self._holding:
            self._held += 1
            await self._gate.acquire()
            self._held -= 1
        if turn.fault in ("", "hold"):
            self._finish(connection, report, turn)
            return
        if turn.fault == "hang":
            self._stall()
            await asyncio.sleep(3600)
        elif turn.fault == "drip":
            for i, byte in enumerate(reply):
                if transport.is_closing():
                    break
                transport.write(bytes([byte]))
                if i == 3:
                    self._stall()
                await asyncio.sleep(0.05)
        elif turn.fault == "half":
            transport.write(reply[: len(reply) - 20])
        elif turn.fault == "reset":
            transport.get_extra_info("socket").setsockopt(1, 13, _RESET)  # SO_LINGER
            transport.abort()
        self.count(-1)
        transport.close()

    def _stall(self) -> None:
        if self.on_stall is not None:
            self.on_stall()


class _Connection(asyncio.Protocol):
    def __init__(self, server: FakeServer) -> None:
        self.server, self.buffer = server, b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.server.serve(self, head, body)


if __name__ == "__main__":
    how = [float(argument) for argument in [*sys.argv[1:], 0.0]]
    with FakeServer(latency=how[0], jitter=how[1], keep=False) as running:
        print(running.port, flush=True)
        sys.stdin.read()
        mean = running.mean_when_full if running.most else 0.0
        print(json.dumps({"most": running.most, "mean_when_full": mean}), flush=True)
