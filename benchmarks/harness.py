"""Measurement: candidate and baselines take turns in one process; ratios are stored and gated.

A ratio is the median over rounds of (baseline seconds / candidate seconds) within a round, so a
machine that slows down for a while slows both sides. Stored ratios are in
`baselines/<device class>.json`; a run fails when a ratio falls below stored / 1.25 twice, the second
time with twice the rounds. `ECAMP_BENCH_STORE=1` stores the measured ratios instead.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ecamp.train.oom import keep_freed_memory

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
keep_freed_memory()  # as training does; else the kernel's page faults are measured, on both sides

FOLDER = Path(__file__).parent / "baselines"
TOLERANCE = 1.25

Call = Callable[[], object]


def device_class() -> str:
    """Name machines whose ratios are comparable: by GPU, or by the CPU's best instruction set."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name().lower().replace(" ", "-")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    best = next((f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f in flags), "plain")
    return f"{platform.machine()}-{best}-{torch.get_num_threads()}threads"


def seconds_of(call: Call) -> float:
    """Time one call; a GPU is synchronised before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(
    candidate: Call, baselines: Mapping[str, Call], rounds: int = 15, at_least: float = 2e-3
) -> tuple[dict[str, float], dict[str, float]]:
    """Take turns: candidate, first baseline, candidate, second baseline ... for `rounds` rounds.

    Args:
        at_least: A side that takes less than this many seconds is repeated within a turn.

    Returns:
        Ratios by baseline (above 1: the candidate is faster), and median seconds by side.
    """
    sides: dict[str, Call] = {"candidate": candidate, **baselines}
    repeat = {}
    for name, call in sides.items():
        call()  # compile, allocate, warm up
        call()
        repeat[name] = max(1, min(1000, int(at_least / max(seconds_of(call), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            n = repeat[name]

            def turn(call: Call = call, n: int = n) -> None:
                for _ in range(n):
                    call()

            times[name].append(seconds_of(turn) / n)
    ratios = {
        name: statistics.median(b / c for b, c in zip(times[name], times["candidate"], strict=True))
        for name in baselines
    }
    return ratios, {name: statistics.median(t) for name, t in times.items()}


def measure(
    name: str,
    candidate: Call,
    baselines: Mapping[str, Call],
    *,
    benchmark: Any = None,
    rounds: int = 15,
    **facts: Any,
) -> dict[str, float]:
    """Measure, record, gate.

    Args:
        name: Operation and shape: the key in the baselines file.
        benchmark: pytest-benchmark's fixture; gets `extra_info` and a few timed rounds.
        facts: For the record: dtype, shape, bytes, flops, mode.

    Raises:
        AssertionError: When a ratio has fallen below stored / 1.25 in two tries.
    """
    path = FOLDER / f"{device_class()}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    ratios, seconds = interleave(candidate, baselines, rounds)
    floor = {
        k: v / TOLERANCE for k, v in stored.get(name, {}).get("ratios", {}).items() if k in ratios
    }
    store = os.environ.get("ECAMP_BENCH_STORE") == "1"
    if not store and any(ratios[k] < limit for k, limit in floor.items()):
        ratios, seconds = interleave(candidate, baselines, 2 * rounds)
    record = {
        "ratios": {k: round(v, 2) for k, v in ratios.items()},
        "milliseconds": {k: round(1e3 * v, 4) for k, v in seconds.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **facts,
    }
    if benchmark is not None:
        benchmark.extra_info.update(record)
        benchmark.pedantic(candidate, rounds=3)
    print(f"\n{name}: " + ", ".join(f"{v:.2f}x {k}" for k, v in ratios.items()))
    if store:
        stored[name] = record
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
        return ratios
    for k, limit in floor.items():
        assert ratios[k] >= limit, f"{name}: {ratios[k]:.2f}x {k}, stored {limit * TOLERANCE:.2f}x"
    return ratios
