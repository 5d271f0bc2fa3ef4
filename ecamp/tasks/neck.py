"""Brings any encoder's pyramid to one map, so that one head serves ViTs and CNNs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.encoders.base import Features


class Neck(nn.Module):
    """Standardise and project each pyramid level, resize to one grid, add, normalise.

    Channels are standardised with the statistics of training images, as before a linear probe:
    the inner layers of a pre-trained ViT have a few channels of a hundredfold size, and without
    this a head's steps go into undoing them and encoders are compared by their scale.

    The grid is that of the level nearest to 1/8 of the image side: a patch-8 ViT keeps its own.

    Args:
        features: Features of some training images: shapes and statistics come from them.
        image_size: Side of the encoder's input.
        width: Channels of the result.
    """

    def __init__(self, features: Features, image_size: int, width: int) -> None:
        super().__init__()
        levels = features.pyramid
        wanted = image_size / 8
        self.grid = min(
            ((level.shape[2], level.shape[3]) for level in levels),
            key=lambda grid: abs(torch.tensor(grid[0] / wanted).log2().item()),
        )
        self.projections = nn.ModuleList(nn.Conv2d(level.shape[1], width, 1) for level in levels)
        self.norm = nn.GroupNorm(8, width)
        for at, level in enumerate(levels):
            flat = level.detach().float().transpose(0, 1).flatten(1)
            self.register_buffer(f"mean_{at}", flat.mean(1)[:, None, None])
            self.register_buffer(f"scale_{at}", 1 / (flat.std(1)[:, None, None] + 1e-5))

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Levels (batch, width_i, rows_i, columns_i) -> (batch, width, *grid)."""
        total = torch.zeros(())
        for at, (level, project) in enumerate(zip(pyramid, self.projections, strict=True)):
            mean, scale = self.get_buffer(f"mean_{at}"), self.get_buffer(f"scale_{at}")
            part = project((level - mean) * scale)
            if part.shape[2:] != self.grid:
                part = F.interpolate(part, self.grid, mode="bilinear", align_corners=False)
            total = total + part
        return self.norm(total)


def output_conv(inputs: int, outputs: int, kernel: int, bias: float) -> nn.Conv2d:
    """The last layer of a dense head, its logits starting at `bias` (the prior of a rare class)."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    torch.nn.init.constant_(torch.as_tensor(layer.bias), bias)
    return layer


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, group norm (no batch statistics: small sets), GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.GELU()
    )
