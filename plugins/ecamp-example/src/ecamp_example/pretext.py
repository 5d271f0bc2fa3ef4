"""A pretext task with two views and an averaged teacher, after BYOL (Grill et al., NeurIPS 2020)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ecamp.api import (
    Encoder,
    Objective,
    PluginConfig,
    PretextBatch,
    PretextContext,
    PretextPlugin,
    ViewSpec,
)


class TwoViewsConfig(PluginConfig):
    """Options of views, heads and teacher."""

    decay: float = Field(default=0.99, ge=0, lt=1, description="decay of the teacher's average")
    width: int = Field(default=64, ge=8, description="length of projected features")
    blur: float = Field(default=1.0, ge=0, description="largest blur of a view in pixels")


class TwoViews(PretextPlugin[TwoViewsConfig]):
    """Works with any encoder; the teacher's weights are the result."""

    summary = "two views agree: a student predicts an averaged teacher's features"
    licence = "Apache-2.0"
    citation = "Grill et al., Bootstrap Your Own Latent, NeurIPS 2020"

    def recipe_defaults(self) -> Mapping[str, Any]:
        return {"lr": 5e-4, "crop": None}

    def views(self) -> tuple[ViewSpec, ...]:
        spec = ViewSpec(crop=0.5, jitter=0.3, blur=self.config.blur)
        return (spec, spec)

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        return TwoViewsObjective(encoder, self.config)


class TwoViewsObjective(Objective):
    """Student, teacher and heads."""

    def __init__(self, encoder: Encoder, config: TwoViewsConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.project = _head(encoder.width, config.width)
        self.predict = _head(config.width, config.width)
        self.teacher = copy.deepcopy(nn.ModuleList([encoder, self.project])).requires_grad_(False)

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        first, second = batch.views
        student = [self.project(self.encoder(view.images).pooled) for view in (first, second)]
        with torch.no_grad():
            encoder, project = self.teacher
            teacher = [project(encoder(view.images).pooled) for view in (second, first)]
        pairs = zip(student, teacher, strict=True)
        agreement = [F.cosine_similarity(self.predict(s), t).mean() for s, t in pairs]
        loss = 1 - torch.stack(agreement).mean()
        # Falls to 0 when every image gets the same features.
        spread = F.normalize(student[0].detach().float(), dim=1).std(0, correction=0).mean()
        return {"loss": loss, "spread": spread}

    @torch.no_grad()
    def after_step(self) -> None:
        for averaged, value in zip(
            self.teacher.state_dict().values(),
            nn.ModuleList([self.encoder, self.project]).state_dict().values(),
            strict=True,
        ):
            if averaged.is_floating_point():
                averaged.lerp_(value, 1 - self.config.decay)
            else:
                averaged.copy_(value)

    def result(self) -> nn.Module:
        return self.teacher[0]


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 2 * outputs),
        nn.LayerNorm(2 * outputs),
        nn.GELU(),
        nn.Linear(2 * outputs, outputs),
    )
