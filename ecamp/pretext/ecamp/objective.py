"""The ECAMP objective: masked image + super-resolution + masked report in one step.

`ecamp`; the published arithmetic is in `ecamp.published`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecamp.api.encoder import PatchEncoder
from ecamp.api.pretext import Objective, PretextBatch, PretextContext, Preview
from ecamp.ops.mask_tokens import DESCRIPTOR, ENTITY
from ecamp.ops.masked_mse import masked_mse
from ecamp.ops.window_mse import window_mse
from ecamp.pretext.ecamp.packed_text import TextRows
from ecamp.pretext.ecamp.reports import ReportBatch, Reports
from ecamp.pretext.ecamp.super_resolution import SuperResolutionHead
from ecamp.pretext.ecamp.teacher import WindowTeacher, entity_maps
from ecamp.pretext.ecamp.text_tower import TextTower, text_config
from ecamp.pretext.ecamp.windows import WindowFile, best_windows, random_windows
from ecamp.pretext.images import (
    PatchDecoder,
    masked_panels,
    patchify,
    random_keep,
    restore_patches,
    unpatchify,
)

if TYPE_CHECKING:
    from ecamp.pretext.ecamp.config import ECAMPConfig


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
        self.reports = Reports(config, context)
        sizes = text_config(config, self.reports.tokenizer.get_vocab_size())
        self.text = TextTower(sizes, encoder.width, fusion=config.fusion)
        self.teacher: WindowTeacher | None = None
        self.file: WindowFile | None = None
        if self.refine is not None and config.window == "attention":
            self.teacher = WindowTeacher(encoder, self.text)
        if self.refine is not None and config.window_file is not None:
            self.file = WindowFile(Path(config.window_file), context.ids)

    def state_extra(self) -> dict[str, Any]:
        return {"tokenizer": self.reports.tokenizer.to_str()}

    def after_step(self) -> None:
        if self.teacher is not None:
            self.teacher.ema_update(self.encoder, self.text, self.config.window_ema)

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        config, encoder = self.config, self.encoder
        report = self.reports.batch(batch)
        patches = encoder.grid[0] * encoder.grid[1]
        keep, mask = random_keep(len(batch.images), patches, config.mask_ratio, batch.generator)
        tokens = encoder.encode_visible(batch.images, keep)[:, 1:]
        losses = self._image_losses(batch, report, tokens, keep, mask)
        total = config.weight_mim * losses["mim"]
        if config.weight_mlm:
            losses["mlm"] = self._text_loss(batch, report, tokens)
            total = total + config.weight_mlm * losses["mlm"]
        if "sr" in losses:
            total = total + config.weight_sr * losses["sr"]
        return {"loss": total, **losses}

    def _image_losses(
        self, batch: PretextBatch, report: ReportBatch, tokens: Tensor, keep: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        patch = self.encoder.patch_size
        predicted = self.decoder(tokens, keep).float()
        mim = masked_mse(predicted, batch.images, mask, patch, normalise=self.config.norm_pix)
        losses = {"mim": mim}
        if self.refine is not None:
            row, column, side = self._window(batch, report)
            pixels = self._pixels(predicted, patchify(batch.images, patch))
            refined = self.refine.window(pixels, row, column, side)
            losses["sr"] = window_mse(refined.float(), batch.images_large, row, column)
        return losses

    def _pixels(self, predicted: Tensor, plain: Tensor) -> Tensor:
        """Assemble predicted patches to an image, in the units of the input."""
        if self.config.norm_pix:
            predicted = restore_patches(predicted, plain)
        return unpatchify(predicted, self.encoder.patch_size, self.encoder.channels)

    def _window(self, batch: PretextBatch, report: ReportBatch) -> tuple[Tensor, Tensor, int]:
        """Place the windows: first row, first column (batch,) and side, in pixels of the large image."""
        cells = self.encoder.grid[0]
        side = max(1, round(self.config.window_size * cells))
        row, column = random_windows(len(batch.images), cells, side, batch.generator)
        maps = self._maps(batch, report) if side < cells else None
        if maps is not None:
            # A report without entities keeps its random window, as an image without a map in the file.
            has_entities = maps.flatten(1).amax(1) > 0
            best_row, best_column = best_windows(maps, side)
            row = torch.where(has_entities, best_row, row)
            column = torch.where(has_entities, best_column, column)
        pixels = batch.images_large.shape[-1] // cells
        return row * pixels, column * pixels, side * pixels

    def _maps(self, batch: PretextBatch, report: ReportBatch) -> Tensor | None:
        """Compute the relevance maps (batch, rows, columns) that place the window; None for random."""
        if self.file is not None:
            return self.file.cells(batch.index, batch.crop, batch.flip, self.encoder.grid[0])
        if self.teacher is None or batch.step < self.config.window_warmup * batch.total:
            return None
        return entity_maps(self._attention(batch, report), report.pad(report.roles == ENTITY))

    def _attention(self, batch: PretextBatch, report: ReportBatch) -> Tensor:
        """Compute the attention of the teacher's text positions, (batch, S, rows, columns).

        Entities and their descriptors are masked first: only masked positions have been trained to
        attend to the evidence for their token.
        """
        assert self.teacher is not None
        context = (report.roles == ENTITY) | (report.roles == DESCRIPTOR)
        ids = torch.where(context, self.reports.tables.mask_id, report.ids)
        return self.teacher.attention(batch.images, report.pad(ids), report.padding)

    def _text_loss(self, batch: PretextBatch, report: ReportBatch, tokens: Tensor) -> Tensor:
        """Weighted cross-entropy over the batch: sum(w * CE) / sum(w)."""
        rows = TextRows.of(
            report.masked, report.ids, report.predicted, report.weights, report.lengths,
            batch.index, packed=self.config.packed,
        )  # fmt: skip
        hidden = self.text.forward_rows(rows, tokens, batch.seed, batch.step)
        predicted = rows.predicted
        return self.text.loss(hidden[predicted], rows.labels[predicted], rows.weights[predicted])

    @torch.no_grad()
    def preview(self, batch: PretextBatch) -> Preview:
        encoder, patch, channels = self.encoder, self.encoder.patch_size, self.encoder.channels
        report = self.reports.batch(batch)
        patches = encoder.grid[0] * encoder.grid[1]
        keep, mask = random_keep(
            len(batch.images), patches, self.config.mask_ratio, batch.generator
        )
        predicted = self.decoder(encoder.encode_visible(batch.images, keep)[:, 1:], keep).float()
        plain = patchify(batch.images, patch)
        restored = restore_patches(predicted, plain) if self.config.norm_pix else predicted
        panels = masked_panels(plain, restored, mask, patch, channels)
        windows = None
        if self.refine is not None:
            panels["super-resolved"] = self.refine(self._pixels(predicted, plain)).float()
            row, column, side = self._window(batch, report)
            windows = torch.stack([column, row, column + side, row + side], 1)
            windows = windows / batch.images_large.shape[-1]
        panels["target"] = batch.images_large
        attention: list[list[tuple[str, Tensor]]] = [[] for _ in batch.index]
        if self.teacher is not None:
            maps = self._attention(batch, report)
            ids, entities = report.pad(report.ids), report.pad(report.roles == ENTITY)
            for i, words in enumerate(attention):
                for word, positions in self.reports.entity_words(ids[i], entities[i]):
                    words.append((word, maps[i, positions].mean(0)))
        return Preview(panels, windows, attention)
