"""Text branch: BERT embeddings, context fusion, a small BERT stack, the vocabulary head.

Wang et al., arXiv 2312.13316, sections 3.2 and 3.3. Used by `ecamp` (output matrix tied to
the word embeddings) and by `ecamp-published` (a matrix of its own).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import (
    BertEmbeddings,
    BertLayer,
    BertPredictionHeadTransform,
)

from ecamp.ops.linear_weighted_ce import linear_weighted_ce
from ecamp.pretext.ecamp.config import ArchitectureConfig
from ecamp.pretext.ecamp.fusion import ContextFusion, additive_mask, with_sdpa
from ecamp.pretext.ecamp.packed_text import DropoutKey, TextRows, encode_rows


class TextTower(nn.Module):
    """Masked reports in the context of their images.

    Args:
        config: Sizes of the text stack; `pad_token_id` names the embedding row that stays zero.
        image_width: Length of a patch token.
        tied: Whether the output matrix is the word embeddings (docs/published-flaws.md#f32).
        fusion: Image context that reaches the text, one of `fusion.MODES`.
    """

    def __init__(
        self,
        config: BertConfig,
        image_width: int,
        *,
        tied: bool = True,
        fusion: str = "multi-scale",
    ) -> None:
        super().__init__()
        config = with_sdpa(config)
        self.dropout = config.hidden_dropout_prob
        self.embeddings = BertEmbeddings(config)
        self.fusion = ContextFusion(config, fusion)
        # A text without image has nothing to project.
        self.project = nn.Linear(image_width, config.hidden_size) if fusion != "none" else None
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        self.transform = BertPredictionHeadTransform(config)
        self.output = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.apply(self._initialise)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Initialise like BERT: normal weights with std 0.02, zero biases, a zero row for padding."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight.data[module.padding_idx])

    def forward(
        self, ids: Tensor, padding: Tensor, patches: Tensor, need_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Encode padded reports.

        The global token is the mean of the projected patch tokens that were given.

        Args:
            ids: int64 (batch, S). padding: bool (batch, S), True = padding.
            patches: (batch, L, image width) visible patch tokens, without class token.
            need_attention: Return the cross-attention of the fusion layer as well.

        Returns:
            Hidden states (batch, S, width) [, probabilities (batch, heads, S, L)].
        """
        fine = patches if self.project is None else self.project(patches)
        return self.encode(ids, padding, fine, fine.mean(1, keepdim=True), need_attention)

    def encode(
        self,
        ids: Tensor,
        padding: Tensor,
        patches: Tensor,
        global_token: Tensor,
        need_attention: bool = False,
        type_ids: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Do the same from projected patches (batch, L, width) and a global token (batch, 1, width).

        Args:
            type_ids: int64 (batch, S) BERT's token types; all 0 where not given.
        """
        hidden = self.embeddings(ids, type_ids)
        fused = self.fusion(hidden, patches, global_token, padding, None, need_attention)
        hidden, attention = fused if need_attention else (fused, None)
        mask = additive_mask(padding, hidden)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden if attention is None else (hidden, attention)

    def logits(self, rows: Tensor) -> Tensor:
        """Compute scores over the vocabulary, (..., width) -> (..., vocabulary)."""
        output = self.embeddings.word_embeddings if self.output is None else self.output
        return F.linear(self.transform(rows), output.weight, self.bias)

    def forward_rows(self, rows: TextRows, patches: Tensor, seed: int, step: int) -> Tensor:
        """Encode tokens without padding between them; dropout is drawn by (seed, step, sample).

        Args:
            patches: (batch, L, image width) visible patch tokens, without class token.

        Returns:
            Hidden states (T, width).
        """
        fine = patches if self.project is None else self.project(patches)
        dropout_key = DropoutKey(self.dropout if self.training else 0.0, seed, step)
        return encode_rows(
            self.embeddings,
            self.fusion,
            self.layers,
            rows,
            fine,
            fine.mean(1, keepdim=True),
            dropout_key,
        )

    def loss(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Compute the weighted cross-entropy, sum(w * CE) / sum(w), of predicted rows only.

        Args:
            hidden: (M, width). labels: int64 (M,), the tokens before masking. weights: (M,).
        """
        output = self.embeddings.word_embeddings if self.output is None else self.output
        weights = weights.to(torch.promote_types(hidden.dtype, torch.float32))
        total = linear_weighted_ce(
            self.transform(hidden), output.weight, self.bias, labels, weights
        )
        return total / weights.sum().clamp(min=1e-6)


def text_config(config: ArchitectureConfig, vocabulary: int) -> BertConfig:
    """Return the sizes of the text tower as transformers' BERT configuration."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=config.text_width,
        num_hidden_layers=config.text_depth,
        num_attention_heads=config.text_heads,
        intermediate_size=2 * config.text_width,
        max_position_embeddings=config.text_length,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
