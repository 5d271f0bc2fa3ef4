"""The averaged copy whose attention chooses the window of super-resolution (section 3.4).

Why: docs/decisions.md#what-a-hidden-entity-looks-at.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ecamp.api.encoder import PatchEncoder
from ecamp.pretext.ecamp.fusion import ContextFusion
from ecamp.pretext.ecamp.text_tower import TextTower


class WindowTeacher(nn.Module):
    """Exponential moving average of encoder, text embeddings and fusion layer; gets no gradient.

    An average, because the attention of the model itself changes from step to step, and the window
    would jump with it.
    """

    def __init__(self, encoder: PatchEncoder, text: TextTower) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {name: copy.deepcopy(part) for name, part in _parts(encoder, text).items()}
        )
        self.requires_grad_(False)

    @torch.no_grad()
    def ema_update(self, encoder: PatchEncoder, text: TextTower, decay: float) -> None:
        """Update the average: a <- decay * a + (1 - decay) * model, for all parameters."""
        for name, part in _parts(encoder, text).items():
            pairs = zip(self.parts[name].parameters(), part.parameters(), strict=True)
            for average, value in pairs:
                average.lerp_(value, 1 - decay)

    @torch.no_grad()
    def attention(self, images: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Compute the cross-attention of every text position over the whole, unmasked image.

        Args:
            images: (batch, channels, size, size).
            ids: int64 (batch, S). padding: bool (batch, S), True = padding.

        Returns:
            Mean over heads, float (batch, S, rows, columns).
        """
        encoder, project = self.parts["encoder"], self.parts["project"]
        embeddings, fusion = self.parts["embeddings"], self.parts["fusion"]
        assert isinstance(encoder, PatchEncoder)
        assert isinstance(fusion, ContextFusion)
        self.eval()
        rows, columns = encoder.grid
        all_patches = torch.arange(rows * columns, device=images.device).expand(len(images), -1)
        patches = project(encoder.encode_visible(images, all_patches)[:, 1:])
        coarse = patches.mean(1, keepdim=True)
        output = fusion(embeddings(ids), patches, coarse, padding, need_attention=True)
        result: Tensor = output[1].float().mean(1).unflatten(2, (rows, columns))
        return result


def _parts(encoder: PatchEncoder, text: TextTower) -> dict[str, nn.Module]:
    assert text.project is not None
    return {
        "encoder": encoder,
        "project": text.project,
        "embeddings": text.embeddings,
        "fusion": text.fusion,
    }


def entity_maps(attention: Tensor, entities: Tensor) -> Tensor:
    """Average the attention of the entity tokens; all zero where a report has none.

    Args:
        attention: (batch, S, rows, columns). entities: bool (batch, S).

    Returns:
        (batch, rows, columns).
    """
    weight = entities.to(attention.dtype)
    fractions = weight / weight.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bs,bsrc->brc", fractions, attention)
