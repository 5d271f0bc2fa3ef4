"""Options of segmentation. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecamp.train.head_recipe import HeadRecipe


class SegmentationConfig(HeadRecipe):
    """Head and its training."""

    head: Literal["subpixel", "linear", "conv", "pyramid"] = Field(
        default="subpixel", description="subpixel, linear, conv (published), pyramid (UPerNet)"
    )
    loss: Literal["dice", "published"] = Field(
        default="dice", description="cross-entropy + Dice, or the published focal - log Dice"
    )
    batch_size: int = Field(default=24, ge=1, description="images per step")
    width: int = Field(
        default=64, ge=8, multiple_of=8, description="channels of `subpixel` and `pyramid`"
    )
