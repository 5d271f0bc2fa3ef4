"""Options of detection. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecamp.train.head_recipe import HeadRecipe


class DetectionConfig(HeadRecipe):
    """Head, its training, and suppression."""

    head: Literal["dense", "yolov3"] = Field(
        default="dense", description="dense: anchor-free, light; yolov3: the published one"
    )
    steps: int = Field(default=180, ge=1, description="optimiser steps")
    batch_size: int = Field(default=12, ge=1, description="images per step")
    width: int = Field(default=48, ge=8, multiple_of=8, description="channels of `dense`")
    keep: int = Field(default=20, ge=1, le=100, description="boxes kept per image")
    nms_iou: float = Field(
        default=0.5, gt=0, lt=1, description="IoU above which the weaker box is suppressed"
    )
