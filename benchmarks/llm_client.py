"""Throughput of the `llm` distiller relative to its endpoint, 64 requests in flight.

    python -m benchmarks.llm_client [LATENCY_MS] [REQUESTS] [JITTER]

The endpoint is the tests' fake server in a process of its own, answering after a fixed time, or after one that
varies by JITTER (0.2: 20 % both ways). Its own throughput is that of bare sockets: 64 connections that send
the same bytes and read the answer, without cache, checks or library. `httpx` is its client in a plain loop. All
take turns. Ratios are those of the medians, and of the best rounds, which other load on the machine
disturbs less. Each request of the distiller is another report: it is looked up in the
cache, sent, stored, validated and yielded.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ecamp.api.distiller import Report, Section
from ecamp.distill.llm import LLMDistiller, LLMDistillerConfig

IN_FLIGHT, ROUNDS = 64, 9
SERVER = Path(__file__).parents[1] / "tests" / "distill" / "fake_server.py"


def reports(count: int, round_: int) -> Iterator[Report]:
    """Write reports of a usual length, no two alike."""
    for number in range(count):
        text = (
            f"Report {round_}-{number}. " + "The lungs are clear without focal consolidation. " * 8
        )
        yield Report(str(number), text, (Section("findings", 0, len(text)),))


async def bare(port: int, request: bytes, count: int) -> float:
    """Measure the answers per second of bare sockets."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(request)}\r\n\r\n"
    )
    message, remaining = head.encode() + request, count

    async def worker() -> None:
        nonlocal remaining
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while remaining > 0:
            remaining -= 1
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b"content-length: ")[2].split()[0]))
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(IN_FLIGHT)])
    return count / (time.perf_counter() - start)


async def httpx(port: int, request: bytes, count: int) -> float:
    """Measure the answers per second of the library's client."""
    import httpx2

    url, remaining = f"http://127.0.0.1:{port}/v1/chat/completions", count
    limits = httpx2.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with httpx2.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:

        async def worker() -> None:
            nonlocal remaining
            while remaining > 0:
                remaining -= 1
                await client.post(url, content=request)

        start = time.perf_counter()
        await asyncio.gather(*[worker() for _ in range(IN_FLIGHT)])
        return count / (time.perf_counter() - start)


def distiller(port: int, count: int, round_: int, folder: str) -> float:
    """Measure the answers per second of the distiller."""
    config = LLMDistillerConfig(
        model="fake", endpoint=f"http://127.0.0.1:{port}/v1", concurrency=IN_FLIGHT, cache=folder
    )
    start = time.perf_counter()
    done = sum(not row.error for row in LLMDistiller(config).distill(reports(count, round_)))
    assert done == count
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print the rates, and their ratios to the endpoint's: median, best."""
    latency = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.05
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    jitter = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(latency), str(jitter)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    port = int(server.stdout.readline())
    config = LLMDistillerConfig(model="fake", endpoint=f"http://127.0.0.1:{port}/v1")
    request = LLMDistiller(config).request(next(reports(1, 0)).text)
    rates: dict[str, list[float]] = {"endpoint": [], "httpx": [], "distiller": []}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS):
            rates["endpoint"].append(asyncio.run(bare(port, request, count)))
            rates["httpx"].append(asyncio.run(httpx(port, request, count)))
            rates["distiller"].append(distiller(port, count, round_, folder))
    server.stdin.close()
    server.wait()
    print(f"latency {latency * 1000:g} ms, jitter {jitter:g}, at most {IN_FLIGHT / latency:.0f}/s")
    for name, values in rates.items():
        median = statistics.median(values) / statistics.median(rates["endpoint"])
        best = max(values) / max(rates["endpoint"])
        print(
            f"{name:10} {median:6.3f} {best:6.3f}  " + " ".join(f"{v:.0f}" for v in sorted(values))
        )


if __name__ == "__main__":
    main()
