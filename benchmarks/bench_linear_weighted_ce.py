"""`linear_weighted_ce`: forward and backward of the vocabulary head, against three baselines.

    pytest benchmarks/bench_linear_weighted_ce.py

The published algorithm computes logits and cross-entropy at ALL positions and weighs most of them
with zero (0.3 of positions are predicted; 1.0 is the worst case). The two idiomatic baselines, plain
and compiled, take the predicted rows first, as ours does. So at 30 % of rows the ratio against the
published one is mostly work not done; the gain of the op itself is the ratio against the
idiomatic ones, and at 100 %. The matrix products are the same on all sides and take most of the time.
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
from ecamp.ops.linear_weighted_ce import linear_weighted_ce
from ecamp.ops.select_rows import select_rows

LENGTH = 256


def published(hidden: Tensor, head: torch.nn.Linear, labels: Tensor, weights: Tensor) -> Tensor:
    logits = head(hidden)
    losses = torch.nn.CrossEntropyLoss(reduction="none")(logits.float(), labels)
    result: Tensor = (losses * weights).sum() / weights.sum()
    return result


def idiomatic(hidden: Tensor, head: torch.nn.Linear, labels: Tensor, weights: Tensor) -> Tensor:
    losses = F.cross_entropy(head(hidden), labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    ("positions", "width", "vocabulary", "fraction", "dtype", "rounds"),
    [
        (1024, 768, 30522, 0.3, torch.float32, 5),
        (768, 768, 30522, 1.0, torch.float32, 3),
        (2048, 192, 2000, 0.3, torch.float32, 15),
        (2048, 192, 2000, 1.0, torch.float32, 15),
        (2048, 768, 30522, 0.3, torch.bfloat16, 7),
        (1024, 768, 30522, 1.0, torch.bfloat16, 5),
    ],
    ids=str,
)
def test_linear_weighted_ce(
    benchmark: BenchmarkFixture, positions: int, width: int, vocabulary: int, fraction: float,
    dtype: torch.dtype, rounds: int,
) -> None:  # fmt: skip
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch._dynamo.reset()  # or the compiled side keeps guards of the cases before
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, width, generator=g).to(dtype).requires_grad_()
    head = torch.nn.Linear(width, vocabulary).to(dtype)
    labels = torch.randint(vocabulary, (positions,), generator=g)
    mask = torch.rand(positions // LENGTH, LENGTH, generator=g) < fraction
    weights = (torch.rand(positions, generator=g) + 0.5) * mask.flatten()
    rows = int(mask.sum())

    def step(loss_of: Callable[..., Tensor], select: bool = True) -> Callable[[], None]:
        def call() -> None:
            hidden.grad = head.weight.grad = head.bias.grad = None
            if select:
                index = select_rows(mask, rows)
                loss = loss_of(hidden[index], head, labels[index], weights[index])
            else:
                loss = loss_of(hidden, head, labels, weights)
            loss.backward()

        return call

    def ours(hidden: Tensor, head: torch.nn.Linear, labels: Tensor, weights: Tensor) -> Tensor:
        loss = linear_weighted_ce(hidden, head.weight, head.bias, labels, weights)
        return loss / weights.sum()

    dtype_name = str(dtype).removeprefix("torch.")
    measure(
        f"linear_weighted_ce {dtype_name} {positions}x{width} to {vocabulary}, {fraction:.0%} of rows",
        step(ours),
        {
            "published, all positions": step(published, select=False),
            "eager, predicted rows": step(idiomatic),
            "torch.compile, predicted rows": step(torch.compile(idiomatic, dynamic=False)),
        },
        benchmark=benchmark,
        rounds=rounds,
        dtype=dtype_name,
        shape=[positions, width, vocabulary],
        predicted=rows,
        flops=6 * rows * width * vocabulary,
    )
