"""An encoder with a text side, small enough to be read: it knows squares and grounds by name.

Copied beside a dist-info by the tests, as a stranger's package would be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.encoder import DualEncoder, EncoderPlugin, Features
from ecamp.api.plugin import PluginConfig


class Toy(DualEncoder):
    """Joint space: (how much of a square, how bright a ground)."""

    image_size, width = 32, 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, images: Tensor) -> Features:
        grey = F.avg_pool2d(images.mean(1, keepdim=True), 4)
        low, high = grey.flatten(1).amin(1), grey.flatten(1).amax(1)
        pooled = torch.stack([high - low - 1, low + 1], 1) * self.scale
        maps = torch.cat([grey, grey], 1) * self.scale[:, None, None]
        return Features(pooled, maps.flatten(2).transpose(1, 2), (8, 8), (maps,))

    def embed_image(self, features: Features) -> Tensor:
        return features.pooled.sign()

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        # A sentence about neither lies near the middle, where its length puts it.
        out = torch.tensor([[0.01, 0.001 * len(text)] for text in texts])
        for row, text in zip(out, texts, strict=True):
            for sentence in text.lower().replace(",", ".").split("."):
                denied = any(word in sentence.split() for word in ("no", "without", "dark"))
                for i, word in enumerate(("square", "ground")):
                    if word in sentence:
                        row[i] = -1.0 if denied else 1.0
        return out


class Plugin(EncoderPlugin):
    """The toy."""

    summary = "knows squares and grounds by name"
    licence = "Apache-2.0"
    citation = "none"

    class Config(PluginConfig):
        """Nothing to set."""

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"text"})

    @property
    def image_size(self) -> int:
        return 32

    def build(self, channels: int) -> Any:
        return Toy(channels)
