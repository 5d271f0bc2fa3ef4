"""Helpers of every op's tests: the error rule, guarded views, lanes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ecamp.ops._ext import cpu_lane, load_extension

NATIVE = load_extension()
native = pytest.mark.skipif(not NATIVE, reason="the extension is not built on this machine")
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# One rounding of a number near 1, by type: what two right answers may differ by in any case.
TINY = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def assert_as_good_as_eager(got: Tensor, eager: Tensor, exact: Tensor, name: str = "") -> None:
    """FlashAttention's rule: our error is at most twice that of plain torch in the same type.

    Args:
        got, eager: The two candidates, of one dtype. exact: float64.
    """
    assert got.shape == exact.shape, f"{name}: {got.shape} is not {exact.shape}"
    assert got.dtype == eager.dtype, f"{name}: {got.dtype} is not {eager.dtype}"
    scale = exact.abs().max().item() if exact.numel() else 0.0
    ours = (got.double() - exact).abs().max().item() if exact.numel() else 0.0
    theirs = (eager.double() - exact).abs().max().item() if exact.numel() else 0.0
    limit = 2 * theirs + TINY[got.dtype] * max(scale, 1e-30)
    assert ours <= limit, f"{name}: error {ours:.3g} exceeds {limit:.3g} (eager {theirs:.3g})"


def guarded(tensor: Tensor, fill: float = 7.0) -> tuple[Tensor, Tensor]:
    """The same values in the middle of a larger buffer at an odd offset, and that buffer.

    A kernel that reads or writes past its end sees or leaves other values there.
    """
    buffer = torch.full((tensor.numel() + 35,), fill, dtype=tensor.dtype, device=tensor.device)
    view = buffer[17 : 17 + tensor.numel()].view(tensor.shape)
    view.copy_(tensor)
    return view, buffer


def spread(tensor: Tensor) -> Tensor:
    """The same values, not contiguous."""
    return torch.stack([tensor, tensor], -1)[..., 0]


@contextmanager
def lane(wanted: int) -> Iterator[str]:
    """Run CPU kernels in one lane; skip where this machine lacks it."""
    before = ("baseline", "v3", "v4").index(cpu_lane())
    try:
        name = cpu_lane(wanted)
        if name != ("baseline", "v3", "v4")[wanted]:
            pytest.skip(f"this processor has no lane {wanted}")
        yield name
    finally:
        cpu_lane(before)


def philox_plain(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 with Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c
