"""`ecamp?fidelity=released` as a pretext: draws what the published data loader draws."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecamp.encoders.base import PatchEncoder
from ecamp.errors import UsageError
from ecamp.pretext.base import PretextBatch, PretextContext
from ecamp.pretext.ecamp.released.image import WINDOW_MARGIN
from ecamp.pretext.ecamp.released.masking import Vocabulary, mask_batch
from ecamp.pretext.ecamp.released.model import ReleasedModel
from ecamp.pretext.ecamp.text_tower import text_config
from ecamp.text.tokenizer import encode_reports, train_tokenizer

if TYPE_CHECKING:
    from ecamp.pretext.ecamp.config import ECAMPConfig

# Switches of the mended method that the published code has no counterpart of.
FIXED = (
    "norm_pix", "super_resolution", "sr_width", "window", "window_size", "window_file",
    "window_warmup", "window_ema", "fusion", "rebalance", "masking", "loss_on", "weight_mim",
    "weight_sr", "weight_mlm",
)  # fmt: skip


class ReleasedObjective(ReleasedModel):
    """The published model fed by a `PretextBatch`.

    Raises:
        UsageError: When a switch is set that the published arithmetic has fixed; names it.
    """

    def __init__(self, encoder: PatchEncoder, config: ECAMPConfig, context: PretextContext) -> None:
        fields = type(config).model_fields
        moved = [
            name
            for name in FIXED
            if name in fields
            and getattr(config, name) != fields[name].get_default(call_default_factory=True)
        ]
        if moved:
            raise UsageError(
                f"ecamp?fidelity=released: {', '.join(moved)} cannot be set.",
                "The published arithmetic fixes it; leave it out, or take fidelity=paper.",
            )
        tokenizer = train_tokenizer(filter(None, context.reports), config.vocab_size)
        super().__init__(
            encoder,
            (config.decoder_width, config.decoder_depth, config.decoder_heads),
            text_config(config, tokenizer.get_vocab_size()),
            scale=context.image_scale,
            mask_ratio=config.mask_ratio,
        )
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        # As published: doubled full stops are made single before tokens are cut.
        texts = [report.replace("..", ".") for report in context.reports]
        ids, lengths = encode_reports(tokenizer, texts, config.text_length)
        self.ids, self.lengths = torch.from_numpy(ids), torch.from_numpy(lengths)

    def state_extra(self) -> dict[str, Any]:
        return {"fidelity": "released", "tokenizer": self.tokenizer.to_str()}

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        device, count = batch.images_large.device, len(batch.images_large)
        noise = torch.rand(count, self.patches, generator=batch.generator)
        # A published list named one of nine windows per image; it was never published.
        row, column = torch.randint(0, WINDOW_MARGIN + 1, (2, count), generator=batch.generator)
        index = batch.index.cpu()
        labels, lengths = self.ids[index], self.lengths[index]
        ids, weights = mask_batch(
            labels,
            self.vocabulary,
            [_source(batch.seed, batch.step, sample) for sample in index.tolist()],
        )
        real = (torch.arange(labels.shape[1]) < lengths.unsqueeze(1)).long()
        drawn = (noise, row, column, ids, labels, real, weights)
        losses = self.losses(batch.images_large, *(value.to(device) for value in drawn))
        return {"loss": losses.total, "mim": losses.mim, "sr": losses.sr, "mlm": losses.mlm}


def _source(seed: int, step: int, sample: int) -> random.Random:
    """Random numbers of one sample in one step, whatever else was drawn."""
    return random.Random((seed << 80) | (step << 40) | sample)
