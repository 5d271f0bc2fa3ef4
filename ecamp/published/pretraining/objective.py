"""Objective of `ecamp-published`: draws what the published data loader draws."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecamp.api.encoder import PatchEncoder
from ecamp.api.pretext import PretextBatch, PretextContext, Preview
from ecamp.pretext.ecamp.reports import tokenizer_for
from ecamp.pretext.ecamp.text_tower import text_config
from ecamp.pretext.images import masked_panels, patchify
from ecamp.published.pretraining.image import WINDOW_MARGIN, window_cells
from ecamp.published.pretraining.masking import Vocabulary, insert_distilled, mask_batch
from ecamp.published.pretraining.model import Losses, PublishedModel
from ecamp.text.tokenizer import encode_reports

if TYPE_CHECKING:
    from ecamp.pretext.ecamp.config import ArchitectureConfig


class PublishedObjective(PublishedModel):
    """The published model, fed by a `PretextBatch`."""

    def __init__(
        self, encoder: PatchEncoder, config: ArchitectureConfig, context: PretextContext
    ) -> None:
        tokenizer = tokenizer_for(config, context)
        super().__init__(
            encoder,
            (config.decoder_width, config.decoder_depth, config.decoder_heads),
            text_config(config, tokenizer.get_vocab_size()),
            scale=context.image_scale,
            mask_ratio=config.mask_ratio,
        )
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        self.texts = context.reports
        # The published code fails on an empty distilled text; here such a report is left unchanged.
        self.distilled = context.distilled if config.distilled_text else ()
        self.length = config.text_length
        self.ids, self.lengths = self._encode(self.texts)

    def state_extra(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_str()}

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        losses, _, _ = self._step(batch)
        return {"loss": losses.total, "mim": losses.mim, "sr": losses.sr, "mlm": losses.mlm}

    @torch.no_grad()
    def preview(self, batch: PretextBatch) -> Preview:
        losses, row, column = self._step(batch)
        patch, channels = self.encoder.patch_size, self.encoder.channels
        plain = patchify(losses.small, patch)
        panels = masked_panels(plain, losses.predicted.float(), losses.removed, patch, channels)
        panels |= {"super-resolved": losses.refined.float(), "target": batch.images_large}
        side = window_cells(self.encoder.grid[0])
        # `row` moves the window along the width, as published.
        windows = torch.stack([row, column, row + side, column + side], 1) / self.encoder.grid[0]
        return Preview(panels, windows)

    def _step(self, batch: PretextBatch) -> tuple[Losses, Tensor, Tensor]:
        """Compute the losses of a batch; return them with the row and column of its windows."""
        device, count = batch.images_large.device, len(batch.images_large)
        noise = torch.rand(count, self.patches, generator=batch.generator)
        # A published list named one of nine windows per image; it was never published.
        row, column = torch.randint(0, WINDOW_MARGIN + 1, (2, count), generator=batch.generator)
        index = batch.index.cpu()
        sources = [_source(batch.seed, batch.step, sample) for sample in index.tolist()]
        labels, lengths = self._read(index, sources)
        ids, weights = mask_batch(labels, self.vocabulary, sources)
        real = (torch.arange(labels.shape[1]) < lengths.unsqueeze(1)).long()
        inputs = (noise, row, column, ids, labels, real, weights)
        losses = self.losses(batch.images_large, *(value.to(device) for value in inputs))
        return losses, row, column

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return tokens (n, S) and lengths (n,); doubled full stops become single, as published."""
        cleaned = [text.replace("..", ".") for text in texts]
        ids, lengths = encode_reports(self.tokenizer, cleaned, self.length)
        return torch.from_numpy(ids), torch.from_numpy(lengths)

    def _read(self, index: Tensor, sources: list[random.Random]) -> tuple[Tensor, Tensor]:
        """Encode the reports of a batch, with distilled text where available: two draws per report."""
        if not any(self.distilled):
            return self.ids[index], self.lengths[index]
        return self._encode(
            [
                insert_distilled(self.texts[i], self.distilled[i], source)
                if self.distilled[i]
                else self.texts[i]
                for i, source in zip(index.tolist(), sources, strict=True)
            ]
        )


def _source(seed: int, step: int, sample: int) -> random.Random:
    """Seed the random numbers of one sample in one step, independent of other draws."""
    return random.Random((seed << 80) | (step << 40) | sample)
