"""Op `insert_text`: reports of a step, each with its distilled text at a drawn boundary, packed.

A part of the data path, so for the host only; what follows it (`mask_tokens`) runs anywhere.

Random numbers. Philox4x32-10 with counter (0, sample id, step, OP) and the seed as key: word 0
decides the insertion, word 1 the boundary. So a text depends on (seed, step, sample id) alone, not
on the batch or its order; OP keeps the draws apart from those of the masking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define
from ecamp.ops.philox import philox

OP = 2  # last word of the counter; mask_tokens has 1


@dataclass(frozen=True)
class TextPool:
    """Encoded texts, one report and one distilled text per sample.

    Attributes:
        tokens: int32 (N,), all texts one after another.
        report_start, report_length, block_start, block_length: int64 (samples,), where report and
            distilled text appear among them; length 0 where there is none.
        edges: int64 (E,), tokens of a report before each boundary where text may be inserted.
        edge_start, edge_count: int64 (samples,), each report's range of them; at least one.
    """

    tokens: Tensor
    report_start: Tensor
    report_length: Tensor
    block_start: Tensor
    block_length: Tensor
    edges: Tensor
    edge_start: Tensor
    edge_count: Tensor


def insert_text(
    index: Tensor, pool: TextPool, step: int, seed: int, limit: int, max_length: int, cls: int
) -> tuple[Tensor, Tensor]:
    """Assemble the texts of a step.

    Args:
        index: int64 (batch,), sample ids.
        limit: round(p * 2**32), p the chance of an insertion.
        max_length: Tokens of a text with [CLS]; the rest is cut.
        cls: Id of [CLS].

    Returns:
        ids int64 (sum of lengths,), `[CLS] tokens ...` one text after another; lengths int64 (batch,).

    Raises:
        ValueError, RuntimeError: Wrong shape or dtype; an index outside the texts.
    """
    if index.dim() != 1 or index.dtype != torch.int64 or index.device.type != "cpu":
        raise ValueError(
            f"insert_text: index must be int64 (batch,) on the host, got {index.dtype} "
            f"{tuple(index.shape)} on {index.device}"
        )
    load_extension()
    out = torch.ops.ecamp.insert_text(
        index.contiguous(), pool.tokens, pool.report_start, pool.report_length, pool.block_start,
        pool.block_length, pool.edges, pool.edge_start, pool.edge_count, step, seed, limit,
        max_length, cls,
    )  # fmt: skip
    return out[0], out[1]


def _reference(
    index: Tensor, pool: Tensor, report_start: Tensor, report_length: Tensor, block_start: Tensor,
    block_length: Tensor, edges: Tensor, edge_start: Tensor, edge_count: Tensor, step: int,
    seed: int, limit: int, max_length: int, cls: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    samples, tokens = index.numpy(), pool.numpy()
    if samples.size and not 0 <= samples.min() <= samples.max() < len(report_start):
        raise ValueError(f"insert_text: an index lies outside 0..{len(report_start) - 1}")
    counter = np.zeros((len(samples), 4), np.uint32)
    counter[:, 1] = (samples & 0xFFFFFFFF).astype(np.uint32)
    counter[:, 2] = step & 0xFFFFFFFF
    counter[:, 3] = OP
    draws = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).tolist()
    texts = []
    for sample, draw in zip(samples.tolist(), draws, strict=True):
        report_offset, block_offset = int(report_start[sample]), int(block_start[sample])
        report = tokens[report_offset : report_offset + int(report_length[sample])]
        inserted = tokens[
            block_offset : block_offset + int(block_length[sample]) * (draw[0] < limit)
        ]
        edge_index = (draw[1] * int(edge_count[sample])) >> 32
        edge = int(edges[int(edge_start[sample]) + edge_index])
        text = np.concatenate([[cls], report[:edge], inserted, report[edge:]])
        texts.append(text[:max_length].astype(np.int64))
    joined = np.concatenate([np.zeros(0, np.int64), *texts])
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
    return torch.from_numpy(joined), lengths


def _fake(index: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return index.new_empty(size), torch.empty_like(index)


define(
    "insert_text(Tensor index, Tensor pool, Tensor report_start, Tensor report_length,"
    " Tensor block_start, Tensor block_length, Tensor edges, Tensor edge_start, Tensor edge_count,"
    " int step, int seed, int limit, int max_length, int cls) -> (Tensor, Tensor)",
    _reference,
    _fake,
)
