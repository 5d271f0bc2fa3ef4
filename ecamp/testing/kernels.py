"""Which ops are compiled here, and their rates beside this machine's limits."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

import ecamp.ops
from ecamp.ops import _library
from ecamp.ops._ext import cpu_lane, load_extension


def list_ops() -> list[dict[str, Any]]:
    """Each op with whether it has a kernel of its own for CPU and CUDA."""
    for module in pkgutil.iter_modules(ecamp.ops.__path__):
        importlib.import_module(f"ecamp.ops.{module.name}")
    load_extension()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return [
        {"op": name, "cpu": has(f"ecamp::{name}", "CPU"), "cuda": has(f"ecamp::{name}", "CUDA")}
        for name in sorted(_library.OPS)
    ]


def seconds(call: Callable[[], object], rounds: int = 9) -> float:
    """Best of some rounds after one to warm up."""
    call()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def machine_limits() -> dict[str, float]:
    """What a plain copy and a plain float32 matrix product reach, with torch's threads."""
    block = torch.empty(32 << 20)
    other = torch.empty_like(block)
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    return {
        "gigabytes_per_second": 2 * block.nbytes / seconds(lambda: other.copy_(block)) / 1e9,
        "gigaflops": 2 * 1536**3 / seconds(lambda: a @ b) / 1e9,
    }


def measure_ops() -> dict[str, Any]:
    """Rates on the CPU at shapes of the published configuration."""
    limits = machine_limits()
    rows = []
    for op, shape, call, amount, unit in _samples():
        took = seconds(call)
        key = "gigaflops" if unit == "GFLOP/s" else "gigabytes_per_second"
        rate = amount / took / 1e9
        rows.append({"op": op, "shape": shape, "ms": 1e3 * took, "rate": rate, "unit": unit,
                     "share": rate / limits[key]})  # fmt: skip
    native = load_extension()
    return {
        "limits": limits, "threads": torch.get_num_threads(),
        "lane": cpu_lane() if native else "reference", "ops": rows,
    }  # fmt: skip


def _samples() -> Iterator[tuple[str, str, Callable[[], object], float, str]]:
    """Op, shape in words, call, bytes or FLOP of a call, unit."""
    from ecamp.ops.attention import attention, pack_layout
    from ecamp.ops.dropout_rows import dropout_rows
    from ecamp.ops.linear_weighted_ce import linear_weighted_ce
    from ecamp.ops.patch_select import patch_select
    from ecamp.ops.residual_norm import residual_norm

    rows, width = 1440, 768  # 16 reports of 90 tokens
    x, residual = torch.randn(rows, width), torch.randn(rows, width)
    gamma, beta = torch.ones(width), torch.zeros(width)
    samples, positions = torch.arange(rows) // 90, torch.arange(rows) % 90
    yield ("residual_norm", f"{rows} x {width}",
           lambda: residual_norm(x, residual, gamma, beta, eps=1e-12), 3.0 * x.nbytes, "GB/s")  # fmt: skip
    yield ("dropout_rows", f"{rows} x {width}",
           lambda: dropout_rows(x, 0.1, 0, 0, samples, positions), 2.0 * x.nbytes, "GB/s")  # fmt: skip
    images = torch.randn(16, 3, 224, 224)
    keep = torch.stack([torch.randperm(196)[:49] for _ in range(16)])
    yield ("patch_select", "16 x 3 x 224 x 224, 49 of 196",
           lambda: patch_select(images, keep, 16), 2.0 * images.nbytes / 4, "GB/s")  # fmt: skip
    lengths = torch.full((16,), 90)
    layout = pack_layout(lengths, torch.arange(16), 90)
    q, k, v = (torch.randn(rows, 12, 64) for _ in range(3))
    yield ("attention forward", "16 x 90 tokens, 12 heads of 64",
           lambda: attention(q, k, v, layout), 4.0 * 16 * 12 * 90 * 90 * 64, "GFLOP/s")  # fmt: skip
    hidden, words = torch.randn(430, width, requires_grad=True), torch.randn(30522, width)
    words.requires_grad_()
    labels, weights = torch.randint(0, 30522, (430,)), torch.rand(430)
    yield ("linear_weighted_ce", "430 rows, 30522 words, gradients",
           lambda: linear_weighted_ce(hidden, words, None, labels, weights),
           6.0 * 430 * 30522 * width, "GFLOP/s")  # fmt: skip
