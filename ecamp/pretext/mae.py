"""Masked autoencoder (He et al., CVPR 2022): reconstruct removed patches from visible ones."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ecamp.api.encoder import Encoder, PatchEncoder
from ecamp.api.plugin import PluginConfig
from ecamp.api.pretext import Objective, PretextBatch, PretextContext, PretextPlugin, Preview
from ecamp.ops.masked_mse import masked_mse
from ecamp.pretext.images import (
    PatchDecoder,
    masked_panels,
    patchify,
    random_keep,
    restore_patches,
)


class MAEConfig(PluginConfig):
    """Options of masking and decoder."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="fraction of patches removed")
    norm_pix: bool = Field(default=True, description="normalise the target of each patch")
    decoder_width: int = Field(default=96, ge=16, description="decoder token length")
    decoder_depth: int = Field(default=2, ge=1, description="decoder blocks")
    decoder_heads: int = Field(default=4, ge=1, description="decoder heads")


class MAE(PretextPlugin[MAEConfig]):
    """Masked autoencoder; reads images only."""

    summary = "masked autoencoder: reconstruct removed patches (images only)"
    licence = "Apache-2.0"
    citation = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
    needs = frozenset({"image"})
    requires = frozenset({"visible"})

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        assert isinstance(encoder, PatchEncoder)
        return MAEObjective(encoder, self.config)


class MAEObjective(Objective):
    """Encoder, decoder, masked mean squared error."""

    def __init__(self, encoder: PatchEncoder, config: MAEConfig) -> None:
        super().__init__()
        self.encoder: PatchEncoder = encoder
        self.config = config
        self.decoder = PatchDecoder(
            encoder, config.decoder_width, config.decoder_depth, config.decoder_heads
        )

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        predicted, mask = self._predict(batch)
        loss = masked_mse(
            predicted, batch.images, mask, self.encoder.patch_size, normalise=self.config.norm_pix
        )
        return {"loss": loss, "mim": loss}

    def _predict(self, batch: PretextBatch) -> tuple[Tensor, Tensor]:
        """Predict patches (b, n, values); return them and which were removed, bool (b, n)."""
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        keep, mask = random_keep(
            len(batch.images), patches, self.config.mask_ratio, batch.generator
        )
        tokens = self.encoder.encode_visible(batch.images, keep)
        return self.decoder(tokens[:, 1:], keep).float(), mask

    @torch.no_grad()
    def preview(self, batch: PretextBatch) -> Preview:
        predicted, mask = self._predict(batch)
        plain = patchify(batch.images, self.encoder.patch_size)
        if self.config.norm_pix:
            predicted = restore_patches(predicted, plain)
        size, channels = self.encoder.patch_size, self.encoder.channels
        panels = masked_panels(plain, predicted, mask, size, channels)
        return Preview({**panels, "target": batch.images})
