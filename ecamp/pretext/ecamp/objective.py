"""The ECAMP objective: masked image + super-resolution + masked report in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import BertConfig

from ecamp.encoders.base import PatchEncoder
from ecamp.ops.mask_tokens import mask_tokens
from ecamp.pretext.base import Objective, PretextBatch, PretextContext
from ecamp.pretext.ecamp.super_resolution import (
    SuperResolutionHead,
    cut,
    random_windows,
)
from ecamp.pretext.ecamp.text_tower import TextTower
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

TEXT_PARTS = 4  # parts of a batch, by length of the report


class ECAMPObjective(Objective):
    """Total loss = MIM + SR + MLM with the configured weights."""

    def __init__(self, encoder: PatchEncoder, config: ECAMPConfig, context: PretextContext) -> None:
        super().__init__()
        self.encoder: PatchEncoder = encoder
        self.config = config
        self.decoder = PatchDecoder(
            encoder, config.decoder_width, config.decoder_depth, config.decoder_heads
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
            BertConfig(
                vocab_size=self.tokenizer.get_vocab_size(),
                hidden_size=config.text_width,
                num_hidden_layers=config.text_depth,
                num_attention_heads=config.text_heads,
                intermediate_size=2 * config.text_width,
                max_position_embeddings=config.text_length,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            ),
            encoder.width,
        )

    def state_extra(self) -> dict[str, Any]:
        return {"fidelity": self.config.fidelity, "tokenizer": self.tokenizer.to_str()}

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
            corner = random_windows(len(small), cells, side, batch.generator)
            pixels = batch.images_large.shape[-1] // cells
            row, column = corner[0] * pixels, corner[1] * pixels
            refined = self.refine.window(small, row, column, side * pixels)
            target = cut(batch.images_large, row, column, side * pixels)
            losses["sr"] = (refined.float() - target).square().mean()
        return losses

    def _text_loss(self, batch: PretextBatch, tokens: Tensor) -> Tensor:
        """Weighted cross-entropy over the batch: sum(w * CE) / sum(w)."""
        ids, lengths = self.ids[batch.index], self.lengths[batch.index]
        masked = mask_tokens(ids, lengths, batch.index, batch.step, batch.seed, self.tables)
        weights = masked.weights if self.config.rebalance else masked.mask.float()
        entropy = weight = torch.zeros(())
        # Reports of like length go together: padded to the longest of all, half of the text
        # branch's work on a CPU would be padding.
        for part in lengths.argsort(stable=True).chunk(TEXT_PARTS):
            # One column more than the longest text: the last position is never masked.
            longest = min(int(lengths[part].max()) + 1, ids.shape[1])
            padding = torch.arange(longest) >= lengths[part].unsqueeze(1)
            hidden = self.text(masked.ids[part, :longest], padding, tokens[part])
            sums = self.text.loss_sums(
                hidden, ids[part, :longest], masked.mask[part, :longest], weights[part, :longest]
            )
            entropy, weight = entropy + sums[0], weight + sums[1]
        return entropy / weight.clamp(min=1e-6)
