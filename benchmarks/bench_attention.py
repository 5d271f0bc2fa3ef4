"""`attention` over packed reports against attention over a padded batch, forward and backward.

Report lengths follow a radiology corpus: word counts of a CSV of reports (ECAMP_REPORTS, columns
`findings` and `impression`) times 1.3 pieces per word, cut to the window; without one, log-normal
with a mean near that of such a corpus. Sixteen reports, 12 heads of width 64, window 256.

Baselines, each on the padded batch with dropout 0.1 except the named one:
- published: matmul, mask, softmax, dropout, matmul, in eager mode;
- sdpa: `F.scaled_dot_product_attention` with a mask (on a CPU dropout sends it to the math path);
- sdpa without dropout: the same with dropout 0, so that its flash path runs; less work than ours;
- compile: the published steps under torch.compile;
- sdpa by report: no padding, one `F.scaled_dot_product_attention` per report in a Python loop.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from ecamp.ops import attention as op
from ecamp.ops._ext import load_extension

BATCH, HEADS, WIDTH, WINDOW, PATCHES, DROPOUT = 16, 12, 64, 256, 49, 0.1


def report_lengths() -> Tensor:
    """Return sixteen lengths at even quantiles of the corpus, so that the draw itself adds no noise."""
    path = os.environ.get("ECAMP_REPORTS")
    if path and Path(path).exists():
        with open(path, newline="", encoding="utf-8") as file:
            texts = [f"{row['findings']} {row['impression']}" for row in csv.DictReader(file)]
        counts = np.array([1.3 * len(text.split()) for text in texts if text.strip()])
    else:
        counts = np.random.default_rng(0).lognormal(np.log(50), 0.55, 4096)
    quantiles = (np.arange(BATCH) + 0.5) / BATCH
    return torch.from_numpy(np.quantile(counts, quantiles).clip(2, WINDOW).astype(np.int64))


def published(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) / WIDTH**0.5 + mask
    return F.dropout(scores.softmax(-1), DROPOUT) @ v


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float = DROPOUT) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask, dropout)


def by_report(q: Tensor, k: Tensor, v: Tensor, layout: op.AttentionLayout) -> Tensor:
    queries, keys = layout.query_length.tolist(), layout.key_length.tolist()
    parts = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    outputs = []
    for part in parts:
        query, key, value = (t.transpose(0, 1)[None] for t in part)
        outputs.append(F.scaled_dot_product_attention(query, key, value, dropout_p=DROPOUT))
    return torch.cat([out[0].transpose(0, 1) for out in outputs])


def step(
    function: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor
) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(*leaves), leaves, grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["text", "patches"])
def test_attention(benchmark: BenchmarkFixture, side: str, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    lengths = report_lengths()
    total, keys = int(lengths.sum()), None if side == "text" else PATCHES
    layout = op.pack_layout(lengths, torch.arange(BATCH), WINDOW, keys=keys)
    key_rows = total if keys is None else BATCH * keys
    packed = [
        torch.randn(rows, HEADS, WIDTH).to(dtype).requires_grad_()
        for rows in (total, key_rows, key_rows)
    ]
    columns = keys or WINDOW
    padded = [
        torch.randn(BATCH, HEADS, rows, WIDTH).to(dtype).requires_grad_()
        for rows in (WINDOW, columns, columns)
    ]
    mask = torch.zeros(BATCH, 1, 1, columns, dtype=dtype)
    if keys is None:
        mask[(torch.arange(WINDOW) >= lengths[:, None])[:, None, None]] = torch.finfo(dtype).min
    grad = torch.randn_like(padded[0])
    packed_grad = torch.randn_like(packed[0])
    compiled = torch.compile(published, dynamic=False)
    multiplications = int((layout.query_length * layout.key_length).sum()) * HEADS * WIDTH
    measure(
        f"attention {side} {str(dtype).removeprefix('torch.')}",
        step(
            lambda q, k, v: op.attention(q, k, v, layout, dropout=DROPOUT, seed=1), packed, packed_grad
        ),
        {
            "published": step(lambda q, k, v: published(q, k, v, mask), padded, grad),
            "sdpa": step(lambda q, k, v: sdpa(q, k, v, mask), padded, grad),
            "sdpa without dropout": step(lambda q, k, v: sdpa(q, k, v, mask, 0.0), padded, grad),
            "compile": step(lambda q, k, v: compiled(q, k, v, mask), padded, grad),
            "sdpa by report": step(lambda q, k, v: by_report(q, k, v, layout), packed, packed_grad),
        },
        benchmark=benchmark,
        rounds=3 if keys is None else 9,  # the padded text sides take half a second per call
        dtype=str(dtype),
        shape=[BATCH, HEADS, WINDOW, columns, WIDTH],
        tokens=total,
        flops=14 * multiplications,
        mode="valid tokens against the padded window",
    )  # fmt: skip
