"""The published ECAMP model as one pure function from images and masked texts to three losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from ecamp.api.encoder import PatchEncoder
from ecamp.api.pretext import Objective
from ecamp.pretext.ecamp.text_tower import TextTower
from ecamp.pretext.images import unpatchify
from ecamp.published.pretraining.image import (
    Decoder,
    SuperResolution,
    enlarge,
    published_table,
    shrink,
    window_cells,
    window_mask,
)


@dataclass(frozen=True)
class Losses:
    """Results of a step: the losses and their inputs.

    Attributes:
        mim: Masked-image loss. sr: Super-resolution loss. mlm: Text loss.
        small: (batch, c, size, size) encoder input.
        keep: int64 (batch, kept) visible patches, in the order of their noise.
        removed: bool (batch, patches). window: bool (batch, grid, grid).
        tokens: (batch, 1 + kept, width) encoder output.
        predicted: (batch, patches, values). refined: (batch, c, scale*size, scale*size).
        logits: (batch, S, vocabulary).
    """

    mim: Tensor
    sr: Tensor
    mlm: Tensor
    small: Tensor
    keep: Tensor
    removed: Tensor
    window: Tensor
    tokens: Tensor
    predicted: Tensor
    refined: Tensor
    logits: Tensor

    @property
    def total(self) -> Tensor:
        """Return the sum of the three, 1:1:1."""
        return self.mim + self.sr + self.mlm


class PublishedModel(Objective):
    """Encoder, image decoder, super-resolution, text tower with an output matrix of its own.

    Args:
        encoder: Its weights are drawn again as published unless they are pre-trained
            (`encoder.pretrained`); then its position table is kept too.
        decoder: Width, depth and heads of the image decoder.
        text: Sizes of the text tower.
        scale: Side of the large images over the encoder's input side.
        mask_ratio: Fraction of patches removed.
        decoder_mlp_ratio: Hidden width of the image decoder's perceptrons over its width.
    """

    def __init__(
        self,
        encoder: PatchEncoder,
        decoder: tuple[int, int, int],
        text: BertConfig,
        *,
        scale: int = 2,
        mask_ratio: float = 0.75,
        decoder_mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        window_cells(encoder.grid[0])
        self.encoder: PatchEncoder = encoder
        self.mask_ratio = mask_ratio
        self.decoder = Decoder(encoder, *decoder, decoder_mlp_ratio)
        self.super_resolution = SuperResolution(encoder.channels, scale)
        self.text = TextTower(text, encoder.width, tied=False)
        self._initialise()

    @property
    def patches(self) -> int:
        """Number of patches per image."""
        return self.encoder.grid[0] * self.encoder.grid[1]

    def _initialise(self) -> None:
        """Initialise every dense layer by Xavier, the text tower's too; its embeddings stay normal."""
        parts: list[nn.Module] = [self.decoder, self.text]
        vit = getattr(self.encoder, "vit", None)
        if not self.encoder.pretrained:
            parts.append(self.encoder)
        for module in (m for part in parts for m in part.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.decoder.mask_token, std=0.02)
        if vit is None:
            return
        vit.pos_embed.requires_grad_(False)
        if not self.encoder.pretrained:
            nn.init.xavier_uniform_(vit.patch_embed.proj.weight.data.flatten(1))
            nn.init.normal_(vit.cls_token, std=0.02)
            vit.pos_embed.data.copy_(published_table(self.encoder.width, *self.encoder.grid))

    def losses(
        self,
        images_large: Tensor,
        noise: Tensor,
        row: Tensor,
        column: Tensor,
        ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor,
        weights: Tensor,
        *,
        antialias: bool = False,
    ) -> Losses:
        """Compute everything from the arguments; nothing is drawn, except dropout.

        Args:
            images_large: (batch, c, scale*size, scale*size), normalised.
            noise: (batch, patches); patches with the smallest numbers stay visible.
            row, column: int64 (batch,), the window of each image (`image.window_mask`).
            ids: int64 (batch, S), masked. labels: int64 (batch, S), before masking.
            attention_mask: int64 (batch, S), 0 = padding. weights: (batch, S).
            antialias: Antialias when images are shrunk, as newer torchvision does.
        """
        encoder = self.encoder
        small = shrink(images_large, encoder.image_size, antialias)
        keep = noise.argsort(1)[:, : int(self.patches * (1 - self.mask_ratio))]
        removed = torch.ones_like(noise, dtype=torch.bool).scatter_(1, keep, False)
        tokens = encoder.encode_visible(small, keep)
        predicted = self.decoder(tokens, keep)
        image = unpatchify(predicted, encoder.patch_size, encoder.channels)
        refined = self.super_resolution(image)
        window = window_mask(row, column, encoder.grid[0])
        window_pixels = enlarge(window, images_large.shape[-1] // encoder.grid[0])
        removed_pixels = enlarge(removed.unflatten(1, encoder.grid), encoder.patch_size)
        # Means over all pixels: those outside count as zeros, and make the losses smaller
        # (docs/published-flaws.md#f35).
        mim = F.mse_loss(image * removed_pixels, small * removed_pixels)
        sr = F.mse_loss(refined * window_pixels, images_large * window_pixels)
        hidden = self.text(ids, attention_mask == 0, tokens[:, 1:])
        logits = self.text.logits(hidden)
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        mlm = (
            cross_entropy * weights.flatten()
        ).mean()  # padding included: docs/published-flaws.md#f29
        return Losses(
            mim, sr, mlm, small, keep, removed, window, tokens, predicted, refined, logits
        )
