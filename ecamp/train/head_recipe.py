"""Optimisation recipe of downstream heads. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from ecamp.api.plugin import PluginConfig
from ecamp.data.augmentation import Augmentation

FINETUNE_CHECKS = 5


class HeadRecipe(PluginConfig):
    """Optimisation of a head, and under `finetune` of the encoder; one recipe for all encoders."""

    steps: int = Field(default=150, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="images a step")
    lr: float | None = Field(
        default=None, gt=0, description="peak learning rate of the head; by default the head's own"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of steps with rising rate")
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    checks: int | None = Field(
        default=None,
        ge=1,
        description="times validation is looked at, the best kept; by default 1 (the last weights) "
        f"for a frozen encoder, {FINETUNE_CHECKS} for finetune",
    )
    patience: int = Field(
        default=0, ge=0, description="looks without a new best that end the training; 0: never"
    )
    encoder_lr_scale: float = Field(default=0.1, gt=0, description="encoder's rate / head's rate")
    layer_decay: float = Field(
        default=0.75, gt=0, le=1, description="rate of an encoder layer / rate of the layer above"
    )
    augment: Augmentation | None = Field(
        default=Augmentation(), description="of finetune; a frozen encoder's features are cached"
    )
