"""`gather_rows` and `scatter_rows`: rows by index, -1 for none; each is the other's backward.

Padded text to packed text is a gather, packed to padded a scatter or a gather with -1 at padding.

Only -1 may repeat in an index, in a gather too: the backward of a repeated row would have to add,
which on a GPU needs atomics, whose order (and with floats whose result) changes from run to run.
Packing and unpacking never repeat a row. The CPU checks it; on a GPU a check would wait for the device, so a
repeated index is undefined there (some one of its rows wins), and an index outside the range counts
as -1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Set out[i] = x[index[i]], zeros where index[i] is -1.

    Args:
        x: (N, D), any dtype.
        index: int64 (M,), -1..N-1, only -1 may repeat.

    Returns:
        (M, D).

    Raises:
        ValueError: Wrong shape, dtype or device.
        RuntimeError: On the CPU: an index outside its range or twice.
    """
    _check("gather_rows", x, index)
    load_extension()
    out: Tensor = _GatherRows.apply(x, index)
    return out


def scatter_rows(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """Set out[index[i]] = x[i], zeros in rows that no index names; -1 is skipped.

    Args:
        x: (M, D), any dtype.
        index: int64 (M,), -1..rows-1, only -1 may repeat.
        rows: Rows of the result.

    Returns:
        (rows, D).

    Raises:
        ValueError: Wrong shape, dtype or device.
        RuntimeError: On the CPU: an index outside its range or twice.
    """
    _check("scatter_rows", x, index)
    if len(index) != len(x):
        raise ValueError(f"scatter_rows: index must be int64 ({len(x)},), got {len(index)} entries")
    if rows < 0:
        raise ValueError(f"scatter_rows: rows must not be negative, got {rows}")
    load_extension()
    out: Tensor = _ScatterRows.apply(x, index, rows)
    return out


def _check(op: str, x: Tensor, index: Tensor) -> None:
    if x.dim() != 2:
        raise ValueError(f"{op}: x must be (rows, D), got {tuple(x.shape)}")
    if index.dim() != 1 or index.dtype != torch.int64:
        raise ValueError(f"{op}: index must be int64 (M,), got {index.dtype} {tuple(index.shape)}")
    if index.device != x.device:
        raise ValueError(f"{op}: x lies on {x.device}, index on {index.device}; move them together")


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = x.shape[0]
        out: Tensor = torch.ops.ecamp.gather_rows(x.contiguous(), index.contiguous())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return torch.ops.ecamp.scatter_rows(grad.contiguous(), index.contiguous(), ctx.rows), None


class _ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(index)
        out: Tensor = torch.ops.ecamp.scatter_rows(x.contiguous(), index.contiguous(), rows)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return torch.ops.ecamp.gather_rows(grad.contiguous(), index.contiguous()), None, None


def _valid(op: str, index: Tensor, rows: int) -> Tensor:
    """Find the entries that name a row; on the CPU the others must be -1."""
    valid = (index >= 0) & (index < rows)
    if index.device.type == "cpu":
        for i in (~valid & (index != -1)).nonzero().flatten().tolist()[:1]:
            raise RuntimeError(f"{op}: index[{i}] = {int(index[i])} lies outside -1..{rows - 1}")
        ordered = index[valid].sort().values
        repeated = ordered[1:][ordered.diff() == 0]
        if len(repeated):
            value = int(repeated[0])
            positions = (index == value).nonzero().flatten().tolist()
            raise RuntimeError(
                f"{op}: index[{positions[1]}] = {value} appears twice, also at {positions[0]}"
            )
    return valid


def _gather_reference(x: Tensor, index: Tensor) -> Tensor:
    valid = _valid("gather_rows", index, len(x))
    if len(x) == 0:
        return x.new_zeros(len(index), x.shape[1])
    return torch.where(valid[:, None], x[index.where(valid, 0)], torch.zeros_like(x[:1]))


def _scatter_reference(x: Tensor, index: Tensor, rows: int) -> Tensor:
    valid = _valid("scatter_rows", index, rows)
    out = x.new_zeros(rows + 1, x.shape[1])  # the last row takes what is skipped
    out[index.where(valid, rows)] = x
    return out[:rows].clone()


def _gather_fake(x: Tensor, index: Tensor) -> Tensor:
    return x.new_empty(index.shape[0], x.shape[1])


def _scatter_fake(x: Tensor, index: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, x.shape[1])


# SymInt: packed text has another number of rows in every batch.
define("gather_rows(Tensor x, Tensor index) -> Tensor", _gather_reference, _gather_fake)
define(
    "scatter_rows(Tensor x, Tensor index, SymInt rows) -> Tensor",
    _scatter_reference,
    _scatter_fake,
)
