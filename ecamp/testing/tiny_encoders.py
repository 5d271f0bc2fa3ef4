"""Small encoders that pretext tasks and tasks are checked with."""

from __future__ import annotations

from torch import Tensor, nn

from ecamp.api.encoder import Encoder, Features
from ecamp.encoders.timm import MicroViT, MicroViTConfig

SIDE = 32  # pixels


def tiny_vit() -> MicroViT:
    """Make a ViT of one block."""
    return MicroViT(MicroViTConfig(image_size=SIDE, width=32, depth=1, heads=2))


class TinyCNN(Encoder):
    """Two strided convolutions; knows no visible patches and no texts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.image_size, self.width = channels, SIDE, 16
        self.stages = nn.ModuleList(
            [nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, self.width, 3, 2, 1)]
        )

    def forward(self, images: Tensor) -> Features:
        levels, x = [], images
        for stage in self.stages:
            x = stage(x).relu()
            levels.append(x)
        tokens = x.flatten(2).transpose(1, 2)
        return Features(x.mean((2, 3)), tokens, (x.shape[2], x.shape[3]), tuple(levels))
