"""Schemas, references and shapes of `attention_forward` and `attention_backward`.

Plain torch, sample by sample, in float32, or in float64 for float64 inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecamp.ops._library import define
from ecamp.ops.philox import philox


def keep_factors(
    queries: int, keys: int, heads: int, sample: int, limit: int, keep_scale: float, seed: int,
    step: int,
) -> np.ndarray:  # fmt: skip
    """Draw the factors of one sample's probabilities under dropout: keep_scale or 0.

    Returns:
        float64 (heads, queries, keys).
    """
    blocks = -(-keys // 4)
    counter = np.zeros((heads, queries, blocks, 4), np.uint32)
    counter[..., 0] = np.arange(queries, dtype=np.uint32)[None, :, None]
    counter[..., 1] = (np.arange(heads, dtype=np.uint32) << np.uint32(16))[:, None, None]
    counter[..., 1] |= np.arange(blocks, dtype=np.uint32)
    counter[..., 2] = sample & 0xFFFFFFFF
    counter[..., 3] = step & 0xFFFFFFFF
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    words = words.reshape(heads, queries, blocks * 4)[..., :keys]
    return np.where(words.astype(np.uint64) >= np.uint64(limit), keep_scale, 0.0)


def _segments(
    name: str, start: Tensor, length: Tensor, rows: int, max_length: int
) -> list[tuple[int, int]]:
    """Return (first, last + 1) per sample.

    Raises:
        RuntimeError: A segment lies outside the rows or over another, as in the kernels.
    """
    spans = list(zip(start.tolist(), length.tolist(), strict=True))
    for b, (first, count) in enumerate(spans):
        if not (first >= 0 and 0 <= count <= max_length and first + count <= rows):
            raise RuntimeError(
                f"attention: the {name} of sample {b} (start {first}, length {count}) do not fit "
                f"{rows} rows or exceed the stated maximum {max_length}"
            )
    end = 0
    for first, count in sorted(span for span in spans if span[1] > 0):
        if first < end:
            raise RuntimeError(f"attention: two samples share {name} from row {first}")
        end = first + count
    return [(first, first + count) for first, count in spans]


def _samples(
    query: Tensor, key: Tensor, layout: tuple[Tensor, ...], max_query: int, max_key: int,
    limit: int, keep_scale: float, seed: int, step: int,
) -> Iterator[tuple[slice, slice, Tensor]]:  # fmt: skip
    """Yield each sample's rows of queries and of keys, and its keep factors (heads, queries, keys)."""
    query_start, query_length, key_start, key_length, sample_ids = layout
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    queries = _segments("queries", query_start, query_length, len(query), max_query)
    keys = _segments("keys", key_start, key_length, len(key), max_key)
    for rows, cols, sample in zip(queries, keys, sample_ids.tolist(), strict=True):
        shape = (rows[1] - rows[0], cols[1] - cols[0], query.shape[1])
        keep = torch.ones((shape[2], *shape[:2]), dtype=wide, device=query.device)
        if limit > 0:
            factors = keep_factors(*shape, sample, limit, keep_scale, seed, step)
            keep = torch.from_numpy(factors).to(query.device, wide)
        yield slice(*rows), slice(*cols), keep


def _without_autocast(reference: Callable[..., Any]) -> Callable[..., Any]:
    """Switch autocast off: still on below our op, it would turn float32 steps into bfloat16."""

    @wraps(reference)
    def run(first: Tensor, *rest: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return reference(first, *rest)

    return run


@_without_autocast
def forward_reference(
    query: Tensor, key: Tensor, value: Tensor, query_start: Tensor, query_length: Tensor,
    key_start: Tensor, key_length: Tensor, sample_ids: Tensor, max_query: int, max_key: int,
    limit: int, keep_scale: float, seed: int, step: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return output (Tq, heads, width) and log-sum-exp (Tq, heads), both zero outside segments."""
    output, lse = forward_fake(query)
    output.zero_()
    lse.zero_()
    layout = (query_start, query_length, key_start, key_length, sample_ids)
    for rows, cols, keep in _samples(
        query, key, layout, max_query, max_key, limit, keep_scale, seed, step
    ):
        if cols.start == cols.stop:
            continue
        q, k, v = (t.to(keep.dtype).transpose(0, 1) for t in (query[rows], key[cols], value[cols]))
        scores = (q @ k.mT) * scale
        output[rows] = ((scores.softmax(-1) * keep) @ v).transpose(0, 1).to(output.dtype)
        lse[rows] = scores.logsumexp(-1).T
    return output, lse


@_without_autocast
def backward_reference(
    output_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor,
    query_start: Tensor, query_length: Tensor, key_start: Tensor, key_length: Tensor,
    sample_ids: Tensor, max_query: int, max_key: int, limit: int, keep_scale: float, seed: int,
    step: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of query, key and value.

    With probability P, keep factor K and G = K * (output_grad value'), the gradient of the scores
    is P * (G - sum_j P G). `output` is not needed here; a kernel that sees the keys in tiles takes
    that sum from it, as sum(output * output_grad).
    """
    query_grad, key_grad, value_grad = (
        torch.zeros_like(t) for t in backward_fake(output_grad, query, key, value)
    )
    layout = (query_start, query_length, key_start, key_length, sample_ids)
    for rows, cols, keep in _samples(
        query, key, layout, max_query, max_key, limit, keep_scale, seed, step
    ):
        q, k, v, g = (
            t.to(keep.dtype).transpose(0, 1)
            for t in (query[rows], key[cols], value[cols], output_grad[rows])
        )
        p = ((q @ k.mT) * scale - lse[rows].T[..., None]).exp()
        kept_grad = keep * (g @ v.mT)
        score_grad = p * (kept_grad - (p * kept_grad).sum(-1, keepdim=True)) * scale
        query_grad[rows] = (score_grad @ k).transpose(0, 1).to(query.dtype)
        key_grad[cols] = (score_grad.mT @ q).transpose(0, 1).to(key.dtype)
        value_grad[cols] = ((p * keep).mT @ g).transpose(0, 1).to(value.dtype)
    return query_grad, key_grad, value_grad


def forward_fake(query: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=wide)


def backward_fake(
    output_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape),
    )  # fmt: skip


_LAYOUT = (
    "Tensor query_start, Tensor query_length, Tensor key_start, Tensor key_length,"
    " Tensor sample_ids, SymInt max_query, SymInt max_key, int limit, float keep_scale, SymInt seed,"
    " SymInt step, float scale"
)
define(
    f"attention_forward(Tensor query, Tensor key, Tensor value, {_LAYOUT}) -> (Tensor, Tensor)",
    forward_reference,
    forward_fake,
)
define(
    "attention_backward(Tensor output_grad, Tensor query, Tensor key, Tensor value, Tensor output,"
    f" Tensor lse, {_LAYOUT}) -> (Tensor, Tensor, Tensor)",
    backward_reference,
    backward_fake,
)
