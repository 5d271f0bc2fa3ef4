"""Which ops are compiled here, and their rates relative to this machine's limits."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

import ecamp.ops
from ecamp.ops import _library
from ecamp.ops._ext import cpu_lane, load_extension


def list_ops() -> list[dict[str, Any]]:
    """List the ops, each with whether it has a kernel of its own for CPU and CUDA."""
    for module in pkgutil.iter_modules(ecamp.ops.__path__):
        importlib.import_module(f"ecamp.ops.{module.name}")
    load_extension()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return [
        {"op": name, "cpu": has(f"ecamp::{name}", "CPU"), "cuda": has(f"ecamp::{name}", "CUDA")}
        for name in sorted(_library.OPS)
    ]


def seconds(call: Callable[[], object], device: str, rounds: int = 9) -> float:
    """Measure a call: the best of some rounds after a warm-up, with the GPU synchronised."""
    synchronize: Callable[[], object] = (
        torch.cuda.synchronize if device == "cuda" else (lambda: None)
    )
    call()
    best = float("inf")
    for _ in range(rounds):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def machine_limits(device: str) -> dict[str, float]:
    """Measure a plain copy and a plain matrix product: float32 on a CPU, bfloat16 on a GPU."""
    size, side, dtype = (
        (1 << 30, 8192, torch.bfloat16) if device == "cuda" else (1 << 27, 1536, torch.float32)
    )
    source = torch.empty(size // 4, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copy_seconds, product_seconds = (
        seconds(call, device) for call in (lambda: target.copy_(source), lambda: a @ b)
    )
    return {
        "gigabytes_per_second": 2 * source.nbytes / copy_seconds / 1e9,
        "gigaflops": 2 * side**3 / product_seconds / 1e9,
    }


def measure_ops() -> dict[str, Any]:
    """Measure rates at shapes of the published configuration; on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    limits = machine_limits(device)
    rows = []
    for op, shape, call, amount, unit in _samples(device):
        elapsed = seconds(call, device)
        key = "gigaflops" if unit == "GFLOP/s" else "gigabytes_per_second"
        rate = amount / elapsed / 1e9
        rows.append({"op": op, "shape": shape, "ms": 1e3 * elapsed, "rate": rate, "unit": unit,
                     "share": rate / limits[key]})  # fmt: skip
    native = load_extension()
    device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {
        "device": device_name, "limits": limits, "threads": torch.get_num_threads(),
        "lane": cpu_lane() if native else "reference", "ops": rows,
    }  # fmt: skip


def _samples(device: str) -> Iterator[tuple[str, str, Callable[[], object], float, str]]:
    """Yield op, shape in words, call, bytes or FLOP per call, unit."""
    from ecamp.ops.attention import attention, pack_layout
    from ecamp.ops.dropout_rows import dropout_rows
    from ecamp.ops.linear_weighted_ce import linear_weighted_ce
    from ecamp.ops.patch_select import patch_select
    from ecamp.ops.residual_norm import residual_norm

    # A small batch for a CPU; only the published batch fills a GPU.
    batch, dtype = (256, torch.bfloat16) if device == "cuda" else (16, torch.float32)
    to = {"device": device, "dtype": dtype}
    rows, width = 90 * batch, 768  # reports of 90 tokens
    x, residual = torch.randn(rows, width, **to), torch.randn(rows, width, **to)  # type: ignore[call-overload]
    gamma, beta = torch.ones(width, device=device), torch.zeros(width, device=device)
    samples = torch.arange(rows, device=device) // 90
    positions = torch.arange(rows, device=device) % 90
    yield ("residual_norm", f"{rows} x {width}",
           lambda: residual_norm(x, residual, gamma, beta, eps=1e-12), 3.0 * x.nbytes, "GB/s")  # fmt: skip
    yield ("dropout_rows", f"{rows} x {width}",
           lambda: dropout_rows(x, 0.1, 0, 0, samples, positions), 2.0 * x.nbytes, "GB/s")  # fmt: skip
    images = torch.randn(batch, 3, 224, 224, device=device)
    keep = torch.stack([torch.randperm(196)[:49] for _ in range(batch)]).to(device)
    yield ("patch_select", f"{batch} x 3 x 224 x 224, 49 of 196",
           lambda: patch_select(images, keep, 16), 2.0 * images.nbytes / 4, "GB/s")  # fmt: skip
    layout = pack_layout(torch.full((batch,), 90), torch.arange(batch), 90)
    layout = replace(
        layout,
        **{k: v.to(device) for k, v in vars(layout).items() if isinstance(v, torch.Tensor)},  # type: ignore[arg-type]
    )
    q, k, v = (torch.randn(rows, 12, 64, **to) for _ in range(3))  # type: ignore[call-overload]
    yield ("attention forward", f"{batch} x 90 tokens, 12 heads of 64",
           lambda: attention(q, k, v, layout), 4.0 * batch * 12 * 90 * 90 * 64, "GFLOP/s")  # fmt: skip
    predicted = 27 * batch
    hidden = torch.randn(predicted, width, **to).requires_grad_()  # type: ignore[call-overload]
    vocabulary_weight = torch.randn(30522, width, **to).requires_grad_()  # type: ignore[call-overload]
    labels = torch.randint(0, 30522, (predicted,), device=device)
    weights = torch.rand(predicted, device=device)
    yield ("linear_weighted_ce", f"{predicted} rows, 30522 words, gradients",
           lambda: linear_weighted_ce(hidden, vocabulary_weight, None, labels, weights),
           6.0 * predicted * 30522 * width, "GFLOP/s")  # fmt: skip
