"""Multi-scale context fusion (Wang et al., arXiv 2312.13316, section 3.3).

One layer between the text embeddings and the text stack, where the report meets the image at two
scales: fine (every patch token, through cross-attention) and coarse (the global token, the same
for each position). Both `ecamp` and `ecamp-published` use it; its parts carry the
names that BERT gives them, so that published weights can be read by name.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import (
    BertAttention,
    BertIntermediate,
    BertOutput,
    BertSelfOutput,
)

# Image context that reaches the text: both scales, patches only, global token only (as in MRM,
# Zhou et al., ICLR 2023), nothing.
MODES = ("multi-scale", "fine", "global", "none")


def with_sdpa(config: BertConfig) -> BertConfig:
    """Copy the configuration so that BERT layers use torch's fused attention."""
    config = copy.deepcopy(config)
    config._attn_implementation = "sdpa"
    return config


def additive_mask(padding: Tensor, like: Tensor) -> Tensor:
    """Turn padded keys into a mask that is added to attention scores.

    The smallest finite number, not minus infinity, as BERT does: a row without any real key gets
    equal attention instead of NaN.

    Args:
        padding: bool (batch, keys), True = padding.
        like: Hidden states, for the type that scores will have.

    Returns:
        (batch, 1, 1, keys).
    """
    device = like.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else like.dtype
    mask = torch.zeros(padding.shape, dtype=dtype, device=padding.device)
    return mask.masked_fill_(padding, torch.finfo(dtype).min)[:, None, None, :]


class CrossAttention(nn.Module):
    """Multi-head attention from text to patches, without an output projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, text: Tensor, patches: Tensor, mask: Tensor | None, need_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from text to patches.

        Args:
            text: (batch, S, width). patches: (batch, L, width).
            mask: Added to the scores, broadcastable to (batch, heads, S, L).

        Returns:
            Context (batch, S, width); probabilities (batch, heads, S, L) where asked for.
        """
        query, key, value = (
            project(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, source in (
                (self.query, text), (self.key, patches), (self.value, patches),
            )
        )  # fmt: skip
        dropout = self.dropout if self.training else 0.0
        if not need_attention:
            context = F.scaled_dot_product_attention(query, key, value, mask, dropout)
            return context.transpose(1, 2).flatten(2), None
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        attention = (scores if mask is None else scores + mask).softmax(-1)
        context = F.dropout(attention, dropout).to(value.dtype) @ value
        return context.transpose(1, 2).flatten(2), attention


class ContextFusion(nn.Module):
    """Self-attention over the text, image context in, feed-forward; post-norm as in BERT.

    Args:
        config: Sizes, activation, dropout.
        mode: One of `MODES`. Parts that a mode does not use are not built.

    Raises:
        ValueError: When `mode` is unknown.
    """

    def __init__(self, config: BertConfig, mode: str = "multi-scale") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"ContextFusion: mode '{mode}' is not one of {', '.join(MODES)}")
        config = with_sdpa(config)
        self.mode = mode
        self.fine = mode in ("multi-scale", "fine")
        self.coarse = mode in ("multi-scale", "global")
        self.attention = BertAttention(config)
        if self.fine:
            self.cross_attention = CrossAttention(config)
        if self.coarse:
            self.global_projection = nn.Linear(config.hidden_size, config.hidden_size)
        if self.fine or self.coarse:
            self.merge = BertSelfOutput(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config)

    def forward(
        self,
        text: Tensor,
        patches: Tensor,
        global_token: Tensor,
        padding: Tensor | None = None,
        patch_padding: Tensor | None = None,
        need_attention: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Fuse image context into the text.

        Args:
            text: (batch, S, width) embeddings.
            patches: (batch, L, width) projected patch tokens, without class token.
            global_token: (batch, 1, width).
            padding: bool (batch, S), True = padding; padded rows are computed too.
            patch_padding: bool (batch, L), True = padding.
            need_attention: Return the cross-attention as well.

        Returns:
            (batch, S, width) [, probabilities (batch, heads, S, L)].

        Raises:
            ValueError: When attention is requested in a mode without cross-attention.
        """
        if need_attention and not self.fine:
            raise ValueError(f"ContextFusion: mode '{self.mode}' has no cross-attention")
        mask = None if padding is None else additive_mask(padding, text)
        text = self.attention(text, mask)[0]
        attention = context = None
        if self.fine:
            mask = None if patch_padding is None else additive_mask(patch_padding, text)
            context, attention = self.cross_attention(text, patches, mask, need_attention)
        if self.coarse:
            projected = self.global_projection(global_token)
            context = projected.expand_as(text) if context is None else context + projected
        if context is not None:
            text = self.merge(context, text)
        text = self.output(self.intermediate(text), text)
        return text if attention is None else (text, attention)
