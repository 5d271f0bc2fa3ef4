"""Options of the augmentation of training batches. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from ecamp.api.plugin import PluginConfig


class Augmentation(PluginConfig):
    """Strength of the augmentation; `crop` 1 and `jitter` 0 change nothing."""

    crop: float = Field(default=0.7, gt=0, le=1, description="smallest fraction of the area kept")
    jitter: float = Field(
        default=0.1, ge=0, lt=1, description="largest change of contrast and brightness"
    )
    flip: bool = Field(default=False, description="mirror at random; off because sides matter")
