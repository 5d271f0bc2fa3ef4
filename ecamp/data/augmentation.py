"""Strength of the augmentation of a training batch. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from ecamp.api.plugin import PluginConfig


class Augmentation(PluginConfig):
    """How much is drawn; `crop` 1 and `jitter` 0 change nothing."""

    crop: float = Field(default=0.7, gt=0, le=1, description="smallest share of area kept")
    jitter: float = Field(default=0.1, ge=0, lt=1, description="largest change of contrast, light")
    flip: bool = Field(default=False, description="mirror at random; off, sides matter")
