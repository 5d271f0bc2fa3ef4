"""`attention`: softmax attention over packed or padded segments, with counter-based dropout.

    out[i] = sum_j keep(i, j) / (1 - p) * softmax_j(scale * query[i] . key[j]) * value[j]

Queries and keys are rows of [T, heads, width] tensors; a layout says which rows belong to which
sample. Packed text has the samples back to back, padded text each at b * length; both give
the same bits, forward and backward. It serves self-attention (one set of segments for queries and
keys) and attention from text to image patches (two).

Rows outside all segments are zero, in the output and in gradients. A sample without keys gives
zero output and passes no gradient.

Random numbers. Philox4x32-10 with counter (query position in its sequence,
head << 16 | key position // 4, sample id, step) and the seed as key; word key position % 4 decides:
a probability is kept when it is >= round(p * 2**32). So dropout depends on (seed, step, sample id,
positions, head) alone, not on layout, order of samples, threads or device.

The forward pass keeps the log-sum-exp of each row; the backward pass computes probabilities anew
and needs no atomics. On a GPU these are plain kernels without tensor cores: for padded work torch's
`scaled_dot_product_attention` may well be faster there; these are for packed rows with dropout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._attention_reference import backward_reference, forward_reference
from ecamp.ops._ext import load_extension
from ecamp.ops._library import autocast_dtype

MAX_WIDTH, MAX_KEYS = 128, 4 * 65535


@dataclass(frozen=True)
class AttentionLayout:
    """Where each sample's rows lie. All tensors int64 (B,), on the device of the queries.

    Segments of queries must not share rows with each other, nor those of keys (checked on a CPU;
    on a GPU a segment outside its tensor or above the maximum is left out).

    Attributes:
        query_start, query_length: Rows of `query` by sample.
        key_start, key_length: Rows of `key` and `value` by sample.
        sample_ids: Each sample's number in its data set, for dropout.
        max_query, max_key: Bounds of the lengths, known to the host, so that no GPU is waited for.
    """

    query_start: Tensor
    query_length: Tensor
    key_start: Tensor
    key_length: Tensor
    sample_ids: Tensor
    max_query: int
    max_key: int


def pack_layout(
    lengths: Tensor,
    sample_ids: Tensor,
    max_length: int,
    *,
    keys: int | None = None,
) -> AttentionLayout:
    """Concatenate samples without padding.

    Args:
        lengths, sample_ids: int64 (B,).
        max_length: Bound of the lengths, for instance the window of the tokenizer.
        keys: None for self-attention; else each sample has this many rows of its own in `key`
            and `value`, for instance its image patches.
    """
    start = lengths.cumsum(0) - lengths
    return _layout(start, lengths, sample_ids, max_length, keys)


def pad_layout(
    batch: int, length: int, lengths: Tensor, sample_ids: Tensor, *, keys: int | None = None
) -> AttentionLayout:
    """Place sample b at rows b * length, `lengths[b]` of them real; `keys` as in `pack_layout`."""
    start = torch.arange(batch, device=lengths.device) * length
    return _layout(start, lengths, sample_ids, length, keys)


def _layout(
    start: Tensor, lengths: Tensor, sample_ids: Tensor, max_query: int, keys: int | None
) -> AttentionLayout:
    if keys is None:
        return AttentionLayout(start, lengths, start, lengths, sample_ids, max_query, max_query)
    key_start = torch.arange(len(lengths), device=lengths.device) * keys
    key_length = torch.full_like(lengths, keys)
    return AttentionLayout(start, lengths, key_start, key_length, sample_ids, max_query, keys)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: AttentionLayout,
    *,
    dropout: float = 0.0,
    seed: int = 0,
    step: int = 0,
    scale: float | None = None,
) -> Tensor:
    """Attend from each sample's queries to its own keys.

    Args:
        query: (Tq, heads, width); width a multiple of 16 up to 128. float32, bfloat16 or float16;
            float64 runs on the reference. Strided views are read in place if their last axis is
            contiguous; split a fused projection (T, 3, heads, width) with `unbind(1)`, whose
            backward is one copy.
        key, value: (Tk, heads, width).
        dropout: Fraction of probabilities dropped, in [0, 1).
        seed, step: Non-negative; see the module for what they decide.
        scale: 1 / sqrt(width) unless given.

    Returns:
        (Tq, heads, width), contiguous.

    Raises:
        ValueError: Wrong shape, dtype, device or number.
        RuntimeError: On a CPU: a segment outside its tensor, or two that share rows.
    """
    query, key, value = (t.to(autocast_dtype(t) or t.dtype) for t in (query, key, value))
    _check(query, key, value, layout)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"attention: dropout must lie in [0, 1), got {dropout}")
    if scale is None:
        scale = query.shape[2] ** -0.5
    if not math.isfinite(scale):
        raise ValueError(f"attention: scale must be finite, got {scale}")
    load_extension()
    result: Tensor = _Attention.apply(
        *(_dense_last(t) for t in (query, key, value)),
        layout.query_start.contiguous(), layout.query_length.contiguous(),
        layout.key_start.contiguous(), layout.key_length.contiguous(),
        layout.sample_ids.contiguous(),
        (layout.max_query, layout.max_key, threshold(dropout), 1.0 / (1.0 - dropout), seed, step,
         float(scale)),
    )  # fmt: skip
    return result


def threshold(p: float) -> int:
    """Compute round(p * 2**32): a probability is dropped when its 32-bit draw is below."""
    return round(p * 2.0**32)


def _dense_last(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _check(query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout) -> None:
    if query.dim() != 3 or query.shape[2] % 16 or not 0 < query.shape[2] <= MAX_WIDTH:
        raise ValueError(
            "attention: query must be (rows, heads, width) with a width that is a multiple of 16 "
            f"up to {MAX_WIDTH}, got {tuple(query.shape)}"
        )
    if not query.is_floating_point():
        raise ValueError(f"attention: query must be floating, got {query.dtype}")
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dim() != 3 or tensor.shape[1:] != query.shape[1:] or tensor.dtype != query.dtype:
            raise ValueError(
                f"attention: {name} must be {query.dtype} (rows, {query.shape[1]}, "
                f"{query.shape[2]}) as query, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if len(key) != len(value):
        raise ValueError(f"attention: key has {len(key)} rows, value {len(value)}")
    batch = layout.query_start.shape
    for name in ("query_start", "query_length", "key_start", "key_length", "sample_ids"):
        part = getattr(layout, name)
        if part.dim() != 1 or part.shape != batch or part.dtype != torch.int64:
            raise ValueError(
                f"attention: {name} must be int64 {tuple(batch)}, "
                f"got {part.dtype} {tuple(part.shape)}"
            )
        if part.device != query.device:
            raise ValueError(
                f"attention: {name} lies on {part.device}, query on {query.device}; "
                "move them together"
            )
    if key.device != query.device or value.device != query.device:
        raise ValueError("attention: query, key and value must lie on one device")
    if not 0 <= layout.max_key <= MAX_KEYS or layout.max_query < 0:
        raise ValueError(
            f"attention: max_key must lie in 0..{MAX_KEYS} and max_query be at least 0, "
            f"got {layout.max_key} and {layout.max_query}"
        )


class _Attention(torch.autograd.Function):
    """Attention with gradients: saves inputs, output and log-sum-exp; float64 uses the reference."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, query_start: Tensor,
        query_length: Tensor, key_start: Tensor, key_length: Tensor, sample_ids: Tensor,
        numbers: tuple[Any, ...],
    ) -> Tensor:  # fmt: skip
        layout = (query_start, query_length, key_start, key_length, sample_ids)
        double = query.dtype == torch.float64
        run = forward_reference if double else torch.ops.ecamp.attention_forward
        output: Tensor
        output, lse = run(query, key, value, *layout, *numbers)
        ctx.save_for_backward(query, key, value, output, lse, *layout)
        ctx.numbers = numbers
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse, *layout = ctx.saved_tensors
        double = query.dtype == torch.float64
        run = backward_reference if double else torch.ops.ecamp.attention_backward
        grads = run(_dense_last(output_grad), query, key, value, output, lse, *layout, *ctx.numbers)
        return (*grads, None, None, None, None, None, None)
