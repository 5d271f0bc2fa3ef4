"""`dropout_rows`: dropout decided by a row's sample and position, not by its place in the batch.

Philox4x32-10 with counter (position, column // 4, sample id, step) and the seed as key; word
column % 4 decides: kept where word >= round(p * 2**32), and then scaled by 1 / (1 - p). So packed and
padded batches drop the same numbers, on every device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define
from ecamp.ops.philox import philox


def dropout_rows(
    x: Tensor, p: float, seed: int, step: int, samples: Tensor, positions: Tensor
) -> Tensor:
    """Drop single values.

    Args:
        x: float32, bfloat16 or float16 (rows, width).
        p: Fraction that is dropped, 0 <= p < 1; 0 gives `x` itself.
        seed, step: Non-negative.
        samples, positions: int64 (rows,), the row's sample and its position there.

    Raises:
        ValueError: Wrong shape, dtype or device, or p outside its range.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout_rows: p must lie in 0 <= p < 1, got {p}")
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(
            f"dropout_rows: x must be floating (rows, width), got {x.dtype} {tuple(x.shape)}"
        )
    for name, tensor in (("samples", samples), ("positions", positions)):
        if tensor.shape != x.shape[:1] or tensor.dtype != torch.int64:
            raise ValueError(
                f"dropout_rows: {name} must be int64 ({len(x)},), "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
        if tensor.device != x.device:
            raise ValueError(f"dropout_rows: {name} lies on {tensor.device}, x on {x.device}")
    if p == 0:
        return x
    load_extension()
    limit = round(p * 2**32)
    result: Tensor = _Dropout.apply(
        x.contiguous(), samples.contiguous(), positions.contiguous(), limit, 1 / (1 - p), seed, step
    )
    return result


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, samples: Tensor, positions: Tensor, limit: int, scale: float,
        seed: int, step: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(samples, positions)
        ctx.numbers = (limit, scale, seed, step)
        out: Tensor = torch.ops.ecamp.dropout_rows(x, samples, positions, limit, scale, seed, step)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        x_grad = torch.ops.ecamp.dropout_rows(
            gradient.contiguous(), *ctx.saved_tensors, *ctx.numbers
        )
        return x_grad, None, None, None, None, None, None


def keep_mask(
    samples: Tensor, positions: Tensor, width: int, limit: int, seed: int, step: int
) -> Tensor:
    """Return which values are kept, bool (rows, width); every kernel equals it bit for bit."""
    blocks = (width + 3) // 4
    counter = np.zeros((len(samples), blocks, 4), np.uint32)
    counter[..., 0] = (positions.cpu().numpy() & 0xFFFFFFFF).astype(np.uint32)[:, None]
    counter[..., 1] = np.arange(blocks, dtype=np.uint32)
    counter[..., 2] = (samples.cpu().numpy() & 0xFFFFFFFF).astype(np.uint32)[:, None]
    counter[..., 3] = step & 0xFFFFFFFF
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    keep = words.reshape(len(samples), 4 * blocks)[:, :width].astype(np.uint64) >= np.uint64(limit)
    return torch.from_numpy(np.ascontiguousarray(keep)).to(samples.device)


def _reference(
    x: Tensor, samples: Tensor, positions: Tensor, limit: int, scale: float, seed: int, step: int
) -> Tensor:
    keep = keep_mask(samples, positions, x.shape[1], limit, seed, step)
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.where(keep, wide * scale, 0.0).to(x.dtype)


def _fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


define(
    # SymInt: a step that changes does not compile the model again.
    "dropout_rows(Tensor x, Tensor samples, Tensor positions, int limit, float scale, SymInt seed,"
    " SymInt step) -> Tensor",
    _reference,
    _fake,
)
