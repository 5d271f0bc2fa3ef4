"""The text branch over rows of tokens instead of padded rectangles.

A batch of reports becomes one list of tokens; linear layers run over it whole, attention over each
report's segment of it. Padding costs nothing because it is not there. `packed=False` keeps the
filler rows and computes the same: dropout is drawn by (seed, step, sample, position), so both give
the same losses, dropout included.

The parameters are those of `TextTower`; this file only computes with them.

Why: docs/decisions.md#packed-text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertAttention, BertLayer

from ecamp.ops.attention import AttentionLayout, attention, pack_layout, pad_layout
from ecamp.ops.dropout_rows import dropout_rows
from ecamp.ops.residual_norm import residual_norm
from ecamp.pretext.ecamp.fusion import ContextFusion

_HASH_FACTOR = 0x9E3779B97F4A7C15  # an odd constant that spreads small numbers over 64 bits


@dataclass(frozen=True)
class TextRows:
    """Tokens of a batch of reports as rows.

    Attributes:
        ids: int64 (T,) input of the model. labels: int64 (T,) the tokens before masking.
        weights: float32 (T,) loss weight. predicted: int64 (M,) rows that count in the loss.
        positions: int64 (T,) in the report. report_index: int64 (T,) report of the batch.
        samples: int64 (T,) sample id of the report, for counter-based random numbers.
        sample_ids: int64 (batch,). layout: Segments of the reports among the rows.
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    predicted: Tensor
    positions: Tensor
    report_index: Tensor
    samples: Tensor
    sample_ids: Tensor
    layout: AttentionLayout

    @classmethod
    def of(
        cls, masked: Tensor, labels: Tensor, predicted: Tensor, weights: Tensor, lengths: Tensor,
        sample_ids: Tensor, *, packed: bool = True,
    ) -> TextRows:  # fmt: skip
        """Make rows from packed fields (T,), on the host: counts are read here, never on a GPU.

        Args:
            predicted: bool (T,). lengths, sample_ids: int64 (batch,).
            packed: False puts filler rows between reports, as padded text has; for comparison.
        """
        batch, longest = len(lengths), int(lengths.max()) if len(lengths) else 0
        start = lengths.cumsum(0) - lengths
        report_index = torch.repeat_interleave(torch.arange(batch), lengths)
        positions = torch.arange(len(labels)) - start[report_index]
        rows = predicted.nonzero().flatten()
        if packed:
            layout = pack_layout(lengths, sample_ids, longest)
        else:
            layout = pad_layout(batch, longest, lengths, sample_ids)
            filled_index = report_index * longest + positions
            masked, labels, weights = (
                value.new_zeros(batch * longest).index_copy_(0, filled_index, value)
                for value in (masked, labels, weights)
            )
            rows = filled_index[rows]
            report_index = torch.arange(batch).repeat_interleave(longest)
            positions = torch.arange(longest).repeat(batch)
        return cls(
            masked,
            labels,
            weights,
            rows,
            positions,
            report_index,
            sample_ids[report_index],
            sample_ids,
            layout,
        )

    def cross_layout(self, patches: int) -> AttentionLayout:
        """Let every report attend to all `patches` patches of its image."""
        batch = len(self.sample_ids)
        device = self.ids.device
        return AttentionLayout(
            self.layout.query_start,
            self.layout.query_length,
            torch.arange(batch, device=device) * patches,
            torch.full((batch,), patches, dtype=torch.int64, device=device),
            self.sample_ids,
            self.layout.max_query,
            patches,
        )


@dataclass(frozen=True)
class DropoutKey:
    """Dropout of one step; each layer that drops takes another `salt`."""

    p: float
    seed: int
    step: int

    def fold_in(self, salt: int) -> int:
        """Derive the key of one layer's dropout, 0 .. 2**63 - 1."""
        return (self.seed ^ (salt * _HASH_FACTOR)) & (2**63 - 1)


def encode_rows(
    embeddings: Any, fusion: ContextFusion, layers: Iterable[Any], rows: TextRows,
    patches: Tensor, global_token: Tensor, dropout_key: DropoutKey,
) -> Tensor:  # fmt: skip
    """Embed, fuse, encode.

    Args:
        patches: (batch, L, width) projected. global_token: (batch, 1, width).

    Returns:
        (T, width).
    """
    words = embeddings.word_embeddings(rows.ids) + embeddings.position_embeddings(rows.positions)
    hidden = embeddings.LayerNorm(words + embeddings.token_type_embeddings.weight[0])
    hidden = dropout_rows(
        hidden,
        dropout_key.p,
        dropout_key.fold_in(1),
        dropout_key.step,
        rows.samples,
        rows.positions,
    )
    hidden = fuse_rows(fusion, hidden, rows, patches, global_token, dropout_key)
    for i, layer in enumerate(layers):
        hidden = layer_rows(layer, hidden, rows, dropout_key, 16 * (i + 2))
    return hidden


