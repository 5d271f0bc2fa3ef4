"""`residual_norm`, forward and backward, against BERT's post-norm tail.

The published layer pads every report to the window; ours and the two other sides see real tokens
only. `python -m pytest benchmarks/bench_residual_norm.py`
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.ops.residual_norm import residual_norm

BATCH, WINDOW, WIDTH, DROPOUT, EPS = 16, 256, 768, 0.1, 1e-12


def plain(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Apply the linear layer's bias, dropout, residual and LayerNorm one after another."""
    z = F.dropout(x + bias, DROPOUT, training=True) + residual
    return F.layer_norm(z, (WIDTH,), gamma, beta, EPS)


def by_sample(
    x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, row_batch: Tensor
) -> Tensor:
    return plain(x + bias[row_batch], torch.zeros(()), residual, gamma, beta)


def step_of(
    call: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor
) -> Callable[[], object]:
    """Return a call that runs forward and backward to every leaf."""
    return lambda: torch.autograd.grad(call(*leaves), leaves, grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_residual_norm(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = torch.randint(60, 121, (BATCH,))  # about 90, as in the reports
    rows = int(lengths.sum())
    row_batch = torch.repeat_interleave(torch.arange(BATCH), lengths).to(device)
    positions = torch.cat([torch.arange(int(n)) for n in lengths]).to(device)

    def leaves(rows: int, biases: int) -> list[Tensor]:
        shapes = ((rows, WIDTH), (biases, WIDTH), (rows, WIDTH), (WIDTH,), (WIDTH,))
        return [torch.randn(s, device=device, dtype=dtype, requires_grad=True) for s in shapes]

    def ours(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return residual_norm(x, residual, gamma, beta, eps=EPS, row_bias=bias, row_batch=row_batch,
                             dropout=DROPOUT, seed=1, step=2, samples=row_batch,
                             positions=positions)  # fmt: skip

    def packed(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return by_sample(x, bias, residual, gamma, beta, row_batch)

    grad = torch.randn(rows, WIDTH, device=device, dtype=dtype)
    padded_grad = torch.randn(BATCH * WINDOW, WIDTH, device=device, dtype=dtype)
    measure(
        f"residual_norm {BATCH}x{WINDOW} rows {rows} width {WIDTH} {dtype}",
        step_of(ours, leaves(rows, BATCH), grad),
        {
            "published, padded": step_of(plain, leaves(BATCH * WINDOW, 1), padded_grad),
            "eager, packed": step_of(packed, leaves(rows, BATCH), grad),
            "torch.compile, packed": step_of(torch.compile(packed), leaves(rows, BATCH), grad),
        },
        benchmark=benchmark,
        dtype=str(dtype),
        bytes=8 * rows * WIDTH * dtype.itemsize,
        mode="valid",
    )
