"""Masked autoencoder (He et al., CVPR 2022): reconstruct removed patches from visible ones."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ecamp.encoders.base import Encoder, PatchEncoder
from ecamp.plugin.protocols import PluginConfig, PretextPlugin
from ecamp.pretext.base import Objective, PretextBatch, PretextContext
from ecamp.pretext.images import (
    PatchDecoder,
    masked_mse,
    normalise_patches,
    patchify,
    random_keep,
)


class MAE(PretextPlugin):
    """Images alone."""

    summary = "masked autoencoder: reconstruct removed patches (images only)"
    licence = "Apache-2.0"
    citation = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
    needs = frozenset({"image"})
    requires = frozenset({"visible"})

    class Config(PluginConfig):
        """Masking and decoder."""

        mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="share of patches removed")
        norm_pix: bool = Field(default=True, description="normalise the target of each patch")
        decoder_width: int = Field(default=96, ge=16, description="decoder token length")
        decoder_depth: int = Field(default=2, ge=1, description="decoder blocks")
        decoder_heads: int = Field(default=4, ge=1, description="decoder heads")

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        assert isinstance(encoder, PatchEncoder)
        return MAEObjective(encoder, self.config)


class MAEObjective(Objective):
    """Encoder, decoder, masked mean squared error."""

    def __init__(self, encoder: PatchEncoder, config: MAE.Config) -> None:
        super().__init__()
        self.encoder: PatchEncoder = encoder
        self.config = config
        self.decoder = PatchDecoder(
            encoder, config.decoder_width, config.decoder_depth, config.decoder_heads
        )

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        keep, mask = random_keep(
            len(batch.images), patches, self.config.mask_ratio, batch.generator
        )
        tokens = self.encoder.encode_visible(batch.images, keep)
        predicted = self.decoder(tokens[:, 1:], keep).float()
        target = patchify(batch.images, self.encoder.patch_size)
        if self.config.norm_pix:
            target = normalise_patches(target)
        loss = masked_mse(predicted, target, mask)
        return {"loss": loss, "mim": loss}