def fuse_rows(
    fusion: ContextFusion, text: Tensor, rows: TextRows, patches: Tensor, global_token: Tensor,
    dropout_key: DropoutKey,
) -> Tensor:  # fmt: skip
    """Apply `ContextFusion` to rows.

    The global token is one vector per report, and so is its part of the merging layer's output:
    W (context + global) + b = W context + (W global + b).
    """
    text = attention_rows(fusion.attention, text, rows, dropout_key, 16)
    if fusion.fine or fusion.coarse:
        dense, norm = fusion.merge.dense, fusion.merge.LayerNorm
        shift = None
        if fusion.coarse:
            shift = dense(fusion.global_projection(global_token)).flatten(0, 1)
        if fusion.fine:
            cross = fusion.cross_attention
            query = cross.query(text).unflatten(-1, (cross.heads, -1))
            key, value = (
                project(patches).flatten(0, 1).unflatten(-1, (cross.heads, -1))
                for project in (cross.key, cross.value)
            )
            context = _attend(
                query, key, value, rows.cross_layout(patches.shape[1]), dropout_key, 20
            )
            # The bias is in `shift` already, where there is one.
            merged = F.linear(context, dense.weight, None if shift is not None else dense.bias)
        else:
            assert shift is not None
            merged, shift = shift.index_select(0, rows.report_index), None
        text = _residual_norm(merged, text, norm, rows, dropout_key, 21, shift)
    return _feed_forward(fusion.intermediate, fusion.output, text, rows, dropout_key, 22)


def layer_rows(
    layer: BertLayer, hidden: Tensor, rows: TextRows, dropout_key: DropoutKey, salt: int
) -> Tensor:
    """Apply one BERT layer to rows."""
    hidden = attention_rows(layer.attention, hidden, rows, dropout_key, salt)
    return _feed_forward(layer.intermediate, layer.output, hidden, rows, dropout_key, salt + 4)


def attention_rows(
    module: BertAttention, hidden: Tensor, rows: TextRows, dropout_key: DropoutKey, salt: int
) -> Tensor:
    """Apply BERT's self-attention with its residual and norm."""
    projections, heads = module.self, module.self.num_attention_heads
    query, key, value = (
        project(hidden).unflatten(-1, (heads, -1))
        for project in (projections.query, projections.key, projections.value)
    )
    output = module.output
    dense = output.dense(_attend(query, key, value, rows.layout, dropout_key, salt))
    return _residual_norm(dense, hidden, output.LayerNorm, rows, dropout_key, salt + 1)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: AttentionLayout,
    dropout_key: DropoutKey,
    salt: int,
) -> Tensor:
    """Attend over (T, heads, width) rows; (T, heads * width)."""
    width = query.shape[-1]
    # The op takes widths in steps of 16; zeros change no product and no sum.
    padding = (0, -width % 16)
    query, key, value = (F.pad(x, padding) if padding[1] else x for x in (query, key, value))
    context = attention(
        query, key, value, layout,
        dropout=dropout_key.p, seed=dropout_key.fold_in(salt), step=dropout_key.step, scale=width**-0.5,
    )  # fmt: skip
    return context[..., :width].flatten(1)


def _feed_forward(
    intermediate: nn.Module, output: Any, hidden: Tensor, rows: TextRows, dropout_key: DropoutKey,
    salt: int,
) -> Tensor:  # fmt: skip
    dense = output.dense(intermediate(hidden))
    return _residual_norm(dense, hidden, output.LayerNorm, rows, dropout_key, salt)


def _residual_norm(
    x: Tensor, residual: Tensor, norm: nn.LayerNorm, rows: TextRows, dropout_key: DropoutKey, salt: int,
    shift: Tensor | None = None,
) -> Tensor:  # fmt: skip
    return residual_norm(
        x, residual, norm.weight, norm.bias, eps=norm.eps, row_bias=shift,
        row_batch=None if shift is None else rows.report_index, dropout=dropout_key.p,
        seed=dropout_key.fold_in(salt), step=dropout_key.step, samples=rows.samples, positions=rows.positions,
    )  # fmt: skip
