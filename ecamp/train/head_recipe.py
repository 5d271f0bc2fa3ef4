"""Optimisation recipe of downstream heads. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from ecamp.api.plugin import PluginConfig
from ecamp.data.augmentation import Augmentation

FINETUNE_VALIDATIONS = 5


class HeadRecipe(PluginConfig):
    """Optimisation of a head, and under `finetune` of the encoder; one recipe for all encoders."""

    steps: int = Field(default=150, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="images per step")
    lr: float | None = Field(
        default=None, gt=0, description="peak learning rate of the head; by default the head's own"
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="fraction of steps with rising learning rate"
    )
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    validations: int | None = Field(
        default=None,
        ge=1,
        description="number of validations, the best weights are kept; by default 1 (the last weights) "
        f"for a frozen encoder, {FINETUNE_VALIDATIONS} for finetune",
    )
    patience: int = Field(
        default=0, ge=0, description="validations without improvement before stopping; 0 disables"
    )
    encoder_lr_scale: float = Field(
        default=0.1, gt=0, description="encoder's learning rate / head's learning rate"
    )
    layer_decay: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="learning rate of an encoder layer / of the layer above",
    )
    augment: Augmentation | None = Field(
        default=Augmentation(),
        description="augmentation under finetune; features of a frozen encoder are cached",
    )
