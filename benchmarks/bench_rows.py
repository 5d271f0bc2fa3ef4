"""`gather_rows` and `scatter_rows`: unpack 16 reports to 256 rows and pack them again, with backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.ops.rows import gather_rows, scatter_rows

BATCH, WINDOW, WIDTH = 16, 256, 768


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_unpack_and_pack(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = torch.randint(60, 121, (BATCH,))
    valid = (torch.arange(WINDOW) < lengths[:, None]).to(device)
    index = valid.flatten().nonzero().flatten()
    x = torch.randn(len(index), WIDTH, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn(len(index), WIDTH, device=device, dtype=dtype)

    def ours(x: Tensor) -> Tensor:
        return gather_rows(scatter_rows(x, index, BATCH * WINDOW), index)

    def published(x: Tensor) -> Tensor:
        """By a boolean mask, as padded batches are mostly packed: it counts rows, so a GPU waits."""
        padded = x.new_zeros(BATCH, WINDOW, WIDTH).masked_scatter(valid[..., None], x)
        return padded[valid]

    def eager(x: Tensor) -> Tensor:
        padded = x.new_zeros(BATCH * WINDOW, WIDTH).index_copy(0, index, x)
        return padded.index_select(0, index)

    def step(call: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(x), x, grad)

    measure(
        f"rows {BATCH}x{WINDOW} rows {len(index)} width {WIDTH} {dtype}",
        step(ours),
        {
            "published, mask": step(published),
            "eager, index_copy": step(eager),
            "torch.compile": step(torch.compile(eager)),
        },
        benchmark=benchmark,
        dtype=str(dtype),
        bytes=2 * (3 * len(index) + BATCH * WINDOW) * WIDTH * dtype.itemsize,
    )
