"""Memory: keep freed blocks, halve batches that do not fit, report the peak.

Why: docs/decisions.md#memory-that-runs-out.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import numpy as np
import torch

from ecamp.errors import EcampError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

T = TypeVar("T")
Listener = Callable[[str, int], None]  # takes the name of the computation and the next batch size
_listener: ContextVar[Listener] = ContextVar("listener", default=lambda what, batch: None)


@cache
def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel.

    A training step on a CPU frees and asks for the same megabytes again and again, and each time
    the kernel has to clear the pages: a fifth of a small head's step. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: Python's, CUDA's, or torch's CPU allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "bad_alloc" in text
    )


@contextlib.contextmanager
def on_batch_halved(listener: Listener) -> Iterator[None]:
    """Call a function whenever a batch is halved within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_halving(what: str, batch: int) -> None:
    """Release the GPU allocator's free blocks, and tell the listener the next batch size."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    _listener.get()(what, batch)


def map_batches(
    work: Callable[[np.ndarray], T], count: int, batch: int, what: str
) -> Iterator[tuple[np.ndarray, T]]:
    """Compute in batches; where memory runs out, retry with half the batch.

    Args:
        work: From int64 indices (at most `batch`, in order) to a result for each.
        what: Name of the computation, for messages.

    Yields:
        Indices and their result, `count` in all.

    Raises:
        EcampError: Memory runs out with a single one.
    """
    start = 0
    while start < count:
        index = np.arange(start, min(start + batch, count))
        result: T | None = None
        try:
            result = work(index)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if len(index) == 1:
                raise EcampError(
                    f"{what}: memory runs out even with a batch of one.",
                    "Take a smaller encoder or image size, or end other programs that use the memory.",
                ) from error
        if result is None:
            # Outside the handler, where the error no longer holds the tensors that filled the memory.
            batch = len(index) // 2
            report_halving(what, batch)
            continue
        yield index, result
        start += len(index)


def reset_peak() -> None:
    """Let `peak_bytes` count from here, where the system can (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> dict[str, int]:
    """Measure the highest resident memory of this process, and of the GPU where one is used.

    Returns:
        `peak_bytes`, and maybe `peak_gpu_bytes`. Pages of mapped files count as resident.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_initialized():
        peak["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return peak
