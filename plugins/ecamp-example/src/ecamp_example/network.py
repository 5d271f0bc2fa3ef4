"""The torch module of the encoder; imported only when it is built."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ecamp.api import Encoder, Features


class ConvEncoder(Encoder):
    """Encoder of images (batch, channels, size, size) to maps at 1/2, 1/4 and 1/8 of the side."""

    def __init__(self, channels: int, image_size: int, width: int) -> None:
        super().__init__()
        self.channels, self.image_size, self.width = channels, image_size, width
        sizes = [channels, width // 2, width, width]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.ReLU())
            for a, b in pairwise(sizes)
        )

    def forward(self, images: Tensor) -> Features:
        levels = []
        x = images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return Features(
            pooled=x.mean((2, 3)),
            tokens=x.flatten(2).transpose(1, 2),
            grid=(x.shape[2], x.shape[3]),
            pyramid=tuple(levels),
        )
