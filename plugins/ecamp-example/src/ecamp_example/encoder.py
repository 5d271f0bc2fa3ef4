"""An encoder of three strided convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ecamp.api import EncoderPlugin, PluginConfig

if TYPE_CHECKING:  # listing plugins must not import torch
    from ecamp.api import Encoder


class TinyConvConfig(PluginConfig):
    """Sizes of the network."""

    image_size: int = Field(default=32, ge=16, description="side of the input in pixels")
    width: int = Field(default=32, ge=8, description="channels of the last stage")


class TinyConv(EncoderPlugin[TinyConvConfig]):
    """A small convolutional encoder: fast enough for tests, good enough to score above chance."""

    summary = "three strided convolutions"
    licence = "Apache-2.0"
    citation = "this package"

    @property
    def image_size(self) -> int:
        result: int = self.config.image_size
        return result

    def build(self, channels: int) -> Encoder:
        from ecamp_example.network import ConvEncoder

        return ConvEncoder(channels, self.config.image_size, self.config.width)
