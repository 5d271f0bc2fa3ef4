"""Batches that do not fit are halved until they do; the peak is a peak."""

from __future__ import annotations

import mmap
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecamp.errors import EcampError
from ecamp.train.oom import map_batches, on_batch_halved, out_of_memory, peak_bytes, reset_peak

CPU_TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError(CPU_TEXT), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError(CPU_TEXT), False),
    ],
)
def test_which_errors_are_about_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) == is_one


def test_out_of_memory_errors_of_torch_are_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 40))
def test_every_item_comes_once_and_in_order(count: int, batch: int, fits: int) -> None:
    tried: list[int] = []
    halved: list[int] = []

    def work(index: np.ndarray) -> np.ndarray:
        tried.append(len(index))
        if len(index) > fits:
            raise MemoryError
        return index * 10

    with on_batch_halved(lambda what, size: halved.append(size)):
        parts = list(map_batches(work, count, batch, "features"))
    assert [i for index, _ in parts for i in index] == list(range(count))
    assert all((result == index * 10).all() for index, result in parts)
    assert max(tried, default=0) <= batch
    # Halved no more often than needed: a batch of twice the size did not fit.
    assert all(size * 2 + 1 > fits for size in halved)
    assert bool(halved) == (min(batch, count) > fits)


def test_a_batch_of_one_that_does_not_fit_is_an_error_with_advice() -> None:
    def work(index: np.ndarray) -> None:
        raise MemoryError

    with pytest.raises(EcampError, match="features: memory runs out even with a batch of one"):
        list(map_batches(work, 5, 4, "features"))


def test_other_errors_are_left_alone() -> None:
    def work(index: np.ndarray) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        list(map_batches(work, 5, 4, "features"))


LIMITED = """
import resource, torch, numpy as np
from ecamp.train.oom import map_batches, on_batch_halved
torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
halved = []
with on_batch_halved(lambda what, size: halved.append(size)):
    # 4 MB an item, one intermediate as large again: 64 of them do not fit, 32 do.
    work = lambda index: (torch.ones(len(index), 1_000_000) * 2).sum(1)
    total = sum(float(part.sum()) for _, part in map_batches(work, 128, 64, "features"))
print(halved, total)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_a_real_limit_of_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    )
    halved, total = done.stdout.rsplit(maxsplit=1)
    assert halved in ("[32]", "[32, 16]")
    assert float(total) == 128 * 2e6


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be set back")
def test_the_peak_is_that_since_it_was_set_back() -> None:
    # Mapped, not allocated: `keep_freed_memory` of another test may keep what is freed.
    def block(size: int) -> mmap.mmap:
        pages = mmap.mmap(-1, size)
        pages.write(b"1" * size)
        return pages

    big = block(100_000_000)
    reset_peak()
    with_big = peak_bytes()["peak_bytes"]
    big.close()
    reset_peak()
    without = peak_bytes()["peak_bytes"]
    assert with_big - without > 60_000_000
    block(200_000_000).close()
    assert peak_bytes()["peak_bytes"] - without > 150_000_000
