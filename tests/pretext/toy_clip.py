"""A contrastive pretext task with a text side, as a stranger would write it from the docs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ecamp.api import (
    DualEncoder,
    Encoder,
    Features,
    Objective,
    PluginConfig,
    PretextBatch,
    PretextContext,
    PretextPlugin,
)

WORD = re.compile(r"[a-z]+")


class Clip(DualEncoder):
    """An encoder with a bag of words, and a temperature that is learnt."""

    def __init__(self, encoder: Encoder, words: Sequence[str], width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size, self.width, self.channels = (
            encoder.image_size, encoder.width, encoder.channels,
        )  # fmt: skip
        self.words = {word: number + 1 for number, word in enumerate(words)}
        self.bag = nn.EmbeddingBag(len(words) + 1, width, mode="mean")
        self.head = nn.Linear(encoder.width, width)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    @property
    def logit_scale(self) -> float:  # type: ignore[override]
        return float(self.log_scale.detach().exp())

    def forward(self, images: Tensor) -> Features:
        features: Features = self.encoder(images)
        return features

    def embed_image(self, features: Features) -> Tensor:
        return F.normalize(self.head(features.pooled), dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        rows = [
            [0, *(self.words[w] for w in WORD.findall(text.lower()) if w in self.words)]
            for text in texts
        ]
        start = torch.tensor([0, *map(len, rows)]).cumsum(0)[:-1]
        return F.normalize(self.bag(torch.tensor([n for row in rows for n in row]), start), dim=1)


class ClipObjective(Objective):
    """Cross-entropy of each pair against the batch, both ways."""

    def __init__(self, clip: Clip, context: PretextContext) -> None:
        super().__init__()
        self.encoder, self.clip, self.reports = clip.encoder, clip, context.reports

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        images = self.clip.embed_image(self.encoder(batch.images))
        texts = self.clip.embed_text([self.reports[i] for i in batch.index.tolist()])
        logits = images @ texts.T * self.clip.log_scale.exp()
        truth = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
        return {"loss": loss}

    def result(self) -> nn.Module:
        return self.clip

    def state_extra(self) -> dict[str, Any]:
        return {"words": list(self.clip.words)}


class Config(PluginConfig):
    """Size of the joint space."""

    joint_width: int = Field(default=32, ge=2, description="length of embeddings")


class Plugin(PretextPlugin[Config]):
    """Adds a text side to any encoder."""

    summary, licence, citation = "bag of words against images", "MIT", "a test"
    needs = frozenset({"image", "report"})
    adds = frozenset({"text"})
    whole_batch = True

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        words = sorted({w for report in context.reports for w in WORD.findall(report.lower())})
        return ClipObjective(Clip(encoder, words, self.config.joint_width), context)

    def rebuild(self, encoder: Encoder, extra: Mapping[str, Any]) -> Encoder:
        return Clip(encoder, extra["words"], self.config.joint_width)
