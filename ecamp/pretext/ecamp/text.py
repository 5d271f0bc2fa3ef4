"""Text branch: multi-scale context fusion (section 3.3 of the paper), then a small BERT stack."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FusionLayer(nn.Module):
    """Image context meets the text, coarse and fine.

    Self-attention over the text; cross-attention with text as query and visible patch tokens as
    keys and values; a projection of the patches' mean (the global token) is added to every
    position; dense, residual, norm, feed-forward.
    """

    def __init__(self, width: int, image_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.project_patches = nn.Linear(image_width, width)
        self.project_global = nn.Linear(image_width, width)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dense = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.feed_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Tensor, patches: Tensor, padding: Tensor) -> Tensor:
        """Fuse.

        Args:
            text: (batch, L, width) embeddings.
            patches: (batch, kept, image width) visible patch tokens, without class token.
            padding: bool (batch, L), True where there is no token.
        """
        attended, _ = self.self_attention(
            text, text, text, key_padding_mask=padding, need_weights=False
        )
        text = self.self_norm(text + self.dropout(attended))
        fine = self.project_patches(patches)
        crossed, _ = self.cross_attention(text, fine, fine, need_weights=False)
        coarse = self.project_global(patches.mean(1, keepdim=True))
        text = self.cross_norm(text + self.dropout(self.dense(crossed + coarse)))
        return self.feed_norm(text + self.dropout(self.feed_forward(text)))


class TextTower(nn.Module):
    """Embeddings, the fusion layer, transformer layers, and the tied vocabulary head."""

    def __init__(
        self, vocabulary: int, length: int, width: int, image_width: int, depth: int, heads: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(1, length, width))
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.fusion = FusionLayer(width, image_width, heads, dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, activation="gelu", batch_first=True
            )
            for _ in range(depth)
        )
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids: Tensor, lengths: Tensor, patches: Tensor) -> Tensor:
        """Encode masked reports in the context of their images.

        Args:
            ids: int64 (batch, L). lengths: int64 (batch,). patches: (batch, kept, image width).

        Returns:
            Hidden states (batch, L, width).
        """
        padding = torch.arange(ids.shape[1]) >= lengths.unsqueeze(1)
        hidden = self.token(ids) + self.position[:, : ids.shape[1]]
        hidden = self.fusion(self.dropout(self.norm(hidden)), patches, padding)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return hidden

    def loss_sums(
        self, hidden: Tensor, labels: Tensor, mask: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """sum(w * cross-entropy) and sum(w) over the predicted positions.

        The vocabulary projection runs on predicted rows only; the rest is never computed.
        """
        rows = hidden[mask]
        logits = F.linear(self.transform(rows), self.token.weight, self.bias)
        entropy = F.cross_entropy(logits.float(), labels[mask], reduction="none")
        weight = weights[mask]
        return (weight * entropy).sum(), weight.sum()
