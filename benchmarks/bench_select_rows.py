"""`select_rows` against `nonzero`; on a CPU it saves little of a step, on a GPU it saves the wait."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.ops.select_rows import select_rows


def test_select_rows(benchmark: BenchmarkFixture) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    mask = torch.rand(256, 256, generator=torch.Generator().manual_seed(0)) < 0.3
    count = int(mask.sum())
    indices = torch.arange(mask.numel())
    measure(
        "select_rows 256x256",
        lambda: select_rows(mask, count),
        {
            # The published code selects nothing: its nearest form is indexing with the mask.
            "indexing with the mask": lambda: indices[mask.flatten()],
            "nonzero": lambda: mask.flatten().nonzero().squeeze(1),
        },
        benchmark=benchmark,
        shape=[256, 256],
    )
