"""The ECAMP objective: masked image + super-resolution + masked report in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecamp.encoders.base import PatchEncoder
from ecamp.ops.mask_tokens import mask_tokens
from ecamp.pretext.base import Objective, PretextBatch, PretextContext
from ecamp.pretext.ecamp.super_resolution import (
    SuperResolutionHead,
    random_windows,
    window_mse,
)
from ecamp.pretext.ecamp.text import TextTower
from ecamp.pretext.images import (
    PatchDecoder,
    masked_mse,
    normalise_patches,
    patchify,
    random_keep,
    unpatchify,
)
from ecamp.text.policy import compile_policy
from ecamp.text.tokenizer import encode_reports, train_tokenizer

if TYPE_CHECKING:
    from ecamp.pretext.ecamp import ECAMPConfig


class ECAMPObjective(Objective):
    """Total loss = MIM + SR + MLM with the configured weights."""

    def __init__(self, encoder: PatchEncoder, config: ECAMPConfig, context: PretextContext) -> None:
        super().__init__()
        self.encoder: PatchEncoder = encoder
        self.config = config
        values = encoder.patch_size**2 * encoder.channels
        self.decoder = PatchDecoder(
            encoder.width,
            encoder.grid,
            values,
            config.decoder_width,
            config.decoder_depth,
            config.decoder_heads,
        )
        self.refine = (
            SuperResolutionHead(encoder.channels, config.sr_width, context.image_scale)
            if config.super_resolution
            else None
        )
        self.tokenizer = train_tokenizer(filter(None, context.reports), config.vocab_size)
        ids, lengths = encode_reports(self.tokenizer, context.reports, config.text_length)
        self.ids, self.lengths = torch.from_numpy(ids), torch.from_numpy(lengths)
        self.tables = compile_policy(config.masking, self.tokenizer)
        self.text = TextTower(
            self.tokenizer.get_vocab_size(),
            config.text_length,
            config.text_width,
            encoder.width,
            config.text_depth,
            config.text_heads,
            config.dropout,
        )

    def state_extra(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_str()}

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        config, encoder = self.config, self.encoder
        patches = encoder.grid[0] * encoder.grid[1]
        keep, mask = random_keep(len(batch.images), patches, config.mask_ratio, batch.generator)
        tokens = encoder.encode_visible(batch.images, keep)[:, 1:]
        losses = self._image_losses(batch, tokens, keep, mask)
        losses["mlm"] = self._text_loss(batch, tokens)
        total = config.weight_mim * losses["mim"] + config.weight_mlm * losses["mlm"]
        if "sr" in losses:
            total = total + config.weight_sr * losses["sr"]
        return {"loss": total, **losses}

    def _image_losses(
        self, batch: PretextBatch, tokens: Tensor, keep: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        config, patch = self.config, self.encoder.patch_size
        predicted = self.decoder(tokens, keep).float()
        plain = patchify(batch.images, patch)
        target = normalise_patches(plain) if config.norm_pix else plain
        losses = {"mim": masked_mse(predicted, target, mask)}
        if self.refine is not None:
            if config.norm_pix:
                # Bring the prediction back to pixels with the patch's own mean and spread.
                mean = plain.mean(-1, keepdim=True)
                spread = (plain.var(-1, keepdim=True) + 1e-6).sqrt()
                predicted = predicted * spread + mean
            small = unpatchify(predicted, patch, self.encoder.channels)
            cells = self.encoder.grid[0]
            side = max(1, round(config.window * cells))
            row, column = random_windows(len(small), cells, side, batch.generator)
            large = self.refine(small)
            losses["sr"] = window_mse(large, batch.images_large, row, column, side, cells)
        return losses

    def _text_loss(self, batch: PretextBatch, tokens: Tensor) -> Tensor:
        ids, lengths = self.ids[batch.index], self.lengths[batch.index]
        longest = int(lengths.max())
        # One column more than the longest text: the last position is never masked.
        ids = ids[:, : min(longest + 1, ids.shape[1])]
        masked = mask_tokens(ids, lengths, batch.index, batch.step, batch.seed, self.tables)
        hidden = self.text(masked.ids, lengths, tokens)
        weights = masked.weights if self.config.rebalance else masked.mask.float()
        return self.text.loss(hidden, ids, masked.mask, weights)
